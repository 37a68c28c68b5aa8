"""Whole runs with a bonus: it is credit beside the task's, and leaves no trace where it is off."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl.algo.filters.zero_std import ZeroStd
from agentrl.algo.spread import TokenAdvantages
from agentrl.core import registry
from agentrl.core.errors import ConfigError, DataError
from agentrl.core.types import Action, Group, Step, Stop
from agentrl.explore.bonuses.counts import Counts
from agentrl.rollout.fold import fold
from agentrl.train.checkpoint import Checkpoints
from agentrl.train.loop import train
from agentrl.train.resume import read_progress
from agentrl.train.second_channel import with_bonuses
from support.chatter import ChatterEnv
from support.same import differences
from support.stopping import stopped, stopping_sink
from support.walks import walk, walks
from support.whole_runs import column, tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
CHATTER = ("reward=success", "env.length=4", "eval.baselines=false")
MUTE = ("env=mute", "eval.baselines=false")
KEPT = ("checkpoint.every=1", "checkpoint.keep=9", "run.steps=4", "eval.every=2")


@dataclass(kw_only=True)
class MuteEnv(ChatterEnv):
    """Takes any text and never pays for it."""

    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, reward=0.0, info={"success": False} if step.terminated else {})


@dataclass(frozen=True, kw_only=True)
class Babble:
    """A bonus for letters that differ."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        return [
            [[len(set(str(turn.action))) / 9 for turn in t.turns] for t in group.trajectories]
            for group in groups
        ]

    def observe(self, groups: Sequence[Group]) -> None: ...


@pytest.fixture(autouse=True)
def parts(training_envs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("bonus")
    monkeypatch.setitem(registry._parts["env"], "mute", MuteEnv)
    monkeypatch.setitem(registry._parts["bonus"], "babble", Babble)


def test_without_a_bonus_and_at_coefficient_0_a_run_has_the_same_bits(tmp_path: Path) -> None:
    plain = train(tiny(tmp_path / "a", *CHATTER))
    for name, off in (("b", ("bonus=none",)), ("c", ("bonus=counts", "channel.coef=0"))):
        assert differences(plain, train(tiny(tmp_path / name, *CHATTER, *off))) == []


def test_groups_without_a_reward_learn_from_the_bonus_until_it_has_faded(tmp_path: Path) -> None:
    plain = train(tiny(tmp_path / "a", *MUTE))
    paid = train(tiny(tmp_path / "b", *MUTE, "bonus=babble"))
    assert column(plain, "groups/frac_zero_std") == [1.0, 1.0]
    assert column(plain, "loss/grad_norm") == [None, None]
    assert column(paid, "rollout/reward") == [0.0, 0.0]
    assert column(paid, "groups/frac_zero_std") == [1.0, 1.0]
    assert column(paid, "bonus/coef") == [1.0, 0.0]
    assert column(paid, "groups/frac_dead") == [0.0, 1.0]
    assert column(paid, "groups/dead_in_task_only") == [2.0, 0.0]
    [norm, after] = column(paid, "loss/grad_norm")
    assert norm is not None
    assert norm != 0.0
    assert after is None


def test_what_is_dead_in_both_channels_is_filtered_and_the_rest_is_not(tmp_path: Path) -> None:
    filtered = train(tiny(tmp_path, *MUTE, "bonus=babble", "filter=zero_std"))
    assert column(filtered, "groups/trained") == [2.0, 0.0]
    assert column(filtered, "groups/filtered") == [0.0, 2.0]


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    bonus = ("bonus=[{name: counts}, {name: counts, kind: global}]", "channel.anneal=none")
    straight = train(tiny(tmp_path / "a", *CHATTER, *KEPT, *bonus))
    config = tiny(tmp_path / "b", *CHATTER, *KEPT, *bonus)
    stopped(config, 2)
    assert differences(straight, train(config, "auto")) == []
    last = Checkpoints(folder=straight / "checkpoints").newest()
    assert last is not None
    assert len(str(read_progress(last).parts["bonus"])) > 100


def test_every_bonus_of_texts_pays_and_goes_on_exactly_after_a_resume(tmp_path: Path) -> None:
    (tmp_path / "goals.json").write_text('{"": ["say ant", "say bee"]}')
    (tmp_path / "worth.json").write_text('{"ant": 1, "cat": 2}')
    parts = [
        "{name: e3b, size: 32}",
        "{name: cfn, size: 32}",
        "{name: prediction, size: 32}",
        f"{{name: ellm, table: {tmp_path / 'goals.json'}}}",
        f"{{name: motif, judge: {tmp_path / 'worth.json'}, gather: 1}}",
    ]
    bonus = (f"bonus=[{', '.join(parts)}]", "channel={anneal: none, scale: 0.01}")
    straight = train(tiny(tmp_path / "a", *CHATTER, *KEPT, *bonus))
    config = tiny(tmp_path / "b", *CHATTER, *KEPT, *bonus)
    stopped(config, 2)
    assert differences(straight, train(config, "auto")) == []
    assert all(float(str(mean)) > 1 for mean in column(straight, "bonus/mean"))
    assert column(straight, "groups/frac_dead")[-1] == 0.0


def test_tokens_get_both_channels_and_failed_episodes_none(tmp_path: Path) -> None:
    """Bonuses .1 (one new state) and .2, centred and over s0: -.05 and .05, times c = 1."""
    config = tiny(tmp_path, "bonus=counts", "channel.adapt=false")
    failed = replace(walk("xyz"), stop=Stop.ERROR, score=None, success=None)
    group = walks("aa", "ab", episodes=[failed])
    [given], second = with_bonuses([group], config, done=0.0)
    assert given.bonus is not None
    assert given.bonus[0] == (0.0, 0.0, 0.0)
    assert [turn for own in given.bonus[1:] for turn in own] == pytest.approx(
        [-0.05, -0.05, 0.05, 0.05]
    )
    rows = fold(given, index=0)
    credit = [TokenAdvantages((0.25,) * len(row.ids), row.mask) for row in rows]
    for row, found in zip(rows, second.added(credit, rows, [given], "once"), strict=True):
        sign = 1 if row.trajectory == 2 else -1
        assert found.mask == row.mask
        for value, trained in zip(found.values, row.mask, strict=True):
            assert value == pytest.approx(0.25 + 0.05 * sign if trained else 0.25)


def test_a_group_is_dead_only_where_both_channels_are_silent(tmp_path: Path) -> None:
    config = tiny(tmp_path, "bonus=counts")
    groups = [walks("aa", "ab"), walks("ab", "ab"), walks("cb", "cc")]
    found, second = with_bonuses(groups, config, done=0.0)
    assert [group.is_dead for group in found] == [False, True, False]
    assert ZeroStd()(found) == [found[0], found[2]]
    assert ZeroStd()(groups) == []
    assert second.metrics["groups/frac_dead"].mean == pytest.approx(1 / 3)
    assert second.metrics["groups/dead_in_task_only"].total == 2
    assert second.metrics["bonus/mean"].mean == pytest.approx((1 + 2 + 2 + 2 + 2 + 1) / 6)


@dataclass(kw_only=True)
class Answers:
    """A bonus that says what it is told to."""

    needs: ClassVar[frozenset[str]] = frozenset()
    answer: list[list[list[float]]]

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        return self.answer

    def observe(self, groups: Sequence[Group]) -> None: ...


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[[1.0]]], "must rate every turn"),
        ([[[1.0, 1.0], [1.0, float("nan")]]], "finite numbers of at least 0.*nan"),
        ([[[1.0, 1.0], [1.0, -1.0]]], "finite numbers of at least 0.*-1.0"),
    ],
)
def test_a_bonus_that_answers_nonsense_is_refused(
    tmp_path: Path, answer: list[list[list[float]]], message: str
) -> None:
    config = replace(tiny(tmp_path), bonus=Answers(answer=answer))
    with pytest.raises(DataError, match=message):
        with_bonuses([walks("ab", "ac")], config, done=0.0)


def test_an_env_without_state_keys_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatterEnv, "state_key", None)
    with pytest.raises(ConfigError, match=r"bonus: env ChatterEnv has no state_key\(\)"):
        train(tiny(tmp_path, "bonus=counts"))


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bonus: no bonus is called 'count'; did you mean"):
        tiny(tmp_path, "bonus=count")
    with pytest.raises(ConfigError, match=r"channel.cap: coef \* cap must be below s0"):
        tiny(tmp_path, "bonus=counts", "channel.cap=1")
    assert isinstance(tiny(tmp_path, "bonus=counts").bonus, Counts)
