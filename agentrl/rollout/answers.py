"""What engines and envs answer, checked: anything else is their fault, and named."""

from __future__ import annotations

import math

from agentrl.core.errors import EngineError, EnvError
from agentrl.core.protocols import Completion
from agentrl.core.types import Action, Observation, Spot, Step


def as_completion(value: object) -> Completion:
    """The completion that an agent answered. Raises `EngineError`."""
    if not isinstance(value, Completion):
        raise EngineError(f"expected a Completion from the engine, got {value!r:.200}")
    count = len(value.ids)
    if not count:
        raise EngineError("the engine answered without a single token")
    if len(value.logprobs) != count:
        raise EngineError(f"the engine answered {count} tokens but {len(value.logprobs)} logprobs")
    if not all(math.isfinite(logprob) for logprob in value.logprobs):
        raise EngineError("the engine answered logprobs that are not finite")
    if value.versions and sum(n for _, n in value.versions) != count:
        raise EngineError(
            f"the engine's versions {value.versions} do not sum to its {count} sampled tokens"
        )
    return value


def as_action(value: object) -> Action:
    """The action that an env's expert or list of legal actions holds. Raises `EnvError`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    raise EnvError(f"expected an action (a string or a list of strings), got {value!r:.200}")


def as_observation(value: object) -> Observation:
    """The observation that an env returned, a bare string included. Raises `EnvError`."""
    observation = Observation(value) if isinstance(value, str) else value
    if not isinstance(observation, Observation):
        raise EnvError(f"expected an Observation or a str from the env, got {value!r:.200}")
    texts = [observation.text, *(message.text for message in observation.messages or ())]
    try:
        "".join(texts).encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise EnvError(f"expected text that is valid Unicode from the env: {error}") from error
    return observation


def as_step(value: object) -> Step:
    """The step that an env returned. Raises `EnvError`."""
    if not isinstance(value, Step):
        raise EnvError(f"expected a Step from the env's step(), got {value!r:.200}")
    if not isinstance(value.reward, int | float):
        raise EnvError(f"expected a number as Step.reward, got {value.reward!r:.200}")
    return value


def spots_of(step: Step) -> tuple[Spot, ...]:
    """Where the env says that the action pointed. Raises `EnvError`."""
    found = step.info.get("spots", ())
    spots = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not all(isinstance(one, Spot) for one in spots):
        raise EnvError(f"expected info['spots'] to be a list of Spot, got {found!r:.200}")
    return spots
