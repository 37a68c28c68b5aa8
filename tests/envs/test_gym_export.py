"""Our environments behind Gymnasium's interface, checked by Gymnasium itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from agentrl.core.errors import DataError
from agentrl.core.registry import find
from agentrl.envs.babyai import BabyAI
from agentrl.envs.gym.export import as_gymnasium
from agentrl.envs.mixture import Mixture
from support.tools import Box


@pytest.mark.parametrize("name", ["babyai", "countdown", "game24", "sudoku", "mixture"])
def test_gymnasiums_own_checker_is_content(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(render|spec|infinity|action space).*")
        env = as_gymnasium(find("env", name)())
        check_env(env, skip_render_check=True)
        env.close()


def test_an_episode_is_the_native_one() -> None:
    native, ours = BabyAI(), as_gymnasium(BabyAI(), "dev")
    task = native.tasks("dev")[7]
    shown = native.reset(task)
    text, info = ours.reset(options={"task": 7})
    assert (text, info["task"]) == (shown.text, task.id)
    over = False
    while not over:
        action = native.expert_action()
        step = native.step(action)
        text, reward, terminated, truncated, info = ours.step(action)
        found = step.observation if isinstance(step.observation, str) else step.observation.text
        assert (text, reward, terminated) == (found, step.reward, step.terminated)
        over = terminated or truncated
    assert info["success"]


def test_seeds_choose_tasks_and_without_one_they_come_in_order() -> None:
    env = as_gymnasium(BabyAI())
    assert env.reset(seed=5)[1] == env.reset(seed=5)[1]
    first = env.reset(options={"task": 0})[1]["task"]
    assert env.reset()[1]["task"] != first
    with pytest.raises(DataError, match=r"options\['task'\]: expected 0 to"):
        env.reset(options={"task": -1})


def test_several_calls_are_a_list() -> None:
    env = as_gymnasium(Box())
    env.reset(options={"task": 2})
    text, reward, terminated, *_ = env.step(
        '["{\\"arguments\\":{},\\"name\\":\\"look\\"}", '
        '"{\\"arguments\\":{\\"number\\":3},\\"name\\":\\"open\\"}"]'
    )
    assert (text, reward, terminated) == ("It opens.", 1.0, True)


def test_an_async_environment_is_awaited() -> None:
    env = as_gymnasium(Mixture())
    text, _ = env.reset(seed=1)
    assert text
    assert len(env.step("go forward")) == 5
    env.close()


@pytest.mark.parametrize(
    "kind",
    [
        SyncVectorEnv,
        pytest.param(partial(AsyncVectorEnv, shared_memory=False), marks=pytest.mark.slow),
    ],
    ids=["sync", "async"],
)
def test_gymnasiums_vector_envs_play_many(kind: Callable[..., VectorEnv]) -> None:
    many = kind(
        [partial(as_gymnasium, BabyAI()) for _ in range(3)],
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    shown, infos = many.reset(seed=[1, 2, 3])  # type: ignore[arg-type]
    assert len(set(shown)) > 1
    assert len(infos["task"]) == 3
    for _ in range(70):
        shown, rewards, terminated, truncated, _ = many.step(["go forward"] * 3)
        assert len(shown) == len(rewards) == len(terminated) == len(truncated) == 3
    many.close()
