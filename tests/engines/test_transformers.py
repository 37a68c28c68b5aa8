"""The embedded engine samples what the plain engine samples, whatever is kept, moved or evicted.

The model is trained on two dialogues, so that its distributions are peaked and it ends its replies.
"""

import asyncio
import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from random import Random

import pytest
import torch

from agentrl.core.config import Lora
from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Engine, SamplingParams
from agentrl.core.types import Finish, Json, Message
from agentrl.engines.attention import unwrapped
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.engines.transformers import Transformers
from agentrl.rollout.lockstep import Lockstep
from agentrl.text.renderer import Plain
from agentrl.train.lora import add_lora
from support.models import bpe, logprobs, row_of, sample, settings, shared_policy, tiny_policy

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


def test_a_push_drops_what_was_computed_and_tokens_tell_their_version() -> None:
    policy = tiny_policy(seed=4)
    other = {name: tensor + 0.05 for name, tensor in policy.module.state_dict().items()}
    prompt = PROMPTS[3]
    calm: dict[str, object] = {"temperature": 1.0, "max_tokens": 100, "stop_ids": frozenset()}

    async def ask() -> tuple[Completion, Completion]:
        engine = Transformers()
        await engine.start(policy)
        await engine.load_weights({}, 6)
        going = asyncio.create_task(engine.generate(prompt, params(**calm), episode=0, group=0))
        before = engine.stats.sampled
        while engine.stats.sampled < before + 5:
            await asyncio.sleep(0.001)
        await engine.load_weights(other, 7)
        first = await going
        return first, await engine.generate((*prompt, *first.ids), params(), episode=0, group=0)

    first, second = asyncio.run(ask())
    (old, n), (new, m) = first.versions
    assert (old, new, n + m) == (6, 7, 100)
    with torch.no_grad():  # the later tokens are the new weights', over the whole history
        every = logprobs(policy.module, (*prompt, *first.ids)).tolist()[len(prompt) - 1 :]
    assert first.logprobs[n:] == pytest.approx(every[n:], abs=1e-5)
    assert first.logprobs[:n] != pytest.approx(every[:n], abs=1e-3)
    alike([second], pushed(policy, (*prompt, *first.ids)))


@pytest.mark.parametrize("keep_kv", [False, True])
def test_what_was_computed_is_computed_anew_after_a_push_unless_it_is_kept(keep_kv: bool) -> None:
    policy = tiny_policy(seed=4)
    other = {name: tensor + 0.05 for name, tensor in policy.module.state_dict().items()}
    prompt = PROMPTS[3]

    async def ask() -> tuple[int, Completion]:
        engine = Transformers(keep_kv=keep_kv)
        await engine.start(policy)
        first = await engine.generate(prompt, params(), episode=0, group=0)
        before = engine.stats.prefilled
        await engine.load_weights(other, 1)
        longer = (*prompt, *first.ids)
        second = await engine.generate(longer, params(), episode=0, group=0)
        return engine.stats.prefilled - before, second

    computed, second = asyncio.run(ask())
    assert (computed > len(prompt)) is not keep_kv
    assert [version for version, _ in second.versions] == [1]


def pushed(policy: LoadedPolicy, prompt: History) -> list[Completion]:
    async def ask() -> list[Completion]:
        engine = Generate()
        await engine.start(policy)
        await engine.load_weights({}, 7)
        return [await engine.generate(prompt, params(), episode=0, group=0)]

    return asyncio.run(ask())


def test_the_probe_goes_through_slots() -> None:
    ids = row_of(POLICY, "wall ahead", "turn left", "red ball", "go forward").ids

    async def ask(length: int) -> list[float]:
        engine = Transformers()
        await engine.start(POLICY)
        return await engine.probe(ids[:length])

    with torch.no_grad():
        expected = logprobs(POLICY.module, ids).tolist()
    for length in (2, 3, len(ids)):
        assert asyncio.run(ask(length)) == pytest.approx(expected[: length - 1], abs=1e-5)


def test_memory_goes_back_with_the_last_episode() -> None:
    async def ask() -> list[bool]:
        engine = Transformers()
        await engine.start(POLICY)
        held = []
        for n in range(2):
            await engine.generate(PROMPTS[n], params(), episode=n, group=0)
        for n in range(2):
            held.append(engine._sampler.batch.pool is not None)  # type: ignore[union-attr]
            await engine.end(n)
        await engine.load_weights({}, 1)  # the thread has done what came before
        held.append(engine._sampler.batch.pool is not None)  # type: ignore[union-attr]
        return held

    assert asyncio.run(ask()) == [True, True, False]


def test_a_model_with_adapters_samples_with_them() -> None:
    policy = tiny_policy(seed=5)
    policy.module = add_lora(policy.module, Lora(rank=4), seed=1)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    engine = Transformers()
    answers = play(engine, PROMPTS[:4], policy)
    assert engine.stats.reused
    alike(answers, play(Generate(), PROMPTS[:4], policy))
    with policy.module.disable_adapter():  # type: ignore[operator]
        assert play(Transformers(), PROMPTS[:4], policy) != answers


QWEN3 = settings()
QWEN2 = {key: value for key, value in QWEN3.items() if key != "head_dim"}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", **settings(tied=False)},
        {"model_type": "qwen2", **QWEN2},
        {"model_type": "qwen3", **QWEN3, "head_dim": 24, "num_key_value_heads": 1},
        {"model_type": "llama", **QWEN3, "num_key_value_heads": 4},
        {"model_type": "mistral", **QWEN3, "sliding_window": None},
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2},
    ],
    ids=["llama-untied", "qwen2", "qwen3-one-key-head", "llama-mha", "mistral", "gpt2"],
)
def test_many_architectures_are_sampled_through_slots(config: dict[str, Json]) -> None:
    policy = load_policy(config, seed=2, device="cpu", tokenizer=bpe())
    prompts = [PROMPTS[n // 4] for n in range(8)]
    engine = Transformers()
    ours = play(engine, prompts, policy, turns=2, temperature=0.3)
    assert engine.stats.reused
    alike(ours, play(Generate(), prompts, policy, turns=2, temperature=0.3))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "mistral", **QWEN3, "sliding_window": 32}, "it sees a window of 32 tokens"),
        (
            {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2},
            "AttentionInterface",
        ),
    ],
    ids=["mistral", "bloom"],
)
def test_the_plain_engine_stands_in_and_that_is_said_once(
    config: dict[str, Json], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = load_policy(config, seed=2, device="cpu", tokenizer=bpe())
    engine = Transformers()
    for _ in range(2):
        ours = play(engine, PROMPTS[:4], policy, turns=2)
    alike(ours, play(Generate(), PROMPTS[:4], policy, turns=2))
    assert [why in record.message for record in caplog.records] == [True]
    assert "sampling with engine 'generate' instead" in caplog.text
