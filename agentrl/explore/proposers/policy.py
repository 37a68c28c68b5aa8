"""The policy itself, as it is when it explores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Question, Voice
from agentrl.core.registry import register
from agentrl.explore.speaking import Style, said_by


@register("proposer", "policy")
@dataclass(kw_only=True)
class OwnPolicy:
    """The run's own policy, at its training temperature. A model that is built from a config knows
    nothing before its warm start, and its answers are those of chance."""

    style: Style = "chat"
    """`chat` asks the question; `act` shows what the env shows, and takes its action for a choice
    among actions."""
    actions: str = "plain"
    """The action format by which `act` reads a reply."""
    max_tokens: Annotated[int, Ge(1)] = 64
    """Tokens of an answer at most."""
    _voice: Voice | None = field(default=None, init=False, repr=False, compare=False)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Raises `ConfigError` where no policy is at hand."""
        if voice is None:
            raise ConfigError("proposer: policy can only be asked inside of a training run")
        self._voice = voice

    async def answer(self, question: Question, seed: int) -> str:
        """Sampled. Raises `ProposerError` if no answer came."""
        if self._voice is None:
            raise ConfigError("proposer: policy was asked before it was started")
        return await said_by(
            self._voice,
            question,
            style=self.style,
            actions=self.actions,
            max_tokens=self.max_tokens,
            seed=seed,
        )

    async def close(self) -> None:
        """The policy is the run's."""
        self._voice = None
