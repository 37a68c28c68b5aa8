"""Who sits in the model's seat: an engine, the env's expert, or a random player.

One episode loop (`episode.py`) serves training, demonstrations, the random floor and the expert's
ceiling; only the agent differs.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from random import Random

from agentrl.core.errors import ConfigError, DeadlineError, EngineError, EnvError
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
from agentrl.rollout.episode import as_action
from agentrl.rollout.lockstep import Lockstep

logger = logging.getLogger(__name__)


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
            async with asyncio.timeout(self.timeout_s) as deadline:
                return await self.engine.generate(
                    seat.prompt_ids,
                    params,
                    episode=seat.episode,
                    group=seat.group,
                    images=seat.images or None,
                )
        except EngineError:
            raise
        except Exception as error:
            if not deadline.expired():
                raise EngineError(
                    f"{type(self.engine).__name__}: {type(error).__name__}: {error}"
                ) from error
            raise DeadlineError(
                f"the engine did not answer within {self.timeout_s:g} s (rollout.engine_timeout_s)"
            ) from error

    async def end(self, episode: int) -> None:
        """Tell the engine. The episode is over, so a fault is logged and goes no further."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.engine.end(episode)
        except Exception as error:  # noqa: BLE001 - the boundary to engines
            logger.warning(
                "engine %s: end(%d): %s: %s",
                type(self.engine).__name__,
                episode,
                type(error).__name__,
                error,
            )


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
        action = as_action(await _ask(seat, "expert_action"))
        return written(action, self.renderer, self.actions, seat.max_tokens)

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
        legal = await _ask(seat, "legal_actions")
        if not isinstance(legal, list) or not legal:
            raise EnvError(f"expected a list of actions from legal_actions(), got {legal!r:.200}")
        action = as_action(Random(seat.seed).choice(legal))
        return written(action, self.renderer, self.actions, seat.max_tokens)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


async def _ask(seat: Seat, verb: str) -> object:
    """What the env answers; when it is late that is the env's fault, not the seat's."""
    try:
        return await seat.runner.call(seat.env, verb)
    except DeadlineError as error:
        raise EnvError(str(error)) from error


def written(
    action: Action, renderer: Renderer, actions: ActionFormat, max_tokens: int
) -> Completion:
    """A written action as a completion; cut off where a sampled one would be."""
    ids = renderer.reply(actions.write(action))
    finish = Finish.EOS if len(ids) <= max_tokens else Finish.LENGTH
    ids = ids[:max_tokens]
    return Completion(ids=ids, logprobs=(0.0,) * len(ids), finish=finish)
