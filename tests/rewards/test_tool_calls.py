"""Calls compared with a solution's: by hand, under permutation, and on the env's own experts."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from agentrl.core.errors import ConfigError, RewardError
from agentrl.core.types import Action, Json, Score, Stop, Task, Trajectory, Turn
from agentrl.envs.tools.env import Tools
from agentrl.rewards.tool_calls import ToolCalls
from agentrl.text.calls import call

LOOK: Json = {"name": "look", "arguments": {"day": "mon"}}
MOVE: Json = {"name": "move", "arguments": {"event": "e1", "hour": 9}, "after": [0]}
SEND: Json = {"name": "send", "arguments": {"to": "ann"}}
GOLD: list[Json] = [LOOK, MOVE, SEND]
LOOKED, MOVED, WROTE = (
    call("look", day="mon"),
    call("move", event="e1", hour=9),
    call("send", to="ann"),
)


def episode(actions: Sequence[Action | None], gold: Json = GOLD) -> Trajectory:
    turns = tuple(
        Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(-0.1,), action=action)
        for action in actions
    )
    return Trajectory(task=Task(id="t", seed=0, data={"gold": gold}), turns=turns, stop=Stop.DONE)


def score(actions: Sequence[Action | None], gold: Json = GOLD, **weights: float) -> Score:
    found = asyncio.run(ToolCalls(**weights)(episode(actions, gold)))
    assert found is not None
    assert found.turns is not None
    assert len(found.turns) == len(actions)
    assert sum(found.turns) == pytest.approx(found.value, abs=1e-12)
    return found


@pytest.mark.parametrize(
    "actions",
    [
        [LOOKED, MOVED, WROTE],
        [WROTE, LOOKED, MOVED],
        [[WROTE, LOOKED], MOVED],
        [LOOKED, f"{WROTE}\n{MOVED}"],
    ],
)
def test_a_solution_scores_one_in_every_order_that_its_dependences_allow(
    actions: list[Action | None],
) -> None:
    assert score(actions).value == 1.0


def test_a_call_before_the_one_that_it_depends_on_is_not_exact() -> None:
    found = score([MOVED, LOOKED, WROTE])
    assert found.parts == {"names": 1.0, "arguments": 1.0, "exact": pytest.approx(2 / 3)}
    assert found.value == pytest.approx(0.2 + 0.3 + 0.5 * 2 / 3)


def test_parts_by_hand() -> None:
    nearly = call("move", event="e1", hour=8)
    found = score([LOOKED, nearly])
    assert found.parts == pytest.approx(
        {"names": 2 * 2 / 5, "arguments": (1 + 1 / 2 + 0) / 3, "exact": 2 * 1 / 5}
    )
    assert found.turns == pytest.approx(
        (
            0.2 * 2 / 4 + 0.3 * 1 / 3 + 0.5 * 2 / 4,
            0.2 * (4 / 5 - 2 / 4) + 0.3 * (1 / 2 - 1 / 3) + 0.5 * (2 / 5 - 2 / 4),
        )
    )


def test_weights_are_relative() -> None:
    found = score([LOOKED], exact=3.0, names=1.0, arguments=0.0)
    assert found.value == pytest.approx((3 * 2 / 4 + 2 / 4) / 4)


@pytest.mark.parametrize("more", [call("look", day="tue"), LOOKED, "not a call", "", "[1]", None])
def test_whatever_else_is_said_costs(more: Action | None) -> None:
    found = score([LOOKED, MOVED, WROTE, more])
    assert found.value < 1.0
    assert found.turns is not None
    assert found.turns[-1] < 0


def test_an_argument_too_many_or_of_another_type_is_no_match() -> None:
    gold: Json = [{"name": "look", "arguments": {"day": "mon"}}]
    assert score([call("look", day="mon", hour=9)], gold).parts["arguments"] == 0.5
    assert score([call("look", day=["mon"])], gold).parts == {
        "names": 1.0,
        "arguments": 0.0,
        "exact": 0.0,
    }
    truth: Json = [{"name": "put", "arguments": {"count": 1}}]
    assert score([call("put", count=True)], truth).parts["exact"] == 0.0


def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order_of_free_calls() -> None:
    rng = Random(3)
    pool = [LOOKED, MOVED, WROTE, call("look", day="tue"), call("move", event="e2", hour=9), "?"]
    gold: Json = [LOOK, {**MOVE, "after": []}, SEND]  # type: ignore[dict-item]
    for _ in range(200):
        actions: list[Action | None] = [rng.choice(pool) for _ in range(rng.randint(0, 6))]
        found = score(actions, gold)
        assert 0.0 <= found.value <= 1.0
        shuffled = rng.sample(actions, len(actions))
        assert score(shuffled, gold).value == pytest.approx(found.value)


def test_without_a_solution_it_cannot_tell() -> None:
    assert asyncio.run(ToolCalls()(episode([LOOKED], []))) is None
    bare = Trajectory(task=Task(id="t", seed=0), turns=(), stop=Stop.DONE)
    assert asyncio.run(ToolCalls()(bare)) is None


@pytest.mark.parametrize("gold", [["look"], [{"name": "look"}], [{"name": 3, "arguments": {}}]])
def test_a_solution_that_is_no_list_of_calls_is_an_error_that_shows_it(gold: Json) -> None:
    with pytest.raises(RewardError, match=r"expected calls such as .* of task t, got"):
        asyncio.run(ToolCalls()(episode([LOOKED], gold)))


def test_weights_that_weigh_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="one must be more"):
        ToolCalls(names=0.0, arguments=0.0, exact=0.0)


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_the_experts_of_the_tools_env_score_one(together: float) -> None:
    env = Tools(together=together, steps=3, infeasible=0.2)
    for task in list(env.tasks("train")[:40]):
        env.reset(task)
        actions: list[Action | None] = []
        over = False
        while not over:
            actions.append(env.expert_action())
            step = env.step(actions[-1] or "")
            over = step.terminated or step.truncated
        assert step.info["success"]
        assert score(actions, task.data["gold"]).value == pytest.approx(1.0)
