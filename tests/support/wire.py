"""Episodes that are sampled from fake vLLM servers, and the proof of which weights made them."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

from agentrl.core.types import Group
from agentrl.engines.policy import LoadedPolicy
from agentrl.engines.vllm.engine import Vllm
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.text.actions.plain import PlainAction
from agentrl.text.context import Full
from agentrl.text.renderer import Plain
from support.chatter import ChatterEnv
from support.fake_vllm import FakeVllm, fake
from support.models import logprobs
from support.play import worker

T = TypeVar("T")
TASKS = ChatterEnv().tasks("train")
TIMEOUT_S = 10.0


@contextmanager
def servers(policy: LoadedPolicy, count: int = 1, **changes: Any) -> Iterator[list[FakeVllm]]:
    """Some that run."""
    with ExitStack() as stack:
        yield [stack.enter_context(fake(policy, **changes)) for _ in range(count)]


def engine_of(running: Sequence[FakeVllm], **changes: Any) -> Vllm:
    """The engine that samples from them; deadlines are short."""
    settings = {"silence_s": 1.0, "push_s": 5.0, "start_s": 20.0, **changes}
    return Vllm(urls=tuple(server.url for server in running), **settings)


def play(engine: Vllm, policy: LoadedPolicy, verb: Callable[[Vllm], Awaitable[T]]) -> T:
    """What `verb` does with the started engine."""

    async def run() -> T:
        try:
            await engine.start(policy)
            return await verb(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


async def collected(
    engine: Vllm,
    policy: LoadedPolicy,
    *,
    groups: int = 2,
    group_size: int = 4,
    step: int = 0,
    timeout_s: float = TIMEOUT_S,
    deadline_s: float = 30.0,
) -> list[Group]:
    """Groups of two-turn episodes."""
    renderer = Plain(policy.tokenizer)
    rules = Rules(max_turns=4, max_tokens=4, max_context=200, deadline_s=deadline_s)
    table = Table(renderer=renderer, context=Full(), actions=PlainAction(system=""), rules=rules)
    by = worker(ChatterEnv(), at=table)
    agent = EngineAgent(engine=engine, renderer=renderer, temperature=1.0, timeout_s=timeout_s)
    try:
        return await by.collect(
            TASKS[:groups], agent=agent, group_size=group_size, label="train", step=step
        )
    finally:
        await by.close()


@contextmanager
def heard() -> Iterator[list[logging.LogRecord]]:
    """What the pool says of its servers and of requests that are made again."""
    lines: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("agentrl.engines.vllm")
    handler.emit = lines.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def noticed_after(server: FakeVllm, lines: Sequence[logging.LogRecord]) -> float:
    """How long after a server failed anything was said of it; 0 if nothing was."""
    said = [line.created - server.failed_at for line in lines]
    return min((after for after in said if after > 0), default=0.0)


class Weights:
    """What was pushed as which version; `push` changes the policy and pushes it."""

    def __init__(self, policy: LoadedPolicy) -> None:
        self.policy = policy
        self.made = {0: copy.deepcopy(policy.module)}

    async def push(self, engine: Vllm) -> None:
        """The next version, which every logprob depends on."""
        version = len(self.made)
        with torch.no_grad():
            for weight in self.policy.module.parameters():
                weight.mul_(0.95)
        self.made[version] = copy.deepcopy(self.policy.module)
        await engine.load_weights(self.tensors(), version)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The policy's own."""
        tensors: Mapping[str, torch.Tensor] = self.policy.module.state_dict()
        return tensors

    def check(self, groups: Sequence[Group]) -> set[int]:
        """Every sampled token has the logprob that the weights of its version give it, and no
        other's. The versions that were seen."""
        seen = set()
        for turn in (turn for g in groups for t in g.trajectories for turn in t.turns):
            at, ids = len(turn.prompt_ids) - 1, [*turn.prompt_ids, *turn.action_ids]
            told = dict(zip(range(at, len(ids)), turn.sampler_logprobs, strict=False))
            for version, count in turn.versions:
                exact = logprobs(self.made[version], ids)
                assert all(abs(told[t] - exact[t]) < 1e-4 for t in range(at, at + count))
                at += count
                seen.add(version)
            assert at == len(ids) - 1
        return seen
