"""Episodes of a few turns with an engine, on a model that was trained on two dialogues."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from agentrl.core.protocols import Completion, Engine, SamplingParams
from agentrl.core.types import Message
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy
from agentrl.rollout.lockstep import Lockstep
from agentrl.text.renderer import Plain
from support.models import row_of, shared_policy

POLICY = shared_policy()
PLAIN = Plain(POLICY.tokenizer)
SAID = ("wall ahead", "red ball", "a", "you see a wall 3 steps to the left, and a red ball", "")
PROMPTS = [PLAIN.prompt([Message(role="user", text=text)]) for text in SAID] * 3
SEEN = [row_of(POLICY, text).ids for text in SAID]

History = tuple[int, ...]
Rewrite = Callable[[History, Completion, int], History]


def params(**changes: object) -> SamplingParams:
    known = {"temperature": 1.3, "max_tokens": 8, "stop_ids": PLAIN.stop_ids, "seed": 0}
    return SamplingParams(**{**known, **changes})  # type: ignore[arg-type]


def seeded(**changes: object) -> list[SamplingParams]:
    return [params(seed=i, **changes) for i in range(len(PROMPTS))]


def alike(ours: Sequence[Completion], theirs: Sequence[Completion]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.ids, one.finish, one.versions) == (other.ids, other.finish, other.versions)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def appended(history: History, answer: Completion, turn: int) -> History:
    return (*history, *answer.ids, *SEEN[(turn + len(answer.ids)) % len(SEEN)])


def stripped(history: History, answer: Completion, turn: int) -> History:
    """As templates do that drop the reasoning of earlier replies."""
    return (*history, *answer.ids[-2:], *SEEN[turn % len(SEEN)])


def edited(history: History, answer: Completion, turn: int) -> History:
    middle = len(history) // 2
    changed = (*history[:middle], history[middle] + 1, *history[middle + 1 :])
    return (*changed, *answer.ids, *SEEN[turn % len(SEEN)])


def windowed(history: History, answer: Completion, turn: int) -> History:
    return (*history[len(history) // 2 :], *answer.ids, *SEEN[turn % len(SEEN)])


async def episode(
    engine: Engine,
    number: int,
    prompt: History,
    *,
    turns: int = 3,
    rewrite: Rewrite = appended,
    lockstep: Lockstep | None = None,
    pause: Callable[[], float] = lambda: 0.0,
    **changes: object,
) -> list[Completion]:
    said = []
    for turn in range(turns):
        if lockstep is not None:
            await lockstep.wait(number)
        asked = params(seed=100 * number + turn, **changes)
        answer = await engine.generate(prompt, asked, episode=number, group=number // 8)
        said.append(answer)
        prompt = rewrite(prompt, answer, turn)
        await asyncio.sleep(pause())
    if lockstep is not None:
        lockstep.leave(number)
    await engine.end(number)
    return said


def play(
    engine: Engine, prompts: Sequence[History], policy: LoadedPolicy = POLICY, **changes: object
) -> list[Completion]:
    """Episodes that live at once; their completions in the order of episodes and turns."""

    async def all_of_them() -> list[Completion]:
        await engine.start(policy)
        played = await asyncio.gather(
            *(episode(engine, n, prompt, **changes) for n, prompt in enumerate(prompts))  # type: ignore[arg-type]
        )
        await engine.close()
        return [answer for answers in played for answer in answers]

    return asyncio.run(all_of_them())


@cache
def plainly(prompts: Sequence[History]) -> list[Completion]:
    return play(Generate(), prompts)
