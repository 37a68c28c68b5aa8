"""The step-wise reward: worked numbers, and Sudoku's own steps."""

import asyncio
from collections.abc import Sequence

import pytest

from agentrl.core.errors import RewardError
from agentrl.core.types import Json, Score, Stop, Task, Trajectory, Turn
from agentrl.envs.sudoku.env import Sudoku
from agentrl.rewards.step_wise import StepWise

KEYS: Json = ["place 1 2 3", ["open the door", "unlock the door"], "undo"]


def episode(
    actions: Sequence[str], *, success: bool, steps: Json = KEYS, invalid: bool = False
) -> Trajectory:
    turns = tuple(
        Turn(
            prompt_ids=(1,),
            action_ids=(2,),
            sampler_logprobs=(-0.1,),
            action=action,
            invalid=invalid and k == 0,
        )
        for k, action in enumerate(actions)
    )
    task = Task(id="t", seed=0, data={"steps": steps})
    return Trajectory(task=task, turns=turns, stop=Stop.DONE, success=success)


def score(trajectory: Trajectory) -> Score:
    found = asyncio.run(StepWise()(trajectory))
    assert found is not None
    assert found.turns is not None
    assert sum(found.turns) == pytest.approx(found.value, abs=1e-12)
    return found


TWO_OF_THREE = ["Place 1 2 3", "place 1 2 3", "unlock the door"]


@pytest.mark.parametrize(
    ("success", "invalid", "value"),
    [(True, False, 2.0667), (False, False, 1.0667), (False, True, 0.0667)],
)
def test_two_steps_of_three(success: bool, invalid: bool, value: float) -> None:
    found = score(episode(TWO_OF_THREE, success=success, invalid=invalid))
    assert found.value == pytest.approx(value, abs=1e-4)
    assert found.parts["steps"] == pytest.approx(2 / 3)


def test_a_step_is_paid_once_and_in_its_turn() -> None:
    found = score(episode(TWO_OF_THREE, success=True))
    assert found.turns == pytest.approx((0.1 / 3, 0.0, 0.1 / 3 + 2.0))


def test_an_episode_without_turns_is_worth_nothing() -> None:
    assert score(episode([], success=False)).value == 0.0


def test_a_task_without_steps_cannot_be_told() -> None:
    assert asyncio.run(StepWise()(episode(["a"], success=True, steps=None))) is None


@pytest.mark.parametrize("steps", ["place", [1], [["a", 2]], {"a": "b"}, [""]])
def test_steps_that_are_no_texts_are_refused(steps: Json) -> None:
    with pytest.raises(RewardError, match=r"expected task\.data\['steps'\]"):
        asyncio.run(StepWise()(episode(["a"], success=True, steps=steps)))


def test_the_expert_of_sudoku_takes_every_step() -> None:
    env = Sudoku()
    for task in list(env.tasks("train"))[:5]:
        env.reset(task)
        actions, success = [], False
        while not success:
            actions.append(env.expert_action())
            success = bool(env.step(actions[-1]).info.get("success"))
        whole = score(episode(actions, success=True, steps=task.data["steps"]))
        assert whole.value == pytest.approx(2.1)
        half = score(episode(actions[:5], success=False, steps=task.data["steps"]))
        assert half.parts["steps"] == pytest.approx(5 / len(actions))
