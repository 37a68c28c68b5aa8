"""Which spaces of Gymnasium can be written and read as text."""

from typing import Any, cast

import numpy as np
import pytest
from gymnasium import spaces

from agentrl.core.errors import ConfigError
from agentrl.envs.gym.spaces import action_words, check_shown


def test_observations_that_are_no_text_are_refused() -> None:
    large = cast("spaces.Space[object]", spaces.Box(0, 255, (7, 7, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"an observation of 147 numbers .* is too long as text"):
        check_shown(cast("spaces.Space[object]", spaces.Dict({"image": large})))
    with pytest.raises(ConfigError, match="Sequence observations cannot be written"):
        check_shown(cast("spaces.Space[object]", spaces.Sequence(spaces.Discrete(3))))


def test_numbers_that_a_space_does_not_hold_are_no_action() -> None:
    space = cast("spaces.Space[object]", spaces.MultiDiscrete([2, 3]))
    words = action_words(space, ())
    for text in ("", "1", "1 2 0", "2 0", "1 -1", "a b", "1 99999999999999999999", "1 ٢"):
        assert words.read(text) is None
    assert cast("Any", words.read("1 2")).tolist() == [1, 2]
