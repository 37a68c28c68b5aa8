"""Presets: whole methods laid over a recipe."""

from pathlib import Path

import pytest

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, SequenceMeanTokenSum, TokenMean
from agentrl.algo.filters.zero_std import ZeroStd
from agentrl.algo.kl import K1
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.config import Config, load_config
from agentrl.core.errors import ConfigError
from agentrl.rollout.strategies.dynamic import Dynamic

SCRIPTS = Path(__file__).parents[2] / "scripts"
PRESETS = sorted(path.stem for path in (SCRIPTS / "presets").glob("*.yaml"))


def preset(name: str, *overrides: str) -> Config:
    return load_config(SCRIPTS / "quickstart.yaml", overrides, preset=name)


def test_each_preset_is_its_method() -> None:
    assert {"grpo", "dr_grpo", "dapo", "rloo"} <= set(PRESETS)
    grpo, dr, dapo, rloo = (preset(name) for name in ("grpo", "dr_grpo", "dapo", "rloo"))
    assert (grpo.advantage, grpo.aggregate) == (GroupNormalised(), SequenceMeanTokenMean())
    assert (dr.advantage, dr.aggregate) == (GroupNormalised(scale="none"), Constant(length=512))
    assert (dapo.aggregate, dapo.filter, dapo.strategy) == (TokenMean(), ZeroStd(), Dynamic())
    assert (rloo.advantage, rloo.aggregate) == (LeaveOneOut(), SequenceMeanTokenSum())
    assert rloo.kl == K1(beta=0.01, placement="reward")
    assert [c.loss for c in (grpo, dr, dapo, rloo)] == [
        PpoClip(),
        PpoClip(),
        PpoClip(high=0.28),
        PpoClip(),
    ]
    assert [c.kl for c in (grpo, dr, dapo)] == [None, None, None]


def test_the_recipe_keeps_what_the_preset_does_not_say_and_overrides_come_last() -> None:
    plain = load_config(SCRIPTS / "quickstart.yaml")
    changed = preset("dr_grpo", "aggregate.length=64", "loss.low=0.1")
    assert changed.env == plain.env
    assert changed.optim == plain.optim
    assert changed.aggregate == Constant(length=64)
    assert changed.loss == PpoClip(low=0.1)


def test_a_preset_may_be_any_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("advantage: rloo\n")
    assert preset(str(mine)).advantage == LeaveOneOut()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dr_grp", "is called 'dr_grp'; did you mean 'dr_grpo'?"),
        ("nowhere.yaml", "--preset nowhere.yaml: there is no such file"),
    ],
)
def test_an_unknown_preset_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(name)
    assert message in str(caught.value)
