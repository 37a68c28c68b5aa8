"""The plain engine: one padded `model.generate` per batch, for any architecture; the parity oracle.

Requests that arrive in the same turn of the event loop form a batch. The model's own `generate`
prepares inputs and cache; only the choice of the token is ours (`draw.py`), so logprobs are exact.
The whole prompt is computed at every call; nothing is kept between turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Policy, SamplingParams
from agentrl.core.registry import register
from agentrl.core.types import Finish, Image
from agentrl.engines.draw import draw, uniforms


class _Request(NamedTuple):
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    answer: asyncio.Future[Completion]


@register("engine", "generate")
@dataclass(kw_only=True)
class Generate:
    """Batches of `model.generate`, left-padded, with the trainer's own module."""

    shares_module: ClassVar[bool] = True

    max_batch: Annotated[int, Ge(1)] = 32
    """Most requests in one batch; more are sampled in turns, shortest prompts first. Small batches
    pad little and stay in a CPU's cache; a GPU wants larger ones."""

    _policy: Policy | None = field(default=None, init=False, repr=False, compare=False)
    _version: int = field(default=0, init=False, repr=False, compare=False)
    _waiting: list[_Request] = field(default_factory=list, init=False, repr=False, compare=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False, repr=False, compare=False)

    async def start(self, policy: Policy) -> None:
        """Sample from this policy's module; training and sampling must not overlap."""
        self._policy = policy
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        """Join the batch that is sampled when every task of this turn of the loop has asked."""
        if self._policy is None:
            raise EngineError("engine 'generate' was asked before start(policy)")
        loop = asyncio.get_running_loop()
        request = _Request(tuple(prompt_ids), params, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(request)
        return await request.answer

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        alike: dict[tuple[frozenset[int], int], list[_Request]] = {}
        for request in waiting:
            key = (request.params.stop_ids, request.params.max_tokens)
            alike.setdefault(key, []).append(request)
        for requests in alike.values():
            requests.sort(key=lambda request: len(request.prompt_ids))
            for first in range(0, len(requests), self.max_batch):
                self._submit(requests[first : first + self.max_batch])

    def _submit(self, batch: list[_Request]) -> None:
        if self._thread is None:
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(EngineError("engine 'generate' was closed"))
            return
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._sample, batch)

        def deliver(done: asyncio.Future[list[Completion]]) -> None:
            error = None if done.cancelled() else done.exception()
            for i, request in enumerate(batch):
                if request.answer.done():
                    continue
                if done.cancelled():
                    request.answer.cancel()
                elif error is not None:
                    request.answer.set_exception(_engine_error(error))
                else:
                    request.answer.set_result(done.result()[i])

        future.add_done_callback(deliver)

    @torch.no_grad()
    def _sample(self, batch: list[_Request]) -> list[Completion]:
        assert self._policy is not None
        module = self._policy.module
        module.eval()
        device = next(module.parameters()).device
        params = batch[0].params
        width = max(len(request.prompt_ids) for request in batch)
        pad = min(params.stop_ids, default=0)
        ids_BT = torch.full((len(batch), width), pad, dtype=torch.long)
        seen_BT = torch.zeros_like(ids_BT)
        for i, request in enumerate(batch):
            ids_BT[i, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            seen_BT[i, width - len(request.prompt_ids) :] = 1
        chooser = _Chooser([request.params for request in batch], width, device)
        with _bare_generation(module):
            out_BT = module.generate(  # type: ignore[operator]
                input_ids=ids_BT.to(device),
                attention_mask=seen_BT.to(device),
                generation_config=GenerationConfig(
                    do_sample=False,
                    use_cache=True,
                    max_new_tokens=params.max_tokens,
                    eos_token_id=sorted(params.stop_ids) or None,
                    pad_token_id=pad,
                ),
                logits_processor=LogitsProcessorList([chooser]),
            )
        logprobs_BA = torch.stack(chooser.logprobs, dim=1).tolist()
        return [
            self._completion(ids, logprobs, params)
            for ids, logprobs in zip(out_BT[:, width:].tolist(), logprobs_BA, strict=True)
        ]

    def _completion(
        self, ids: list[int], logprobs: list[float], params: SamplingParams
    ) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in params.stop_ids), None)
        count = len(ids) if end is None else end + 1
        return Completion(
            ids=tuple(ids[:count]),
            logprobs=tuple(logprobs[:count]),
            finish=Finish.LENGTH if end is None else Finish.EOS,
            versions=((self._version, count),),
        )

    async def end(self, episode: int) -> None:
        """Nothing is kept for an episode."""

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy the weights into the module between two batches; without tensors it is the
        trainer's own.

        Raises:
            EngineError: the names or shapes are not the module's.
        """
        thread, policy = self._started("given weights")

        def load() -> None:
            if tensors:
                try:
                    policy.module.load_state_dict(tensors)
                except RuntimeError as error:
                    why = f"weights of version {version} do not fit: {error}"
                    raise EngineError(why) from error
            self._version = version

        await asyncio.get_running_loop().run_in_executor(thread, load)

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Untempered logprobs of `ids[1:]`."""
        thread, policy = self._started("probed")

        @torch.no_grad()
        def logprobs() -> list[float]:
            device = next(policy.module.parameters()).device
            ids_1T = torch.tensor([list(ids)], device=device)
            logprobs_TV = policy.module(input_ids=ids_1T).logits[0, :-1].float().log_softmax(-1)
            return [float(x) for x in logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0]]

        return await asyncio.get_running_loop().run_in_executor(thread, logprobs)

    def _started(self, what: str) -> tuple[ThreadPoolExecutor, Policy]:
        if self._policy is None or self._thread is None:
            raise EngineError(f"engine 'generate' was {what} before start(policy)")
        return self._thread, self._policy

    async def close(self) -> None:
        """Stop the sampling thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._thread = None
        self._policy = None


class _Chooser(LogitsProcessor):
    """Draws each token itself and leaves greedy search no choice but to take it."""

    def __init__(self, params: list[SamplingParams], width: int, device: torch.device) -> None:
        temperatures = [0.0 if p.greedy else p.temperature for p in params]
        self.temperature_B = torch.tensor(temperatures, device=device)
        self.seeds_B = np.array([p.seed for p in params], dtype=np.uint64)
        self.width = width
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform_B = uniforms(self.seeds_B, input_ids.shape[1] - self.width)
        ids_B, logprobs_B = draw(scores, self.temperature_B, uniform_B)
        if not torch.isfinite(logprobs_B).all():
            raise EngineError(
                "the model answered logits that are not finite; the weights have diverged (lower "
                "optim.lr) or the checkpoint is broken"
            )
        self.logprobs.append(logprobs_B)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids_B[:, None], 0.0)


@contextmanager
def _bare_generation(module: torch.nn.Module) -> Iterator[None]:
    """Hides the checkpoint's own generation settings (penalties, bans, ends), which the model would
    merge into ours: logprobs must be of the policy's distribution."""
    find_base = getattr(module, "get_base_model", None)
    owner = module if find_base is None else find_base()
    kept, owner.generation_config = owner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        owner.generation_config = kept


def _engine_error(error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    return EngineError(f"engine 'generate' failed: {type(error).__name__}: {error}")
