"""Who sits in the model's seat: engines, experts and random players under one set of limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Agent, RunsIn
from agentrl.core.types import Action, Finish, Split, Stop, Task, Trajectory
from agentrl.rollout.agents import ExpertAgent, RandomAgent
from agentrl.text.actions.plain import PlainAction
from agentrl.text.actions.tagged import TaggedAction
from support import WAKE, WORDS, EchoEnv, PlainEnv
from support.play import collect, renderer, says, table, words_of, worker

TASKS = EchoEnv(length=3).tasks("train")[:4]
EXPERT = ExpertAgent(renderer=renderer(), actions=PlainAction())
RANDOM = RandomAgent(renderer=renderer(), actions=PlainAction())


def one(env: EchoEnv, agent: Agent) -> Trajectory:
    [group] = collect(worker(env), agent, TASKS[:1], group_size=1)
    return group.trajectories[0]


def test_the_expert_solves_every_task_in_the_action_format() -> None:
    groups = collect(worker(EchoEnv(length=3)), EXPERT, TASKS, group_size=1)
    for task, group in zip(TASKS, groups, strict=True):
        [trajectory] = group.trajectories
        assert trajectory.success is True
        assert [turn.action for turn in trajectory.turns] == words_of(task)
        assert [turn.action_ids for turn in trajectory.turns] == [
            says(word).ids for word in words_of(task)
        ]
        assert set(trajectory.turns[0].sampler_logprobs) == {0.0}


def test_a_random_player_takes_legal_actions_that_the_seed_decides() -> None:
    def actions(seed: int) -> list[Action | None]:
        by = worker(EchoEnv(length=3), seed=seed)
        groups = collect(by, RANDOM, TASKS, group_size=4)
        return [turn.action for g in groups for t in g.trajectories for turn in t.turns]

    assert set(actions(1)) == set(WORDS)
    assert actions(1) == actions(1)
    assert actions(1) != actions(2)


def test_a_written_action_is_cut_where_a_sampled_one_would_be() -> None:
    tagged = ExpertAgent(renderer=renderer(), actions=TaggedAction())
    [group] = collect(worker(EchoEnv(), at=table(max_tokens=3)), tagged, TASKS[:1], group_size=1)
    turn = group.trajectories[0].turns[0]
    assert len(turn.action_ids) == 3
    assert turn.finish is Finish.LENGTH


class Mute(EchoEnv):
    """Has neither an expert nor a list of actions."""

    expert_action = None  # type: ignore[assignment]
    legal_actions = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("agent", "complaint"),
    [
        (EXPERT, r"env Mute has no expert_action\(\).*use sft=none eval.baselines=false"),
        (RANDOM, r"env Mute has no legal_actions\(\).*use eval.baselines=false"),
    ],
)
def test_an_env_without_the_ability_is_a_config_error_that_says_what_to_do(
    agent: Agent, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        collect(worker(Mute()), agent, TASKS, group_size=2)


@dataclass(kw_only=True)
class Odd(EchoEnv):
    """Answers anything as its expert's action and as its legal actions; WAKE means: hang."""

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 0.2

    answer: object = None

    def expert_action(self) -> str:
        if self.answer is WAKE:
            WAKE.wait(60)
        return self.answer  # type: ignore[return-value]

    legal_actions = expert_action  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("agent", "answer", "complaint"),
    [
        (EXPERT, 7, "expected an action (a string or a list of strings), got 7"),
        (EXPERT, ["ant", 7], "got ['ant', 7]"),
        (RANDOM, ("ant",), "expected a list of actions from legal_actions(), got ('ant',)"),
        (RANDOM, [], "got []"),
        (RANDOM, [7], "expected an action (a string or a list of strings), got 7"),
    ],
)
def test_an_answer_that_is_no_action_is_the_env_s_failure(
    agent: Agent, answer: object, complaint: str
) -> None:
    trajectory = one(Odd(answer=answer), agent)
    assert trajectory.stop is Stop.ERROR
    assert trajectory.failure is not None
    assert trajectory.failure.where == "env"
    assert complaint in trajectory.failure.error


@pytest.mark.parametrize("agent", [EXPERT, RANDOM])
def test_an_expert_that_hangs_is_the_env_s_failure(agent: Agent) -> None:
    try:
        trajectory = one(Odd(answer=WAKE), agent)
    finally:
        WAKE.set()
    WAKE.clear()
    assert trajectory.failure is not None
    assert trajectory.failure.where == "env"
    assert "did not answer within 0.2 s" in trajectory.failure.error


def test_a_list_of_calls_is_written_as_the_format_writes_it() -> None:
    trajectory = one(Odd(answer=["ant", "bee"]), EXPERT)
    assert renderer().text(trajectory.turns[0].action_ids) == "ant\nbee"


def test_an_env_that_is_no_dataclass_is_played_too() -> None:
    splits: list[Split] = ["train", "dev"]
    tasks: list[Task] = [task for split in splits for task in PlainEnv("ant").tasks(split)]
    groups = collect(worker(PlainEnv("ant")), {-1: [says("ant")]}, tasks)
    assert [t.success for g in groups for t in g.trajectories] == [True] * 4
