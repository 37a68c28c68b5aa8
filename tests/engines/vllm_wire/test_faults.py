"""Servers that fail while episodes are played: noticed in time, retried or counted, gone on with.

Two servers serve the episodes of two groups, and one of them fails once. A deadline here is
`silence_s`, or `push_s` of a push: a fault has to be noticed within twice that. Whatever happens,
every token that comes back has the logprob that the weights of its version give it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import NamedTuple

import pytest
import torch

from agentrl.core.errors import EngineError
from agentrl.core.types import Group
from agentrl.engines.vllm.engine import Vllm
from support.fake_vllm import FakeVllm, Fault
from support.fault_log import FaultLog
from support.models import trained_policy
from support.wire import Weights, collected, engine_of, heard, noticed_after, play, servers

DEADLINE_S = 1.0
EPISODES = 8
DOES: dict[Fault, str] = {
    "killed": "is killed",
    "hung": "hangs",
    "stuck": "answers, but computes no token",
    "memory": "is out of memory, and dies of it",
    "500": "answers 500",
    "dropped": "drops the connection in mid-answer",
    "aborted": "aborts a request",
    "nan": "answers NaN logprobs",
    "short": "answers fewer logprobs than tokens",
    "long": "answers more tokens than asked for",
    "foreign": "answers a token that the model does not have",
    "garbage": "answers garbage",
    "strange": "says that other weights made the tokens",
    "push fails": "a push fails half way",
    "push hangs": "a push hangs",
    "push silent": "a vLLM server hangs in a push",
}
Story = Callable[[Vllm, list[FakeVllm], Weights], Coroutine[object, object, list[Group]]]


class Outcome(NamedTuple):
    groups: list[Group]
    noticed_s: float
    """How long after the first server failed anything was said of it."""
    states: list[str]
    """Of the servers, in the end."""
    versions: set[int]


def tell(story: Story, count: int = 2, **changes: object) -> Outcome:
    """What becomes of a story with so many servers."""
    policy = trained_policy(steps=4)
    weights = Weights(policy)
    with servers(policy, count) as running, heard() as lines:

        async def verb(engine: Vllm) -> Outcome:
            groups = await story(engine, running, weights)
            assert engine._pool is not None
            states = [str(replica.state) for replica in engine._pool.replicas]
            noticed_s = noticed_after(running[0], lines)
            return Outcome(groups, noticed_s, states, weights.check(groups))

        return play(engine_of(running, **{"silence_s": DEADLINE_S, **changes}), policy, verb)


def hits(fault: Fault, after: int = 2) -> Story:
    """Episodes of which one meets a fault of the first server."""

    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        running[0].hit(fault, after=after)
        return await collected(engine, weights.policy)

    return story


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("killed", "gone"),
        ("hung", "gone"),
        ("stuck", "gone"),
        ("memory", "gone"),
        ("500", "ready"),
        ("dropped", "ready"),
        ("aborted", "ready"),
        ("strange", "ready"),
    ],
)
def test_requests_of_a_server_that_fails_are_made_again_elsewhere(
    fault: Fault, state: str, fault_log: FaultLog
) -> None:
    told = tell(hits(fault))
    assert 0 < told.noticed_s < 2 * DEADLINE_S
    assert [t.failure for group in told.groups for t in group.trajectories] == [None] * EPISODES
    assert told.states == [state, "ready"]
    fault_log.groups(
        "engine",
        f"a vLLM server {DOES[fault]}",
        "one of two servers",
        deadline_s=DEADLINE_S,
        groups=told.groups,
        noticed_s=told.noticed_s,
    )


@pytest.mark.parametrize("fault", ["nan", "short", "long", "foreign", "garbage"])
def test_an_answer_that_cannot_be_true_costs_one_episode(fault: Fault, fault_log: FaultLog) -> None:
    told = tell(hits(fault))
    failures = [t.failure for group in told.groups for t in group.trajectories if t.failure]
    assert [failure.where for failure in failures] == ["engine"]
    assert told.states == ["ready", "ready"]
    fault_log.groups(
        "engine",
        f"a vLLM server {DOES[fault]}",
        "one of two servers",
        deadline_s=DEADLINE_S,
        groups=told.groups,
        failed=1,
    )


@pytest.mark.parametrize("fault", ["500", "dropped", "aborted", "strange"])
def test_the_only_server_gets_a_request_again_if_it_is_well(
    fault: Fault, fault_log: FaultLog
) -> None:
    told = tell(hits(fault), count=1)
    assert [t.failure for group in told.groups for t in group.trajectories] == [None] * EPISODES
    assert told.states == ["ready"]
    fault_log.groups(
        "engine",
        f"a vLLM server {DOES[fault]}",
        "the only server",
        deadline_s=DEADLINE_S,
        groups=told.groups,
        noticed_s=told.noticed_s,
    )


@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_when_no_server_is_left_every_episode_says_so(fault: Fault) -> None:
    told = tell(hits(fault), count=1)
    failures = [t.failure for group in told.groups for t in group.trajectories if t.failure]
    assert len(failures) >= EPISODES - 2, "two requests came before"
    assert all("no vLLM server is left: http" in failure.error for failure in failures)
    assert 0 < told.noticed_s < 2 * DEADLINE_S


@pytest.mark.parametrize(
    ("fault", "push_s"), [("push fails", 60.0), ("push hangs", DEADLINE_S), ("push silent", 60.0)]
)
def test_a_server_that_misses_a_push_is_not_sampled_from(
    fault: Fault, push_s: float, fault_log: FaultLog
) -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        before = await collected(engine, weights.policy)
        running[0].hit(fault)
        await weights.push(engine)
        asked = len(running[0].asked)
        after = await collected(engine, weights.policy, step=1)
        assert len(running[0].asked) == asked
        assert weights.check(after) == {1}
        return [*before, *after]

    told = tell(story, push_s=push_s)
    assert told.versions == {0, 1}
    assert told.states[1] == "ready"
    fault_log.groups(
        "engine",
        DOES[fault],
        "one of two servers",
        deadline_s=DEADLINE_S,
        groups=told.groups,
        noticed_s=told.noticed_s,
    )


def test_a_push_that_fails_everywhere_ends_in_a_named_error() -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        running[0].hit("push fails")
        await weights.push(engine)
        return []

    with pytest.raises(
        EngineError, match=r"no vLLM server has the weights: http.*CUDA out of.*again"
    ):
        tell(story, count=1)


def test_a_server_that_comes_back_gets_the_weights_with_the_next_push() -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        running[0].hit("killed", after=2)
        first = await collected(engine, weights.policy)
        running[0].revive()
        second = await collected(engine, weights.policy, step=1)
        asked = len(running[0].asked)
        await weights.push(engine)
        assert engine._pool is not None
        async with asyncio.timeout(5):
            while len(engine._pool.ready) < 2:
                await asyncio.sleep(0.01)
        third = await collected(engine, weights.policy, step=2)
        assert len(running[0].asked) > asked
        return [*first, *second, *third]

    told = tell(story)
    assert told.states == ["ready", "ready"]
    assert told.versions == {0, 1}


def test_weights_that_the_trainer_has_changed_are_not_pushed_again() -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        running[0].hit("strange", after=2)
        with torch.no_grad():
            for weight in weights.policy.module.parameters():
                weight.mul_(1.0 + 1e-6)
        await engine.load_weights(weights.tensors(), 0)
        with torch.no_grad():
            next(weights.policy.module.parameters()).mul_(1.1)
        pushes = running[0].pushes
        playing = asyncio.create_task(collected(engine, weights.policy))
        await asyncio.sleep(0.5)
        assert engine._pool is not None
        assert (engine._pool.ready, running[0].pushes) == ([], pushes)
        assert not playing.done(), "episodes wait for the next push"
        await weights.push(engine)
        return await playing

    told = tell(story, count=1, silence_s=10.0)
    assert [t.failure for group in told.groups for t in group.trajectories] == [None] * EPISODES
    assert told.versions >= {1}


def test_a_server_that_is_late_with_one_push_gets_the_next_before_it_is_sampled_from() -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        running[0].hit("killed")
        await collected(engine, weights.policy)
        running[0].revive()
        running[0].push_s = 1.5
        for _ in range(3):
            await weights.push(engine)
            await asyncio.sleep(0.05)
        assert engine._pool is not None
        assert [replica.is_ready for replica in engine._pool.replicas] == [False, True]
        async with asyncio.timeout(10):
            while len(engine._pool.ready) < 2:
                await asyncio.sleep(0.01)
        assert [server.weights for server in running] == ["3", "3"]
        return await collected(engine, weights.policy, step=1)

    assert tell(story, silence_s=10.0).versions == {3}


def test_tokens_in_flight_while_a_push_fails_are_not_used() -> None:
    async def story(engine: Vllm, running: list[FakeVllm], weights: Weights) -> list[Group]:
        for server in running:
            server.token_s = 0.01
        running[0].hit("push fails")
        playing = asyncio.create_task(collected(engine, weights.policy))
        await asyncio.sleep(0.05)
        await weights.push(engine)
        return await playing

    told = tell(story, silence_s=10.0)
    assert [t.failure for group in told.groups for t in group.trajectories] == [None] * EPISODES


def test_what_happened_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "agentrl"):
        tell(hits("killed"))
    lines = [record.getMessage() for record in caplog.records]
    assert sum("is not sampled from any more" in line for line in lines) == 1
    assert sum("is dropped" in line for line in lines) == 1
