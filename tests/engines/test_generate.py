"""The plain engine against teacher forcing: it samples from the model's own distribution, exactly.

The model is trained on two dialogues, so that its distributions are peaked and it ends its replies.
"""

import asyncio
import math
from collections.abc import Sequence

import pytest
import torch
from transformers import GenerationConfig

from agentrl.core.config import Lora
from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Engine, SamplingParams
from agentrl.core.types import Finish, Message
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy
from agentrl.engines.transformers import Transformers
from agentrl.text.renderer import Plain
from agentrl.train.lora import add_lora
from support.models import logprobs, row_of, sample, shared_policy, tiny_policy

POLICY = shared_policy()
PLAIN = Plain(POLICY.tokenizer)
END = next(iter(PLAIN.stop_ids))
SAID = ("wall ahead", "red ball", "a", "you see a wall 3 steps to the left, and a red ball", "")
PROMPTS = [PLAIN.prompt([Message(role="user", text=text)]) for text in SAID] * 3


def params(**changes: object) -> SamplingParams:
    known = {"temperature": 1.0, "max_tokens": 8, "stop_ids": PLAIN.stop_ids, "seed": 0}
    return SamplingParams(**{**known, **changes})  # type: ignore[arg-type]


def seeded(**changes: object) -> list[SamplingParams]:
    return [params(seed=i, **changes) for i in range(len(PROMPTS))]


def forced(
    policy: LoadedPolicy, prompt: Sequence[int], answer: Completion, temperature: float
) -> list[float]:
    with torch.no_grad():
        every = logprobs(policy.module, (*prompt, *answer.ids), temperature)
    return every[len(prompt) - 1 :].tolist()


def test_it_is_an_engine() -> None:
    assert isinstance(Generate(), Engine)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_logprobs_equal_a_teacher_forced_forward(temperature: float) -> None:
    answers = sample(Generate(), POLICY, PROMPTS, seeded(temperature=temperature))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.logprobs == pytest.approx(
            forced(POLICY, prompt, answer, temperature), abs=1e-5
        )
    assert {answer.finish for answer in answers} >= {Finish.EOS}
    assert len({len(answer.ids) for answer in answers}) > 1, "some end before others"


def test_a_request_samples_the_same_alone_and_in_any_batch() -> None:
    asked = seeded(temperature=1.3)
    together = sample(Generate(), POLICY, PROMPTS, asked)
    backwards = sample(Generate(), POLICY, PROMPTS[::-1], asked[::-1])[::-1]
    in_fours = sample(Generate(max_batch=4), POLICY, PROMPTS, asked)
    for i, answer in enumerate(together):
        alone = sample(Generate(), POLICY, [PROMPTS[i]], [asked[i]])[0]
        for other in (alone, backwards[i], in_fours[i]):
            assert (other.ids, other.finish) == (answer.ids, answer.finish)
            assert other.logprobs == pytest.approx(answer.logprobs, abs=1e-5)


def test_seeds_decide_what_is_sampled() -> None:
    asked = [params(seed=i, temperature=3.0) for i in (1, 1, 2, 3, 4)]
    ids = [a.ids for a in sample(Generate(), POLICY, [PROMPTS[4]] * 5, asked)]
    assert ids[0] == ids[1]
    assert len(set(ids)) > 2


def test_first_tokens_come_as_often_as_the_model_says() -> None:
    n, prompt = 600, PROMPTS[2]
    asked = [params(seed=i, temperature=2.0, max_tokens=1) for i in range(n)]
    first = torch.tensor([a.ids[0] for a in sample(Generate(), POLICY, [prompt] * n, asked)])
    with torch.no_grad():
        logits = POLICY.module(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected, order = ((logits / 2.0).softmax(-1) * n).sort(descending=True)
    counts = torch.bincount(first, minlength=len(logits))[order]
    cells = expected.cumsum(0).div(n / 6).long().clamp(max=5)
    seen, hoped = (torch.zeros(6).index_add(0, cells, x.float()) for x in (counts, expected))
    kept = hoped > 5
    assert int(kept.sum()) >= 3
    assert float(((seen - hoped) ** 2 / hoped)[kept].sum()) < 20.5  # 5 dof, p = 0.001


def test_greedy_takes_the_likeliest_token_and_tells_its_logprob_at_temperature_one() -> None:
    answers = sample(Generate(), POLICY, PROMPTS, seeded(greedy=True, temperature=1.3))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.logprobs == pytest.approx(forced(POLICY, prompt, answer, 1.0), abs=1e-5)
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *answer.ids]])
            likeliest = POLICY.module(input_ids=ids).logits[0].argmax(-1).tolist()
        assert answer.ids == tuple(likeliest[len(prompt) - 1 : -1])
    assert PLAIN.text(answers[0].ids) == "turn left"
    assert PLAIN.text(answers[1].ids) == "go forward"


def test_a_reply_ends_with_its_stop_id_or_at_its_length() -> None:
    ended, cut = sample(Generate(), POLICY, PROMPTS[:2], [params(), params(max_tokens=2)])
    assert (ended.finish, ended.ids[-1]) == (Finish.EOS, END)
    assert (cut.finish, len(cut.ids)) == (Finish.LENGTH, 2)
    for answer in (ended, cut):
        assert END not in answer.ids[:-1]
        assert answer.versions == ((0, len(answer.ids)),)


def test_any_of_several_stop_ids_stops() -> None:
    left = PLAIN.reply("turn left")[1]
    answer = sample(Generate(), POLICY, PROMPTS[:1], [params(stop_ids=frozenset({END, left}))])[0]
    assert (answer.ids[-1], answer.finish) == (left, Finish.EOS)


def test_without_stop_ids_it_samples_to_the_length_whatever_the_model_calls_its_end() -> None:
    answer = sample(Generate(), POLICY, PROMPTS[:1], [params(stop_ids=frozenset())])[0]
    assert (len(answer.ids), answer.finish) == (8, Finish.LENGTH)
    assert END in answer.ids
    assert answer.logprobs == pytest.approx(forced(POLICY, PROMPTS[0], answer, 1.0), abs=1e-5)


def test_the_checkpoints_own_sampling_settings_do_not_bend_the_distribution() -> None:
    policy = tiny_policy(seed=3)
    bent = GenerationConfig(
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        suppress_tokens=list(range(6, 150)),
        min_new_tokens=8,
    )
    vars(policy.module)["generation_config"] = bent
    prompt = PROMPTS[3]
    for answer in sample(Generate(), policy, [prompt] * 4, seeded()[:4]):
        assert answer.logprobs == pytest.approx(forced(policy, prompt, answer, 1.0), abs=1e-5)
    assert vars(policy.module)["generation_config"] is bent


def test_requests_of_different_lengths_are_served_together() -> None:
    asked = [params(seed=9, max_tokens=n, temperature=1.3) for n in (1, 3, 8)]
    one, three, eight = sample(Generate(), POLICY, [PROMPTS[4]] * 3, asked)
    assert one.ids == eight.ids[:1]
    assert three.ids == eight.ids[:3]


def test_tokens_carry_the_version_of_the_last_push() -> None:
    async def ask() -> Completion:
        engine = Generate()
        await engine.start(POLICY)
        await engine.load_weights({}, 7)
        answer = await engine.generate(PROMPTS[0], params(), episode=0, group=0)
        await engine.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.versions == ((7, len(answer.ids)),)


def test_the_probe_tells_untempered_logprobs() -> None:
    ids = row_of(POLICY, "wall ahead", "turn left", "red ball", "go forward").ids

    async def ask() -> list[float]:
        engine = Generate()
        await engine.start(POLICY)
        return await engine.probe(ids)

    with torch.no_grad():
        expected = logprobs(POLICY.module, ids).tolist()
    assert asyncio.run(ask()) == pytest.approx(expected, abs=1e-6)


def test_logits_that_are_not_finite_are_an_engine_error_for_every_request() -> None:
    policy = tiny_policy()
    weight = next(policy.module.parameters())
    kept = weight.detach().clone()

    async def ask() -> list[Completion | BaseException]:
        engine = Generate()
        await engine.start(policy)
        calls = [engine.generate(p, params(), episode=0, group=0) for p in PROMPTS[:2]]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        with torch.no_grad():
            weight.copy_(kept)
        healed = await engine.generate(PROMPTS[0], params(), episode=0, group=0)
        await engine.close()
        return [*failed, healed]

    with torch.no_grad():
        weight.fill_(math.nan)
    first, second, healed = asyncio.run(ask())
    for error in (first, second):
        assert isinstance(error, EngineError)
        assert "logits that are not finite" in str(error)
    assert isinstance(healed, Completion)


def test_a_model_that_breaks_is_an_engine_error_that_names_the_cause() -> None:
    with pytest.raises(EngineError, match=r"'generate' failed: IndexError"):
        sample(Generate(), POLICY, [(1, 10_000)], [params()])


@pytest.mark.parametrize("kind", [Generate, Transformers])
def test_it_says_that_it_was_not_started_or_is_closed(kind: type[Generate | Transformers]) -> None:
    async def ask(*, close: bool) -> None:
        engine = kind()
        if close:
            await engine.start(POLICY)
            await engine.close()
        await engine.generate(PROMPTS[0], params(), episode=0, group=0)

    for close in (False, True):
        with pytest.raises(EngineError, match="start"):
            asyncio.run(ask(close=close))


def test_closing_answers_those_who_wait() -> None:
    async def ask() -> None:
        engine = Generate()
        await engine.start(POLICY)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(engine.generate(PROMPTS[0], params(), episode=0, group=0))
            await asyncio.sleep(0)
            await engine.close()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(ask())
    assert caught.group_contains(EngineError, match="closed")


def test_a_request_that_is_given_up_does_not_disturb_its_batch() -> None:
    async def ask() -> Completion:
        engine = Generate()
        await engine.start(POLICY)
        given_up = asyncio.create_task(engine.generate(PROMPTS[0], params(), episode=0, group=0))
        kept = asyncio.create_task(engine.generate(PROMPTS[1], params(), episode=1, group=0))
        await asyncio.sleep(0)
        given_up.cancel()
        answer = await kept
        await engine.close()
        return answer

    assert asyncio.run(ask()) == sample(Generate(), POLICY, [PROMPTS[1]], [params()])[0]


def test_a_model_with_adapters_samples_with_them() -> None:
    policy = tiny_policy(seed=5)
    policy.module = add_lora(policy.module, Lora(rank=4), seed=1)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    prompts, asked = PROMPTS[:3], seeded()[:3]
    answers = sample(Generate(), policy, prompts, asked)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.logprobs == pytest.approx(forced(policy, prompt, answer, 1.0), abs=1e-5)
    with policy.module.disable_adapter():  # type: ignore[operator]
        assert sample(Generate(), policy, prompts, asked) != answers
