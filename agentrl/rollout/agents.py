"""Who sits in the model's seat: an engine, the env's expert, or a random player.

One episode loop (`episode.py`) serves training, demonstrations, the random floor and the expert's
ceiling; only the agent differs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from agentrl.core.config import Thinking
from agentrl.core.deadlines import deadline
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
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Action, Finish, Forced
from agentrl.rollout.answers import as_action, as_completion
from agentrl.rollout.lockstep import Lockstep
from agentrl.rollout.thinking import is_thinking, joined

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineAgent:
    """Samples from an engine, with a deadline; in lockstep if asked to.

    With a think budget it samples that many tokens first; reasoning that has not ended by then is
    ended by tokens that were not sampled (`Completion.forced`), and the engine goes on behind them.
    A reply that was begun for it (`Seat.begun`) has no think budget.
    """

    engine: Engine
    renderer: Renderer
    temperature: float
    timeout_s: float
    greedy: bool = False
    lockstep: Lockstep | None = None
    thinking: Thinking | None = None

    async def act(self, seat: Seat) -> Completion:
        """Sample one turn. Raises `EngineError`, or `DeadlineError` when the engine is late."""
        if seat.begun:
            prompt_ids = seat.prompt_ids + seat.begun
            rest = as_completion(await self._sample(seat, prompt_ids, seat.max_tokens, seat.seed))
            return replace(rest, forced=Forced(at=0, ids=seat.begun))
        if self.thinking is None or self.thinking.budget >= seat.max_tokens:
            return await self._sample(seat, seat.prompt_ids, seat.max_tokens, seat.seed)
        budget = self.thinking.budget
        thought = as_completion(await self._sample(seat, seat.prompt_ids, budget, seat.seed))
        if thought.finish is not Finish.LENGTH or len(thought.ids) < budget:
            return thought
        ending: tuple[int, ...] = ()
        if is_thinking(self.thinking, self.renderer, seat.prompt_ids, thought.ids):
            ending = self.renderer.encode(self.thinking.ending)
        room = seat.max_tokens - len(thought.ids) - len(ending)
        if room < 1:
            return thought
        prompt_ids = seat.prompt_ids + thought.ids + ending
        rest = await self._sample(seat, prompt_ids, room, derive_seed(seat.seed, "answer"))
        return joined(thought, ending, as_completion(rest))

    async def _sample(
        self, seat: Seat, prompt_ids: tuple[int, ...], max_tokens: int, seed: int
    ) -> Completion:
        params = SamplingParams(
            temperature=self.temperature,
            max_tokens=max_tokens,
            stop_ids=self.renderer.stop_ids,
            seed=seed,
            greedy=self.greedy,
        )
        if self.lockstep is not None:
            await self.lockstep.wait(seat.episode)
        try:
            async with deadline(self.timeout_s) as limit:
                return await self.engine.generate(
                    prompt_ids,
                    params,
                    episode=seat.episode,
                    group=seat.group,
                    images=seat.images or None,
                )
        except EngineError:
            raise
        except Exception as error:
            if not limit.expired():
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
    thinking: Thinking | None = None

    async def act(self, seat: Seat) -> Completion:
        """The expert's action as tokens; logprobs are 0, since nothing was sampled."""
        if "expert_action" not in abilities(seat.env.template):
            raise ConfigError(
                f"env {type(seat.env.template).__name__} has no expert_action(), which "
                "demonstrations and the expert ceiling need; use sft=none eval.baselines=false"
            )
        action = as_action(await _ask(seat, "expert_action"))
        return written(action, seat, self.renderer, self.actions, self.thinking)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


@dataclass(frozen=True, kw_only=True)
class RandomAgent:
    """Plays uniformly among the env's legal actions: the floor."""

    renderer: Renderer
    actions: ActionFormat
    thinking: Thinking | None = None

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
        return written(action, seat, self.renderer, self.actions, self.thinking)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


@dataclass(frozen=True, kw_only=True)
class FollowAgent:
    """Takes given actions, one a turn: what was found is played again in the model's seat."""

    way: tuple[Action, ...]
    renderer: Renderer
    actions: ActionFormat
    thinking: Thinking | None = None

    async def act(self, seat: Seat) -> Completion:
        """The turn's action as tokens."""
        if seat.turn >= len(self.way):
            raise EnvError(
                f"the {len(self.way)} actions that led to the end before did not lead to it now"
            )
        action = self.way[seat.turn]
        return written(action, seat, self.renderer, self.actions, self.thinking)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


@dataclass(frozen=True, kw_only=True)
class PlanAgent:
    """Does in each state what a plan says: what was found of a task is played in the model's
    seat."""

    plan: Mapping[str, Action]
    name: Callable[[str, str], str]
    """A state's own key and what is shown -> its key in the plan."""
    renderer: Renderer
    actions: ActionFormat
    thinking: Thinking | None = None

    async def act(self, seat: Seat) -> Completion:
        """The state's action as tokens. Raises `EnvError` in a state without one."""
        has_keys = "state_key" in abilities(seat.env.template)
        own = str(await _ask(seat, "state_key")) if has_keys else ""
        key = self.name(own, seat.messages[-1].text)
        if key not in self.plan:
            raise EnvError(f"the plan does not know the state {key!r:.200}")
        return written(self.plan[key], seat, self.renderer, self.actions, self.thinking)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


async def _ask(seat: Seat, verb: str) -> object:
    """What the env answers; when it is late that is the env's fault, not the seat's."""
    try:
        return await seat.runner.call(seat.env, verb)
    except DeadlineError as error:
        raise EnvError(str(error)) from error


def written(
    action: Action,
    seat: Seat,
    renderer: Renderer,
    actions: ActionFormat,
    thinking: Thinking | None = None,
) -> Completion:
    """A written action as a completion; cut off where a sampled one would be. Where the prompt has
    begun to reason, that is ended first."""
    text = actions.write(action)
    if thinking is not None and is_thinking(thinking, renderer, seat.prompt_ids, ()):
        text = thinking.ending + text
    ids = renderer.reply(text)
    finish = Finish.EOS if len(ids) <= seat.max_tokens else Finish.LENGTH
    ids = ids[: seat.max_tokens]
    return Completion(ids=ids, logprobs=(0.0,) * len(ids), finish=finish)
