"""Replays given tokens and logprobs: the engine of tests, exact by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Policy, SamplingParams
from agentrl.core.registry import register
from agentrl.core.types import Image

if TYPE_CHECKING:
    import torch


@register("engine", "scripted")
@dataclass(kw_only=True)
class Scripted:
    """Answers the n-th call of an episode with its n-th scripted completion."""

    shares_module: ClassVar[bool] = True

    script: Mapping[int, Sequence[Completion]] = field(default_factory=dict)
    """Completions per episode number; -1 serves every episode that has none of its own."""

    _asked: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    async def start(self, policy: Policy) -> None:
        """Needs no model."""

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        """The next scripted completion."""
        lines = self.script.get(episode, self.script.get(-1, ()))
        n = self._asked.get(episode, 0)
        if n >= len(lines):
            raise EngineError(
                f"the script of episode {episode} ends after {len(lines)} completions"
            )
        self._asked[episode] = n + 1
        return lines[n]

    async def end(self, episode: int) -> None:
        """The episode's script starts over."""
        self._asked.pop(episode, None)

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Has no weights."""

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Cannot score tokens."""
        raise EngineError("engine 'scripted' has no model to probe")

    async def close(self) -> None:
        """Holds nothing."""
