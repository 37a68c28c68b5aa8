"""The 80/20 mask: the surrogate sees the tokens with the highest entropy of the step alone."""

from dataclasses import replace

import pytest

from agentrl.algo.entropy import Bonus
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.errors import DataError
from agentrl.rollout.share import Solo
from agentrl.train.high_entropy import credited, high_entropy_only
from agentrl.train.prepare import TrainRow
from support.models import row

ROWS = [
    replace(TrainRow.blank(row(range(n + 1), [False] + [True] * n)), entropies=(0.0, *entropies))
    for n, entropies in ((3, (0.1, 0.9, 0.2)), (2, (0.3, 0.8)))
]
CREDIT = [
    TokenAdvantages((0.0, 1.0, 1.0, 1.0), (False, True, True, True)),
    TokenAdvantages((0.0, -2.0, 0.0), (False, True, False)),  # its last token is not trained
]


def test_advantages_stay_on_the_tokens_with_the_highest_entropy_of_the_whole_step() -> None:
    items, metrics = credited(ROWS, CREDIT, Bonus(top=0.5), Solo())
    # trained entropies .1 .9 .2 .3: the half with the most are .9 and .3
    assert [item.advantages.values for item in items] == [(0.0, 0.0, 1.0, 0.0), (0.0, -2.0, 0.0)]
    assert [item.advantages.mask for item in items] == [c.mask for c in CREDIT]
    assert metrics["loss/entropy_threshold"].mean == pytest.approx(0.25)


def test_without_a_mask_every_token_keeps_its_advantage() -> None:
    for entropy in (None, Bonus(coef=0.1)):
        items, metrics = credited(ROWS, CREDIT, entropy, Solo())
        assert [item.advantages for item in items] == CREDIT
        assert metrics == {}


def test_a_step_without_a_trained_token_has_no_threshold() -> None:
    nothing = [TokenAdvantages((0.0,) * 4, (False,) * 4), TokenAdvantages((0.0,) * 3, (False,) * 3)]
    items, metrics = credited(ROWS, nothing, Bonus(top=0.5), Solo())
    assert [item.advantages for item in items] == nothing
    assert metrics == {}


def test_rows_without_entropies_are_refused() -> None:
    with pytest.raises(DataError, match="expected rows with entropies"):
        high_entropy_only([replace(item, entropies=None) for item in ROWS], 0.5, Solo())
