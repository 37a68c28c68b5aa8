"""Whatever the prompts, each sampled token is trained once, behind exactly what the model saw."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.algo.spread import spread
from agentrl.core.errors import DataError
from agentrl.core.types import (
    AdvantageOut,
    Fork,
    Group,
    Level,
    Message,
    Row,
    Score,
    Stop,
    Task,
    Trajectory,
    Turn,
)
from agentrl.rollout.fold import continues, fold
from support.envs import EchoEnv
from support.play import play_one, says, table

TASK = Task(id="fold/0", seed=0)
TOKENS = st.integers(1, 4)


@st.composite
def episodes(draw: st.DrawFn) -> Trajectory:
    """Turns whose prompts extend what came before, or replace it, in any order."""
    turns: list[Turn] = []
    for _ in range(draw(st.integers(1, 6))):
        last = turns[-1] if turns else None
        added = tuple(draw(st.lists(TOKENS, min_size=1, max_size=3)))
        extends = last is not None and draw(st.booleans())
        prompt = last.prompt_ids + last.action_ids + added if last and extends else added
        action = tuple(draw(st.lists(TOKENS, min_size=1, max_size=3)))
        row = 0 if last is None else last.row + (not continues(last, prompt))
        turns.append(
            Turn(
                prompt_ids=prompt,
                action_ids=action,
                sampler_logprobs=tuple(-0.01 * (10 * len(turns) + a) for a in range(len(action))),
                versions=((len(turns), len(action)),),
                row=row,
            )
        )
    return Trajectory(task=TASK, turns=tuple(turns), stop=Stop.DONE, score=Score(value=1.0))


def check_every_token_once(trajectory: Trajectory, rows: list[Row]) -> None:
    assert sum(sum(row.mask) for row in rows) == trajectory.n_tokens
    for k, turn in enumerate(trajectory.turns):
        found = [(row, t) for row in rows for t, of in enumerate(row.turn_of) if of == k]
        [row] = {row for row, _ in found}
        places = [t for _, t in found]
        first = len(turn.prompt_ids)
        assert places == list(range(first, first + len(turn.action_ids)))
        assert row.ids[:first] == turn.prompt_ids, "trained behind what the model saw"
        assert tuple(row.ids[t] for t in places) == turn.action_ids
        assert tuple(row.sampler_logprobs[t] for t in places) == turn.sampler_logprobs
        assert {row.versions[t] for t in places} == {version for version, _ in turn.versions}
    for row in rows:
        assert [of >= 0 for of in row.turn_of] == list(row.mask)


@given(episodes())
def test_each_sampled_token_lies_in_one_row_behind_its_own_prompt(trajectory: Trajectory) -> None:
    rows = fold(Group(task=TASK, trajectories=(trajectory,)), index=0)
    check_every_token_once(trajectory, rows)


@given(episodes(), st.data())
def test_a_branch_trains_what_it_inherited_once_in_all_rows_together(
    parent: Trajectory, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(parent.turns)))
    last = parent.turns[kept - 1] if kept else None
    prompt = (last.prompt_ids + last.action_ids if last else ()) + (4, 4)
    own = Turn(
        prompt_ids=prompt, action_ids=(2,), sampler_logprobs=(-1.0,), row=last.row if last else 0
    )
    branch = replace(parent, turns=(*parent.turns[:kept], own), parent=Fork(0, kept))
    group = Group(task=TASK, trajectories=(parent, branch))
    rows = fold(group, index=0)
    out = AdvantageOut(values=((1.0, 2.0),), level=Level.TRAJECTORY)
    trained = [token for credit in spread(rows, [group], out) for token in credit.mask if token]
    assert len(trained) == parent.n_tokens + 1
    for row in rows:
        if row.trajectory == 1:
            assert [k < kept for k in row.turn_of if k >= 0] == [
                inherited
                for inherited, sampled in zip(row.inherited, row.mask, strict=True)
                if sampled
            ]


@dataclass(frozen=True)
class Forgetful:
    """A context policy that shows the messages whose place the bits of a number name."""

    bits: int

    def __call__(self, messages: list[Message]) -> list[Message]:
        return [m for i, m in enumerate(messages) if self.bits >> (i * len(messages)) % 64 & 1]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=40)
def test_any_context_policy_yields_rows_of_what_was_seen(bits: int) -> None:
    env = EchoEnv(length=4)
    task = env.tasks("train")[5]
    trajectory = play_one(
        env,
        [says("ant")] * 4,
        task,
        at=table(context=Forgetful(bits)),  # type: ignore[arg-type]
    )
    assert len(trajectory.turns) == 4
    rows = fold(
        Group(task=task, trajectories=(replace(trajectory, score=Score(value=0.0)),)), index=0
    )
    assert len(rows) == trajectory.turns[-1].row + 1
    assert sum(sum(row.mask) for row in rows) == trajectory.n_tokens
    for k, turn in enumerate(trajectory.turns):
        row = next(row for row in rows if k in row.turn_of)
        end = len(turn.prompt_ids) + len(turn.action_ids)
        assert row.ids[:end] == turn.prompt_ids + turn.action_ids


def test_unscored_and_failed_trajectories_have_no_rows() -> None:
    turn = Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(0.0,))
    good = Trajectory(task=TASK, turns=(turn,), stop=Stop.DONE, score=Score(value=1.0))
    siblings = (replace(good, score=None), replace(good, stop=Stop.ERROR), good)
    rows = fold(Group(task=TASK, trajectories=siblings), index=3, temperature=0.7)
    assert [(row.group, row.trajectory, row.temperature) for row in rows] == [(3, 2, 0.7)]


def test_a_prompt_that_is_shorter_than_the_row_so_far_opens_a_new_row() -> None:
    last = Turn(prompt_ids=(1, 2), action_ids=(3, 4), sampler_logprobs=(0.0, 0.0))
    assert continues(last, (1, 2, 3, 4))
    assert not continues(last, (1, 2, 3))
    assert not continues(last, (1, 2, 3, 5, 6))
    assert not continues(None, (1, 2))


def test_a_row_number_that_the_prompts_contradict_is_an_error() -> None:
    first = Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(0.0,))
    second = replace(first, prompt_ids=(1, 9))
    liar = Trajectory(task=TASK, turns=(first, second), stop=Stop.DONE, score=Score(value=0.0))
    with pytest.raises(DataError, match="turn 1 says that it lies in row 0"):
        fold(Group(task=TASK, trajectories=(liar,)), index=0)
