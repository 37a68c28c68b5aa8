"""What an episode is played with in tests: a real renderer, scripted replies, a worker, fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import ClassVar, Literal, cast

from agentrl.core.protocols import (
    Agent,
    Completion,
    ContextPolicy,
    Engine,
    Env,
    Play,
    Reward,
    Runner,
    Strategy,
)
from agentrl.core.types import Action, Finish, Group, Message, Start, Task, Trajectory
from agentrl.engines.scripted import Scripted
from agentrl.rewards.env import EnvReward
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.lockstep import Lockstep
from agentrl.rollout.runners import runner_for
from agentrl.rollout.strategies.flat import Flat
from agentrl.rollout.worker import Worker
from agentrl.text.actions.plain import PlainAction
from agentrl.text.context import Full
from agentrl.text.renderer import Plain
from agentrl.text.tokenizer import train_bpe
from support.envs import WORDS


@cache
def renderer() -> Plain:
    """A plain renderer that knows the words of `EchoEnv`."""
    return Plain(train_bpe([f"say {word}" for word in WORDS] * 5, 300))


def says(
    text: str, *, versions: tuple[tuple[int, int], ...] = (), is_cut: bool = False
) -> Completion:
    """A reply as an engine samples it; one that is cut lacks its end of turn."""
    ids = renderer().reply(text)
    ids = ids[:-1] if is_cut else ids
    return Completion(
        ids=ids,
        logprobs=tuple(-0.1 * (i + 1) for i in range(len(ids))),
        finish=Finish.LENGTH if is_cut else Finish.EOS,
        versions=versions,
    )


def shown(text: str) -> tuple[int, ...]:
    """An observation as the prompt holds it, up to where the reply begins."""
    return renderer().prompt([Message(role="user", text=text)])


def words_of(task: Task) -> list[str]:
    """What `EchoEnv` wants to hear."""
    return list(cast("Sequence[str]", task.data["words"]))


def right(task: Task) -> list[Completion]:
    """The replies that solve a task of `EchoEnv`."""
    return [says(word) for word in words_of(task)]


def wrong(task: Task) -> list[Completion]:
    """Replies that get every word of a task wrong."""
    return [says("bee" if word == "ant" else "ant") for word in words_of(task)]


def table(
    *,
    context: ContextPolicy | None = None,
    system: str = "",
    max_turns: int = 8,
    max_tokens: int = 32,
    max_context: int = 512,
    deadline_s: float = 20.0,
    env_timeout_s: float | None = None,
    on_invalid: Literal["tell", "pass", "end"] = "tell",
    state_keys: bool = False,
) -> Table:
    """The parts and limits of an episode."""
    return Table(
        renderer=renderer(),
        context=context or Full(),
        actions=PlainAction(system=system),
        rules=Rules(
            max_turns=max_turns,
            max_tokens=max_tokens,
            max_context=max_context,
            deadline_s=deadline_s,
            env_timeout_s=env_timeout_s,
            on_invalid=on_invalid,
            state_keys=state_keys,
        ),
    )


def worker(
    env: Env,
    *,
    at: Table | None = None,
    reward: Reward | None = None,
    strategy: Strategy | None = None,
    runner: Runner | None = None,
    in_flight: int = 0,
    reward_timeout_s: float = 5.0,
    seed: int = 0,
) -> Worker:
    """A worker for `env`, by default with the env's own runner and reward."""
    return Worker(
        env=env,
        runner=runner or runner_for(env),
        table=at or table(),
        reward=reward or EnvReward(),
        strategy=strategy or Flat(),
        seed=seed,
        in_flight=in_flight,
        reward_timeout_s=reward_timeout_s,
    )


def engine_agent(
    engine: Engine | Mapping[int, Sequence[Completion]],
    *,
    timeout_s: float = 5.0,
    lockstep: Lockstep | None = None,
) -> EngineAgent:
    """An engine's seat; a mapping is a script by episode number (-1: every other episode)."""
    return EngineAgent(
        engine=engine if isinstance(engine, Engine) else Scripted(script=engine),
        renderer=renderer(),
        temperature=1.0,
        timeout_s=timeout_s,
        lockstep=lockstep,
    )


def collect(
    by: Worker,
    agent: Agent | Mapping[int, Sequence[Completion]],
    tasks: Sequence[Task],
    *,
    group_size: int = 2,
    step: int = 0,
    greedy: bool = False,
    more: Callable[[int], Sequence[Task]] | None = None,
) -> list[Group]:
    """The groups that a worker collects; it is closed afterwards."""

    async def whole() -> list[Group]:
        try:
            return await by.collect(
                tasks,
                agent=engine_agent(agent) if isinstance(agent, Mapping) else agent,
                group_size=group_size,
                label="train",
                step=step,
                greedy=greedy,
                more=more,
            )
        finally:
            await by.close()

    return asyncio.run(whole())


def play_one(
    env: Env,
    replies: Iterable[Completion],
    task: Task,
    *,
    at: Table | None = None,
    reward: Reward | None = None,
) -> Trajectory:
    """One episode with the given replies."""
    by = worker(env, at=at, reward=reward)
    [group] = collect(by, {-1: list(replies)}, [task], group_size=1)
    return group.trajectories[0]


@dataclass(frozen=True, kw_only=True)
class KeepSolved:
    """A fake strategy: plays `extra` episodes more than it keeps, the solved ones first."""

    extra: int = 2

    by_group: ClassVar[bool] = False

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        return [await self._group(task, index, play) for index, task in enumerate(tasks)]

    async def _group(self, task: Task, index: int, play: Play) -> Group:
        start = play.start(task)
        played = await asyncio.gather(
            *(
                play(task, start, group=index, sibling=sibling)
                for sibling in range(play.group_size + self.extra)
            )
        )
        best = sorted(played, key=lambda trajectory: not trajectory.success)[: play.group_size]
        return await play.score(Group(task=task, start=start, trajectories=tuple(best)))


@dataclass(frozen=True, kw_only=True)
class InCell:
    """A fake start sampler: every episode begins in one cell."""

    actions: tuple[Action, ...]

    def sample(self, task: Task, rng: Random) -> Start:
        return Start(cell="/".join(map(str, self.actions)), actions=self.actions)
