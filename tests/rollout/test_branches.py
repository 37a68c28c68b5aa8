"""Branches and archived starts: an env is led there by replay, or found not deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest

from agentrl.algo.spread import spread
from agentrl.core.protocols import Play
from agentrl.core.types import Action, AdvantageOut, Fork, Group, Level, Step, Stop, Task
from agentrl.rollout.fold import fold
from support import EchoEnv
from support.play import InCell, collect, right, says, table, words_of, worker, wrong

TASK = EchoEnv().tasks("train")[10]
FOUR = EchoEnv(length=4).tasks("train")[200]
EMPTY = says("")


@dataclass(frozen=True, kw_only=True)
class Branching:
    """A fake strategy: one episode, and a branch off it after `turn` turns."""

    turn: int

    by_group: ClassVar[bool] = False

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        [task] = tasks
        start = play.start(task)
        parent = await play(task, start, group=0, sibling=0)
        fork = (parent, Fork(trajectory=0, turn=self.turn))
        branch = await play(task, start, group=0, sibling=1, fork=fork)
        return [await play.score(Group(task=task, start=start, trajectories=(parent, branch)))]


def branched(env: EchoEnv, *, turn: int, system: str = "") -> Group:
    script = {0: right(FOUR), 1: wrong(FOUR)[turn:]}
    by = worker(env, at=table(system=system), strategy=Branching(turn=turn))
    [group] = collect(by, script, [FOUR])
    return group


@pytest.mark.parametrize("turn", [0, 1, 3])
def test_a_branch_inherits_its_parent_s_turns_by_replay_and_goes_its_own_way(turn: int) -> None:
    parent, branch = branched(EchoEnv(length=4), turn=turn, system="hello").trajectories
    assert branch.failure is None
    assert branch.parent == Fork(trajectory=0, turn=turn)
    assert branch.turns[:turn] == parent.turns[:turn]
    assert [t.action for t in branch.turns[turn:]] == [
        "bee" if word == "ant" else "ant" for word in words_of(FOUR)[turn:]
    ]
    assert branch.turns[turn].prompt_ids == parent.turns[turn].prompt_ids
    assert branch.env_return == pytest.approx(turn / 4)
    assert (parent.success, branch.success) == (True, False)


def test_tokens_that_a_branch_shares_are_trained_once() -> None:
    group = branched(EchoEnv(length=4), turn=2)
    parent, branch = group.trajectories
    rows = fold(group, index=0)
    credit = spread(rows, [group], AdvantageOut(values=((1.0, -1.0),), level=Level.TRAJECTORY))
    own = sum(len(turn.action_ids) for turn in branch.turns[2:])
    assert sum(sum(item.mask) for item in credit) == parent.n_tokens + own


def test_a_replayed_turn_that_did_not_parse_is_not_given_to_the_env() -> None:
    script = {0: [EMPTY, *right(FOUR)], 1: right(FOUR)[1:]}
    by = worker(EchoEnv(length=4), strategy=Branching(turn=2))
    [group] = collect(by, script, [FOUR])
    assert [t.success for t in group.trajectories] == [True, True]
    assert group.trajectories[1].turns[0].invalid


@dataclass(kw_only=True)
class Fickle(EchoEnv):
    """Pays, or says, something else the second time that it is played."""

    what: Literal["reward", "start", "later"]
    times: ClassVar[int] = 0

    def reset(self, task: Task) -> str:
        type(self).times += 1
        return f"{super().reset(task)}{self._twist('start')}"

    def step(self, action: Action) -> Step:
        answer = super().step(action)
        if self._twist("later"):
            return replace(answer, observation="something else")
        return replace(answer, reward=9.0) if self._twist("reward") else answer

    def _twist(self, what: str) -> str:
        return "!" if self.what == what and type(self).times > 1 else ""


@pytest.mark.parametrize("what", ["reward", "start", "later"])
@pytest.mark.parametrize("turn", [1, 2])
def test_an_env_that_answers_a_replay_differently_is_not_branched(
    what: Literal["reward", "start", "later"], turn: int
) -> None:
    Fickle.times = 0
    parent, branch = branched(Fickle(length=4, what=what), turn=turn).trajectories
    assert parent.success is True
    assert branch.stop is Stop.ERROR
    assert branch.failure is not None
    assert branch.failure.where == "env"
    assert (
        "the env is not deterministic, so it cannot be branched by replay" in branch.failure.error
    )


def test_an_archived_start_is_led_to_and_recorded() -> None:
    [whole] = collect(worker(EchoEnv(length=4)), {-1: right(FOUR)}, [FOUR], group_size=1)
    by = worker(EchoEnv(length=4))
    by.starts = InCell(actions=tuple(words_of(FOUR)[:2]))
    [group] = collect(by, {-1: right(FOUR)[2:]}, [FOUR], group_size=2)
    assert group.start.actions == tuple(words_of(FOUR)[:2])
    for trajectory in group.trajectories:
        assert trajectory.start == group.start
        assert trajectory.turns[0].prompt_ids == whole.trajectories[0].turns[2].prompt_ids
        assert (trajectory.success, len(trajectory.turns)) == (True, 2)
        assert trajectory.env_return == 0.5, "what was earned on the way there is not the policy's"


def test_an_archived_start_that_ends_the_episode_is_the_env_s_failure() -> None:
    by = worker(EchoEnv())
    by.starts = InCell(actions=tuple(words_of(TASK)))
    [group] = collect(by, {-1: right(TASK)}, [TASK], group_size=1)
    failure = group.trajectories[0].failure
    assert failure is not None
    assert failure.where == "env"
    assert "its actions no longer lead to the cell that was archived" in failure.error
