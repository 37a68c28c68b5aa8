"""A small model from a folder, sampled by our own engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from agentrl.core.errors import ConfigError, EngineError
from agentrl.core.exploring import Question, Voice
from agentrl.core.registry import register
from agentrl.core.types import Message, SamplingParams
from agentrl.explore.speaking import Style, said_by

if TYPE_CHECKING:
    from agentrl.core.protocols import Engine, Renderer

EPISODE = 0


@register("proposer", "checkpoint")
@dataclass(kw_only=True)
class Checkpoint:
    """A model in a folder (`config.json`, weights, tokenizer), beside the policy and never
    trained."""

    path: str
    """The folder, or a hub name."""
    style: Style = "chat"
    """`chat` asks the question; `act` shows what the env shows, and takes its action for a choice
    among actions."""
    actions: str = "plain"
    """The action format by which `act` reads a reply."""
    temperature: Annotated[float, Gt(0)] = 0.7
    """Of its answers."""
    max_tokens: Annotated[int, Ge(1)] = 64
    """Tokens of an answer at most."""
    device: str = "auto"
    """Where its weights lie."""
    _engine: Engine | None = field(default=None, init=False, repr=False, compare=False)
    _renderer: Renderer | None = field(default=None, init=False, repr=False, compare=False)
    _room: int = field(default=0, init=False, repr=False, compare=False)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Load it. Raises `ConfigError` if there is nothing to load."""
        from agentrl.engines.policy import load_policy  # torch: not for those who only list parts
        from agentrl.engines.transformers import Transformers
        from agentrl.text.renderer import build_renderer

        policy = load_policy(self.path, seed=0, device=self.device)
        self._renderer = build_renderer("auto", policy.tokenizer, policy.stop_ids)
        self._room = policy.context_length
        self._engine = Transformers()
        await self._engine.start(policy)

    async def answer(self, question: Question, seed: int) -> str:
        """Sampled. Raises `ProposerError` if no answer came."""
        if self._engine is None:
            raise ConfigError(f"proposer: {self.path} was asked before it was started")
        return await said_by(
            self._voice,
            question,
            style=self.style,
            actions=self.actions,
            max_tokens=self.max_tokens,
            seed=seed,
        )

    async def _voice(self, messages: Sequence[Message], max_tokens: int, seed: int) -> str:
        engine, renderer = self._engine, self._renderer
        assert engine is not None
        assert renderer is not None
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=max_tokens,
            stop_ids=renderer.stop_ids,
            seed=seed,
        )
        prompt = renderer.prompt(messages)
        if len(prompt) + max_tokens > self._room:
            raise EngineError(f"a prompt of {len(prompt)} tokens for a model of {self._room}")
        said = await engine.generate(prompt, params, episode=EPISODE, group=EPISODE)
        return renderer.text(said.ids)

    async def close(self) -> None:
        """Give up the model."""
        engine, self._engine, self._renderer = self._engine, None, None
        if engine is not None:
            await engine.close()
