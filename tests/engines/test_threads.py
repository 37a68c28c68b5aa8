"""How many threads compute a pass, and that nobody else's number changes."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from agentrl.core.protocols import SamplingParams
from agentrl.engines import threads
from agentrl.engines.threads import WIDE, Passes
from agentrl.engines.transformers import Transformers
from support.models import sample, shared_policy


@pytest.fixture
def sampler() -> Iterator[ThreadPoolExecutor]:
    torch.set_num_threads(2)
    with ThreadPoolExecutor(1) as made:
        yield made


def test_few_tokens_are_computed_by_one_thread_and_many_by_all(sampler: ThreadPoolExecutor) -> None:
    passes = Passes(shared_policy().module)
    passes.narrow(sampler)
    few, many = WIDE // passes.weights, WIDE // passes.weights + 1
    found = {n: sampler.submit(passes.run, n, torch.get_num_threads).result() for n in (few, many)}
    passes.close()
    assert found == {few: 1, many: 2}


def test_weights_that_are_only_looked_up_do_not_count() -> None:
    module = shared_policy().module
    passes = Passes(module)
    assert 0 < passes.weights < sum(p.numel() for p in module.parameters())


def test_who_trains_and_whoever_comes_later_keep_their_threads(sampler: ThreadPoolExecutor) -> None:
    with ThreadPoolExecutor(1) as older, ThreadPoolExecutor(1) as later:
        older.submit(torch.get_num_threads).result()
        passes = Passes(shared_policy().module)
        passes.narrow(sampler)
        for thread in (older, later):
            assert thread.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
        torch.ones(300, 300) @ torch.ones(300, 300)
        assert torch.get_num_threads() == 2
        assert sampler.submit(torch.get_num_threads).result() == 1


def test_wide_passes_keep_no_gradients_and_hand_on_what_they_raise(
    sampler: ThreadPoolExecutor,
) -> None:
    passes = Passes(shared_policy().module)
    passes.narrow(sampler)
    assert sampler.submit(passes.run, WIDE, torch.is_inference_mode_enabled).result()
    with pytest.raises(ZeroDivisionError):
        sampler.submit(passes.run, WIDE, lambda: 1 / 0).result()
    passes.close()


@pytest.mark.parametrize("wide", [0, WIDE])
def test_the_engine_samples_alike_in_either_thread(
    wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[5, 6, 7, 8], [9, 10, 11]]
    params = [SamplingParams(max_tokens=12, seed=seed) for seed in (1, 2)]
    alone = sample(Transformers(), shared_policy(), prompts, params)
    seen: set[str] = set()
    monkeypatch.setattr(threads, "WIDE", wide)
    torch.set_num_threads(2)
    hook = shared_policy().module.register_forward_hook(
        lambda *_: seen.add(threading.current_thread().name.rsplit("_")[0])
    )
    found = sample(Transformers(), shared_policy(), prompts, params)
    hook.remove()
    assert [c.ids for c in found] == [c.ids for c in alone]
    assert ("transformers-wide" in seen) == (wide == 0)
