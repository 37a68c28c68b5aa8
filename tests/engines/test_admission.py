"""Who is sampled first when there is not room for all."""

import asyncio
from collections.abc import Sequence
from random import Random

from agentrl.core.protocols import Completion, SamplingParams
from agentrl.engines.generate import Generate
from agentrl.engines.transformers import Transformers
from support.models import shared_policy

TURNS, EPISODES, LENGTH = 4, 30, 180
DRAW = Random(0)
PROMPTS = [tuple(DRAW.randrange(6, 150) for _ in range(LENGTH)) for _ in range(EPISODES)]


async def in_step(
    engine: Transformers | Generate, order: Sequence[int]
) -> dict[int, list[Completion]]:
    """Turns that all episodes ask for together, in this order."""
    await engine.start(shared_policy())
    histories = {number: PROMPTS[number] for number in order}
    said: dict[int, list[Completion]] = {number: [] for number in order}
    for turn in range(TURNS):
        params = [SamplingParams(max_tokens=6, seed=100 * n + turn) for n in order]
        answers = await asyncio.gather(
            *(
                engine.generate(histories[n], one, episode=n, group=n)
                for n, one in zip(order, params, strict=True)
            )
        )
        for number, answer in zip(order, answers, strict=True):
            said[number].append(answer)
            histories[number] += (*answer.ids, 7, 8, 9)
    await engine.close()
    return said


def test_who_finds_its_last_turn_is_sampled_before_it_is_overwritten() -> None:
    engine = Transformers(kv_mib=1)
    everybody = range(EPISODES)
    asyncio.run(in_step(engine, everybody))
    assert engine.stats.evicted, "there was room for all: nothing was tested"
    found = engine.stats.reused / (TURNS - 1) / LENGTH
    assert found >= 15, "in the order of asking it would be half of them"
    ours = asyncio.run(in_step(Transformers(kv_mib=1), everybody))
    plain = asyncio.run(in_step(Generate(), everybody))
    assert [[c.ids for c in ours[n]] for n in everybody] == [
        [c.ids for c in plain[n]] for n in everybody
    ]
