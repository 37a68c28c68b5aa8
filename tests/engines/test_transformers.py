"""The embedded engine samples what the plain engine samples, whatever is kept, moved or evicted.

The model is trained on two dialogues, so that its distributions are peaked and it ends its replies.
"""

import asyncio
import copy
import math
from contextlib import suppress
from random import Random

import pytest
import torch

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Engine
from agentrl.core.types import Finish
from agentrl.engines.attention import unwrapped
from agentrl.engines.generate import Generate
from agentrl.engines.transformers import Transformers
from agentrl.rollout.lockstep import Lockstep
from support.conversing import (
    PLAIN,
    POLICY,
    PROMPTS,
    SEEN,
    History,
    Rewrite,
    alike,
    appended,
    edited,
    params,
    plainly,
    play,
    seeded,
    stripped,
    windowed,
)
from support.models import logprobs, sample, tiny_policy


def test_it_is_an_engine() -> None:
    assert isinstance(Transformers(), Engine)


@pytest.mark.parametrize("changes", [{"temperature": 0.7}, {"temperature": 1.6}, {"greedy": True}])
def test_it_samples_what_the_plain_engine_samples(changes: dict[str, object]) -> None:
    ours = sample(Transformers(), POLICY, PROMPTS, seeded(**changes))
    alike(ours, sample(Generate(), POLICY, PROMPTS, seeded(**changes)))
    assert {answer.finish for answer in ours} >= {Finish.EOS}
    assert len({len(answer.ids) for answer in ours}) > 1, "some end before others"


def test_each_request_has_its_own_parameters() -> None:
    end = next(iter(PLAIN.stop_ids))
    left = PLAIN.reply("turn left")[1]
    asked = [
        params(seed=i, max_tokens=1 + i, temperature=0.5 + i / 9, greedy=i % 5 == 0, stop_ids=ends)
        for i, ends in enumerate([frozenset({end}), frozenset(), frozenset({end, left})] * 5)
    ]
    ours = sample(Transformers(), POLICY, PROMPTS, asked)
    alike(ours, [sample(Generate(), POLICY, [p], [a])[0] for p, a in zip(PROMPTS, asked)])  # noqa: B905


@pytest.mark.parametrize("rewrite", [appended, stripped, edited, windowed])
def test_turns_go_on_from_any_history(rewrite: Rewrite) -> None:
    engine = Transformers()
    ours = play(engine, [PROMPTS[n % 4] for n in range(16)], rewrite=rewrite)
    alike(ours, play(Generate(), [PROMPTS[n % 4] for n in range(16)], rewrite=rewrite))
    assert (engine.stats.reused > 0) == (rewrite is not windowed)


def test_each_distinct_token_is_computed_once() -> None:
    engine = Transformers()
    said = play(engine, [PROMPTS[3]] * 8)
    turns = [said[i : i + 3] for i in range(0, len(said), 3)]
    histories = []
    for answers in turns:
        history: History = PROMPTS[3]
        for turn, answer in enumerate(answers[:-1]):
            history = appended(history, answer, turn)
        histories.append((*history, *answers[-1].ids[:-1]))  # nothing follows the last token
    own = sum(len(history) - len(PROMPTS[3]) for history in histories)
    assert engine.stats.prefilled + engine.stats.decoded == len(PROMPTS[3]) + own
    assert engine.stats.copied == 7 * len(PROMPTS[3])
    assert engine.stats.sampled == sum(len(answer.ids) for answer in said)


def test_siblings_that_begin_alike_share_what_they_share() -> None:
    prompts = [(*PROMPTS[3], *SEEN[n % 5]) for n in range(8)]
    engine = Transformers()
    alike(play(engine, prompts, turns=1), play(Generate(), prompts, turns=1))
    assert engine.stats.copied >= 7 * len(PROMPTS[3])
    assert engine.stats.prefilled <= len(PROMPTS[3]) + sum(map(len, SEEN)) + 8


@pytest.mark.parametrize("rows", [32, 16, 8, 3])
def test_how_many_are_sampled_at_once_changes_no_token(rows: int) -> None:
    prompts = tuple(PROMPTS[n // 8] for n in range(32))
    ours = play(Transformers(max_batch=rows, step_tokens=16), prompts)
    alike(ours, plainly(prompts))


def test_evicted_episodes_are_computed_again() -> None:
    draw = Random(0)
    prompts = [tuple(draw.randrange(6, 150) for _ in range(100)) for _ in range(36)]
    engine = Transformers(kv_mib=1)
    ours = play(engine, prompts, turns=2, pause=lambda: 0.01)
    alike(ours, play(Generate(), prompts, turns=2))
    assert engine.stats.evicted > 0


def test_what_can_never_fit_is_refused_and_disturbs_nobody() -> None:
    too_long = PROMPTS[0] * 1000

    async def ask() -> list[Completion | BaseException]:
        engine = Transformers(kv_mib=1)
        await engine.start(POLICY)
        calls = [engine.generate(p, params(), episode=i, group=0) for i, p in enumerate(asked)]
        return await asyncio.gather(*calls, return_exceptions=True)

    asked = [PROMPTS[0], too_long, PROMPTS[1]]
    first, refused, last = asyncio.run(ask())
    assert isinstance(refused, EngineError)
    assert "does not fit in the 4096 tokens that engine.kv_mib=1 holds" in str(refused)
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)


def test_a_request_joins_while_others_are_sampled() -> None:
    async def ask() -> tuple[bool, Completion, Completion]:
        engine = Transformers()
        await engine.start(POLICY)
        long = asyncio.create_task(engine.generate(PROMPTS[0], params(**LONG), episode=0, group=0))
        while engine.stats.decoded < 3:
            await asyncio.sleep(0.001)
        short = await engine.generate(PROMPTS[1], params(seed=1), episode=1, group=0)
        return long.done(), short, await long

    is_first, short, long = asyncio.run(ask())
    assert not is_first
    alike([short], sample(Generate(), POLICY, [PROMPTS[1]], [params(seed=1)]))
    alike([long], sample(Generate(), POLICY, [PROMPTS[0]], [params(**LONG)]))


LONG: dict[str, object] = {"max_tokens": 64, "stop_ids": frozenset()}


def test_a_request_that_is_given_up_frees_its_row_at_once() -> None:
    async def ask() -> Completion:
        engine = Transformers(max_batch=1)
        await engine.start(POLICY)
        long = asyncio.create_task(engine.generate(PROMPTS[0], params(**LONG), episode=0, group=0))
        kept = asyncio.create_task(engine.generate(PROMPTS[1], params(), episode=1, group=1))
        while engine.stats.decoded < 3:
            await asyncio.sleep(0.001)
        long.cancel()
        answer = await kept
        await engine.end(0)
        assert engine.stats.sampled < 64
        assert unwrapped(POLICY.module).config._attn_implementation == "sdpa"
        return answer

    alike([asyncio.run(ask())], sample(Generate(), POLICY, [PROMPTS[1]], [params()]))


def test_after_the_end_of_a_given_up_request_the_module_is_free() -> None:
    async def ask() -> None:
        engine = Transformers()
        await engine.start(POLICY)
        for n in range(5):
            long = asyncio.create_task(
                engine.generate(PROMPTS[0], params(**LONG), episode=n, group=0)
            )
            before = engine.stats.steps
            while engine.stats.steps < before + 3:
                await asyncio.sleep(0.001)
            long.cancel()
            with suppress(asyncio.CancelledError):
                await long
            await engine.end(n)
            assert unwrapped(POLICY.module).config._attn_implementation == "sdpa"

    asyncio.run(ask())


def test_in_lockstep_not_a_bit_depends_on_the_timing_of_envs() -> None:
    def run(seed: int) -> list[Completion]:
        rng, lockstep = Random(seed), Lockstep()
        for n in range(12):
            lockstep.enter(n)
        prompts = [PROMPTS[n % 4] for n in range(12)]
        pause = lambda: rng.random() / 50  # noqa: E731
        return play(Transformers(), prompts, lockstep=lockstep, pause=pause)

    first = run(1)
    assert run(2) == first
    alike(first, plainly(tuple(PROMPTS[n % 4] for n in range(12))))


async def unruly(engine: Transformers, number: int, rng: Random) -> None:
    """An episode that edits, pauses and gives up at random, and checks each answer."""
    prompt: History = PROMPTS[rng.randrange(5)]
    for turn in range(3):
        if rng.random() < 0.2:
            prompt += tuple(rng.randrange(6, 150) for _ in range(rng.randrange(80)))
        asked = params(seed=rng.randrange(1000), max_tokens=rng.randint(1, 12))
        call = engine.generate(prompt, asked, episode=number, group=number // 4)
        try:
            async with asyncio.timeout(0.01 if rng.random() < 0.2 else 30):
                answer = await call
        except TimeoutError:
            continue
        with torch.no_grad():
            forced = logprobs(CALM.module, (*prompt, *answer.ids), 1.3)[len(prompt) - 1 :]
        assert answer.logprobs == pytest.approx(forced.tolist(), abs=1e-5)
        rewrite = rng.choice([appended, appended, stripped, edited, windowed])
        prompt = rewrite(prompt, answer, turn)
        await asyncio.sleep(rng.choice([0.0, 0.0, 0.01]))
    await engine.end(number)


CALM = copy.deepcopy(POLICY)
"""The same weights for checks while the other module is sampled from."""


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_episodes_do_each_token_is_the_models(seed: int) -> None:
    async def all_of_them() -> None:
        rng = Random(seed)
        engine = Transformers(max_batch=rng.choice([3, 8, 64]), step_tokens=rng.choice([7, 60]))
        await engine.start(POLICY)
        engine._sampler.batch.capacity = rng.choice([500, 2000, 10_000])  # type: ignore[union-attr]
        episodes = (unruly(engine, n, Random(100 * seed + n)) for n in range(12))
        async with asyncio.TaskGroup() as tasks:
            for one in episodes:
                tasks.create_task(one)
        assert unwrapped(POLICY.module).config._attn_implementation == "sdpa"
        await engine.close()

    asyncio.run(all_of_them())


def test_logits_that_are_not_finite_are_an_engine_error_for_every_request() -> None:
    policy = tiny_policy()
    weight = next(policy.module.parameters())
    kept = weight.detach().clone()

    async def ask() -> list[Completion | BaseException]:
        engine = Transformers()
        await engine.start(policy)
        calls = [engine.generate(p, params(), episode=0, group=0) for p in PROMPTS[:2]]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        with torch.no_grad():
            weight.copy_(kept)
        healed = await engine.generate(PROMPTS[0], params(), episode=0, group=0)
        return [*failed, healed]

    with torch.no_grad():
        weight.fill_(math.nan)
    first, second, healed = asyncio.run(ask())
    for error in (first, second):
        assert isinstance(error, EngineError)
        assert "logits that are not finite" in str(error)
    assert isinstance(healed, Completion)
    alike([healed], sample(Generate(), policy, PROMPTS[:1], [params()]))


def test_a_model_that_breaks_fails_those_who_are_sampled_and_no_later_ones() -> None:
    policy = tiny_policy()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("broken")

    async def ask() -> list[Completion | BaseException]:
        engine = Transformers()
        await engine.start(policy)
        hook = policy.module.register_forward_pre_hook(fail)
        calls = [engine.generate(p, params(), episode=0, group=0) for p in PROMPTS[:2]]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        hook.remove()
        healed = await engine.generate(PROMPTS[0], params(), episode=0, group=0)
        await engine.close()
        return [*failed, healed]

    first, second, healed = asyncio.run(ask())
    for error in (first, second):
        assert isinstance(error, EngineError)
        assert str(error) == "engine 'transformers' failed: ZeroDivisionError: broken"
    assert isinstance(healed, Completion)
    alike([healed], sample(Generate(), policy, PROMPTS[:1], [params()]))


@pytest.mark.parametrize("prompt", [(1, 10_000), (-1, 1), ()])
def test_ids_that_the_model_does_not_have_are_refused(prompt: History) -> None:
    with pytest.raises(EngineError, match=r"token 10000|token -1|empty prompt"):
        sample(Transformers(), POLICY, [prompt], [params()])


def test_closing_answers_those_who_wait() -> None:
    async def ask() -> None:
        engine = Transformers()
        await engine.start(POLICY)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for n in range(2):
                tasks.create_task(engine.generate(PROMPTS[n], params(**LONG), episode=n, group=0))
            await asyncio.sleep(0.01)
            await engine.close()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(ask())
    assert caught.group_contains(EngineError, match="closed")
