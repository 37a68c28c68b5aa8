"""The embedded engine: continuous batching over the trainer's own Hugging Face model.

Nothing of the model is replaced but its attention function, which reads and writes slots of keys
and values (`slots.py`, `packed.py`). `continuous.py` decides what a forward pass computes,
`sampler.py` is the thread that makes them, `support.py` tells which models can be sampled so; for
others the plain engine stands in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeVar

import torch
from annotated_types import Ge

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.protocols import Completion, Policy, SamplingParams
from agentrl.core.registry import register
from agentrl.core.types import Image
from agentrl.engines.attention import unwrapped
from agentrl.engines.continuous import Batch
from agentrl.engines.generate import Generate
from agentrl.engines.rows import Request, Stats
from agentrl.engines.sampler import Sampler
from agentrl.engines.support import logits_by_pieces, measure

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""How long a push or a probe waits for the step that is going on."""
CLOSING_S = 10.0
"""How long closing does."""


@register("engine", "transformers")
@dataclass(kw_only=True)
class Transformers:
    """Continuous batching with the trainer's own module; keys and values are kept over turns.

    An episode's next turn computes only what is new in its prompt; the prompt of a group is
    computed once. A model that this cannot serve is sampled by `generate`, which is said once.
    """

    shares_module: ClassVar[bool] = True

    kv_mib: Annotated[int, Ge(1)] = 1024
    """Most memory for keys and values (MiB, 1 or more); they grow as needed. Episodes that wait for
    their env give their place to those that sample, the longest unused first, and are computed
    again when they come back."""
    max_batch: Annotated[int, Ge(1)] = 256
    """Most requests that are sampled at once (1 or more); more wait in order."""
    keep_kv: bool = False
    """Go on with keys and values that older weights made when new ones come, which costs nothing;
    else they are dropped, so that every token is computed by weights of one version. Rows that
    are on their way are then of several, and a mismatch correction has to bear it."""
    step_tokens: Annotated[int, Ge(1)] = 4096
    """Most prompt tokens in one forward pass (1 or more); longer prompts are computed in parts."""

    stats: Stats = field(default_factory=Stats, init=False, repr=False, compare=False)
    """What was computed and what was not, since the start."""
    _sampler: Sampler | None = field(default=None, init=False, repr=False, compare=False)
    _plain: Generate | None = field(default=None, init=False, repr=False, compare=False)
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _live: set[int] = field(default_factory=set, init=False, repr=False, compare=False)
    _left: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    async def start(self, policy: Policy) -> None:
        """Sample from this policy's module; training and sampling must not overlap."""
        await self.close()
        self.stats = Stats()
        try:
            shape = measure(policy.module)
        except (
            EngineError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            self._plain = Generate()
            self._tell(policy, error)
            await self._plain.start(policy)
            return
        self._sampler = Sampler(
            Batch(
                policy,
                shape,
                self.stats,
                kv_mib=self.kv_mib,
                max_rows=self.max_batch,
                step_tokens=self.step_tokens,
            )
        )

    def _tell(self, policy: Policy, error: Exception) -> None:
        why = f"{type(unwrapped(policy.module)).__name__}: {error}"
        if why not in self._told:
            self._told.add(why)
            logger.warning(
                "engine 'transformers' cannot keep the keys and values of %s; sampling with engine "
                "'generate' instead, which computes every prompt anew",
                why,
            )

    def _started(self, what: str) -> Sampler:
        if self._sampler is None:
            raise EngineError(f"engine 'transformers' was {what} before start(policy)")
        return self._sampler

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        """Join the batch at its next step."""
        if self._plain is not None:
            return await self._plain.generate(
                prompt_ids, params, episode=episode, group=group, images=images
            )
        sampler = self._started("asked")
        request = Request(prompt=list(prompt_ids), params=params, episode=episode, group=group)
        _check(request, sampler.batch)
        self._live.add(episode)
        try:
            return await sampler.ask(request)
        except asyncio.CancelledError:
            self._left.add(episode)
            raise

    async def end(self, episode: int) -> None:
        """Free the episode's slot, and all memory with the last one."""
        if self._sampler is None or episode not in self._live:
            return
        self._live.discard(episode)
        self._sampler.end(episode)
        if episode in self._left:  # its last request was given up: let the step that has it pass
            self._left.discard(episode)
            await self._call(lambda: None)
        if not self._live:
            self._sampler.post(self._sampler.batch.release)

    async def _call(self, verb: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._started("called").call(verb)
        except TimeoutError as error:
            raise DeadlineError(
                f"engine 'transformers' did not end its step within {timeout_s:g} s"
            ) from error

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy the weights into the module; without tensors it is the trainer's own.

        Raises:
            EngineError: the names or shapes are not the module's.
        """
        if self._plain is not None:
            await self._plain.load_weights(tensors, version)
            return
        batch = self._started("given weights").batch

        def load() -> None:
            if tensors:
                try:
                    batch.policy.module.load_state_dict(tensors)
                except RuntimeError as error:
                    why = f"weights of version {version} do not fit: {error}"
                    raise EngineError(why) from error
            if not self.keep_kv:
                batch.forget()
            batch.version = version

        await self._call(load)

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Untempered logprobs of `ids[1:]`, in three passes through a slot, as turns are."""
        if self._plain is not None:
            return await self._plain.probe(ids)
        batch = self._started("probed").batch
        half = len(ids) // 2
        passes = [[count] for count in (half, min(1, len(ids) - half), len(ids) - half - 1)]

        def logprobs() -> list[float]:
            module = batch.policy.module
            logits_TV = logits_by_pieces(module, batch.shape, [ids], passes)[0][:-1]
            targets_T = torch.tensor(ids[1:], device=logits_TV.device)
            logp_TV = logits_TV.float().log_softmax(-1)
            return [float(x) for x in logp_TV.gather(1, targets_T[:, None])[:, 0]]

        return await self._call(lambda: batch.passes.run(len(ids), logprobs))

    async def close(self) -> None:
        """Fail whoever waits and stop the sampling thread, which may end its step."""
        if self._sampler is not None:
            self._sampler.give_up()
            try:
                await self._call(lambda: None, CLOSING_S)
            except DeadlineError as error:
                logger.warning("%s; it is left alone", error)
            self._sampler.close()
        if self._plain is not None:
            await self._plain.close()
        self._sampler = self._plain = None
        self._live.clear()
        self._left.clear()


def _check(request: Request, batch: Batch) -> None:
    """Refuse ids that the model does not have: in a step they would fail everybody's request."""
    size = int(unwrapped(batch.policy.module).get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    if not request.prompt:
        raise EngineError("engine 'transformers' was given an empty prompt")
    least, most = min(request.prompt), max(request.prompt)
    if least < 0 or most >= size:
        raise EngineError(
            f"engine 'transformers' was given token {least if least < 0 else most}, and the model "
            f"has ids from 0 to {size - 1}"
        )
