"""Who sits in the model's seat: an engine, the env's expert, or a random player.

One episode loop (`episode.py`) serves training, demonstrations, the random floor and the expert's
ceiling; only the agent differs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from agentrl.core.errors import ConfigError, DeadlineError, EngineError
from agentrl.core.protocols import (
    ActionFormat,
    Completion,
    Engine,
    Renderer,
    SamplingParams,
    Seat,
    abilities,
)
from agentrl.core.types import Action, Finish
from agentrl.rollout.lockstep import Lockstep


@dataclass(frozen=True, kw_only=True)
class EngineAgent:
    """Samples from an engine, with a deadline; in lockstep if asked to."""

    engine: Engine
    renderer: Renderer
    temperature: float
    timeout_s: float
    greedy: bool = False
    lockstep: Lockstep | None = None

    async def act(self, seat: Seat) -> Completion:
        """Sample one turn. Raises `EngineError`, or `DeadlineError` when the engine is late."""
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=seat.max_tokens,
            stop_ids=self.renderer.stop_ids,
            seed=seat.seed,
            greedy=self.greedy,
        )
        if self.lockstep is not None:
            await self.lockstep.wait(seat.episode)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.engine.generate(
                    seat.prompt_ids,
                    params,
                    episode=seat.episode,
                    group=seat.group,
                    images=seat.images or None,
                )
        except TimeoutError as error:
            raise DeadlineError(
                f"the engine did not answer within {self.timeout_s:g} s "
                "(rollout.engine_timeout_s)"
            ) from error

    async def end(self, episode: int) -> None:
        """Tell the engine."""
        await self.engine.end(episode)


@dataclass(frozen=True, kw_only=True)
class ExpertAgent:
    """Plays the env's own expert, written in the action format: demonstrations and the ceiling."""

    renderer: Renderer
    actions: ActionFormat

    async def act(self, seat: Seat) -> Completion:
        """The expert's action as tokens; logprobs are 0, since nothing was sampled."""
        if "expert_action" not in abilities(seat.env.template):
            raise ConfigError(
                f"env {type(seat.env.template).__name__} has no expert_action(), which "
                "demonstrations and the expert ceiling need; use sft=none eval.baselines=false"
            )
        action = await seat.runner.call(seat.env, "expert_action")
        return written(action, self.renderer, self.actions)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


@dataclass(frozen=True, kw_only=True)
class RandomAgent:
    """Plays uniformly among the env's legal actions: the floor."""

    renderer: Renderer
    actions: ActionFormat

    async def act(self, seat: Seat) -> Completion:
        """A random legal action as tokens."""
        if "legal_actions" not in abilities(seat.env.template):
            raise ConfigError(
                f"env {type(seat.env.template).__name__} has no legal_actions(), which the random "
                "floor needs; use eval.baselines=false"
            )
        legal = await seat.runner.call(seat.env, "legal_actions")
        assert isinstance(legal, list)
        return written(Random(seat.seed).choice(legal), self.renderer, self.actions)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


def written(action: object, renderer: Renderer, actions: ActionFormat) -> Completion:
    """A written action as a completion.

    Raises:
        EngineError: the action is neither a string nor a list of them.
    """
    if isinstance(action, str):
        text: Action = action
    elif isinstance(action, list) and all(isinstance(part, str) for part in action):
        text = action
    else:
        raise EngineError(f"expected an action (a string or a list of strings), got {action!r}")
    ids = renderer.reply(actions.write(text))
    return Completion(ids=ids, logprobs=(0.0,) * len(ids), finish=Finish.EOS)
