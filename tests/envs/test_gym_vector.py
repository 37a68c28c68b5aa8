"""Gymnasium's vector envs of ours, in each autoreset mode, and one game of a foreign vector env."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agentrl.core.types import Task
from agentrl.envs.babyai import BabyAI
from agentrl.envs.gym import Gymnasium
from agentrl.envs.gym.export import as_vector
from agentrl.envs.gym.one import One

LEVEL = "GoToObj"
COUNT = 3


def episode(task: Task) -> tuple[list[str], list[str], float]:
    """The expert's actions, what it is shown from the start on, and its return."""
    env = BabyAI(level=LEVEL)
    shown, actions, total = [env.reset(task).text], [], 0.0
    while True:
        actions.append(env.expert_action())
        step = env.step(actions[-1])
        text = step.observation if isinstance(step.observation, str) else step.observation.text
        shown.append(text)
        total += step.reward
        if step.terminated:
            return actions, shown, total


class Copy:
    """What one copy of the vector env should go through: its tasks in a row."""

    def __init__(self, first: int, mode: AutoresetMode) -> None:
        self.mode, self.next = mode, first
        self.ends = 0
        self.begin()

    def begin(self) -> str:
        self.actions, self.shown, self.total = episode(BabyAI(level=LEVEL).tasks("dev")[self.next])
        self.next += COUNT
        self.at = 0
        return self.shown[0]


def check(many: VectorEnv[Any, Any, Any], mode: AutoresetMode, ends: int) -> None:
    """Each copy plays its own tasks natively, whatever the others do."""
    copies = [Copy(i, mode) for i in range(COUNT)]
    shown, infos = many.reset()
    assert list(shown) == [copy.shown[0] for copy in copies]
    tasks = BabyAI(level=LEVEL).tasks("dev")
    assert list(infos["task"]) == [tasks[i].id for i in range(COUNT)]
    over = np.zeros(COUNT, dtype=bool)
    while min(copy.ends for copy in copies) < ends:
        if mode is AutoresetMode.DISABLED and over.any():
            shown, _ = many.reset(options={"reset_mask": over})
            for place in np.flatnonzero(over):
                assert shown[place] == copies[place].begin()
        said = [copy.actions[copy.at] if copy.at < len(copy.actions) else "x" for copy in copies]
        was_over = over
        shown, rewards, over, _, infos = many.step(said)
        for i, copy in enumerate(copies):
            if mode is AutoresetMode.NEXT_STEP and was_over[i]:
                assert (shown[i], rewards[i]) == (copy.begin(), 0.0)
                continue
            copy.at += 1
            assert over[i] == (copy.at == len(copy.actions))
            if not over[i]:
                assert shown[i] == copy.shown[copy.at]
                continue
            copy.ends += 1
            assert rewards[i] == copy.total
            if mode is AutoresetMode.SAME_STEP:
                assert infos["final_obs"][i] == copy.shown[-1]
                assert infos["final_info"]["success"][i]
                assert shown[i] == copy.begin()
            else:
                assert shown[i] == copy.shown[-1]
                assert infos["success"][i]
    many.close()


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=str)
def test_each_copy_plays_its_own_tasks_natively_in_every_autoreset_mode(
    mode: AutoresetMode,
) -> None:
    check(as_vector(BabyAI(level=LEVEL), COUNT, "dev", autoreset=mode), mode, ends=3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(AutoresetMode), ids=str)
def test_so_it_does_in_processes(mode: AutoresetMode) -> None:
    many = as_vector(BabyAI(level=LEVEL), COUNT, "dev", mode="async", autoreset=mode)
    check(many, mode, ends=2)


# --- a foreign vector env -------------------------------------------------------------------------


MODE = {"now": AutoresetMode.NEXT_STEP}


def lakes(**kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """FrozenLakes behind a `vector_entry_point`, as envs that compute in batches have it."""
    count = kwargs.pop("num_envs")
    makers = [partial(gymnasium.make, "FrozenLake-v1", **kwargs)] * count
    return SyncVectorEnv(makers, autoreset_mode=MODE["now"])


@pytest.fixture(params=list(AutoresetMode), ids=str)
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(MODE, "now", request.param)
    gymnasium.register(id="OnlyMany-v0", vector_entry_point=lakes, max_episode_steps=100)
    yield "OnlyMany-v0"
    gymnasium.registry.pop("OnlyMany-v0")


def test_a_game_of_a_vector_env_is_played_as_the_single_env_is(many: str) -> None:
    settings: Any = {"kwargs": {"map_name": "4x4"}, "show": "space", "split_by": "seed"}
    words: Any = {"names": ("left", "down", "right", "up"), "success": "last_reward"}
    single = Gymnasium(id="FrozenLake-v1", **settings, **words, goal="", cap=100)
    batched = Gymnasium(id=many, **settings, **words, goal="", cap=100)
    ends = set()
    for seed in range(12):
        task = Task(id="t", seed=seed)
        assert batched.reset(task) == single.reset(task)
        is_over, turn = False, 0
        while not is_over:
            action = words["names"][(seed + 5 * turn) % 4]
            one, other = batched.step(action), single.step(action)
            assert one == other
            is_over, turn = one.terminated or one.truncated, turn + 1
        ends.add(one.terminated)
    assert ends == {True}
    batched.close()


def test_infos_are_those_of_the_game() -> None:
    one = One(gymnasium.make_vec("Taxi-v4", num_envs=1, vectorization_mode="sync"))
    single = gymnasium.make("Taxi-v4")
    shown, info = one.reset(seed=3)
    expected, told = single.reset(seed=3)
    assert shown == expected
    assert info.keys() == told.keys()
    assert (info["action_mask"] == told["action_mask"]).all()
    one.close()
    single.close()
