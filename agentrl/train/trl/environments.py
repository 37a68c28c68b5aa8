"""Our environments as TRL's `environment_factory`: the env's actions are tools of the model.

An env that names its tools (`Env.tools`) offers those; any other offers one tool, `act(action)`,
which takes the canonical string. TRL generates, so the action formats, the context policy and the
limits of a config play no part here; `rollout_func` keeps them.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, cast

from PIL import Image as Picture

from agentrl.core.errors import ConfigError, DeadlineError, EnvError
from agentrl.core.protocols import Env, EnvHandle, abilities
from agentrl.core.types import Action, Message, Observation, Step
from agentrl.rollout.answers import as_observation, as_step
from agentrl.rollout.episode import images_of
from agentrl.rollout.runners import runner_for
from agentrl.train.trl.dataset import task_of
from agentrl.train.trl.home import Home

logger = logging.getLogger(__name__)

Schema = Mapping[str, object]
Content = str | list[dict[str, object]]
"""Text, or TRL's content blocks."""
PYTHON: Mapping[str, object] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}


def environment_factory(
    env: Env, *, about_action: str = "What to do, in the environment's own words."
) -> Environments:
    """`GRPOTrainer(environment_factory=environment_factory(env), train_dataset=task_dataset(env))`.

    No `reward_funcs` are needed: TRL asks each environment for its own reward, the sum of the
    env's. An episode whose env failed has none (None), and TRL leaves it out of its statistics.

    Args:
        env: the environment with its settings; each episode in flight gets one of its own.
        about_action: the description of `act`'s argument.

    Raises:
        ConfigError: an env's tool has a name that TRL keeps for itself.
    """
    return Environments(env, about_action)


class Environments:
    """A callable that gives TRL environments, and closes them all at the end."""

    def __init__(self, env: Env, about_action: str) -> None:
        self._home = Home()
        self._runner = runner_for(env)
        self._template = env
        self._handles: list[EnvHandle] = []
        tools = _tools_of(env) if "tools" in abilities(env) else {"act": _act(env, about_action)}
        self._class = type(type(env).__name__, (Environment,), tools)

    def __call__(self) -> Environment:
        """An environment, not yet open."""
        return cast("Environment", self._class(self))

    def open(self) -> EnvHandle:
        """A fresh env."""
        handle = self._home.run(self._runner.open(self._template))
        self._handles.append(handle)
        return handle

    def call(self, handle: EnvHandle, verb: str, *args: object) -> object:
        """Call a method of an open env. Raises `EnvError` or `DeadlineError`."""
        return self._home.run(self._runner.call(handle, verb, *args))

    def drop(self, handle: EnvHandle) -> None:
        """Close an env that broke."""
        self._handles.remove(handle)
        self._shut(handle, is_broken=True)

    def close(self) -> None:
        """Close every env; may be called twice."""
        while self._handles:
            self._shut(self._handles.pop(), is_broken=False)
        self._home.close()

    def _shut(self, handle: EnvHandle, *, is_broken: bool) -> None:
        try:
            self._home.run(self._runner.close(handle, is_broken=is_broken))
        except (EnvError, DeadlineError) as error:
            logger.warning("%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Environment:
    """One env in TRL's shape. Its tools are added by `Environments`; attributes are for rewards."""

    def __init__(self, owner: Environments) -> None:
        self._owner = owner
        self._handle: EnvHandle | None = None
        self.rewards: list[float] = []
        """The env's reward of each action of this episode."""
        self.success: bool | None = None
        """What the env said of success last."""
        self.invalid = 0
        """Actions that the env called invalid."""
        self.failure: str | None = None
        """Why the env failed in this episode."""
        self.is_over = True
        """Whether the env ended the episode."""

    def reset(self, **row: object) -> Content:
        """Begin the task that the row's prompt carries.

        An env that fails is replaced at the next reset; its episode has no reward.
        """
        task = task_of(row.get("prompt"))
        self.rewards, self.success, self.invalid, self.failure = [], None, 0, None
        self.is_over = False
        try:
            self._handle = self._handle or self._owner.open()
            return _content(as_observation(self._owner.call(self._handle, "reset", task)))
        except (EnvError, DeadlineError) as error:
            self._fail(error)
            return f"The environment failed: {error}"

    def get_reward(self) -> float | None:
        """The sum of the env's rewards; None if the env failed."""
        return None if self.failure else math.fsum(self.rewards)

    def _act(self, action: Action) -> Content:
        """What a tool does and tells. Raises what TRL is to tell the model as an error."""
        if self.failure:
            raise RuntimeError(f"the environment failed: {self.failure}")
        if self.is_over or self._handle is None:
            raise RuntimeError("the episode is over: call no more tools")
        try:
            step = as_step(self._owner.call(self._handle, "step", action))
            shown = as_observation(step.observation)
        except (EnvError, DeadlineError) as error:
            self._fail(error)
            raise
        self._note(step)
        return _content(shown)

    def _note(self, step: Step) -> None:
        self.rewards.append(float(step.reward))
        self.is_over = step.terminated or step.truncated
        self.invalid += bool(step.info.get("invalid_action", False))
        if "success" in step.info:
            self.success = bool(step.info["success"])

    def _fail(self, error: Exception) -> None:
        logger.warning("%s", error)
        self.failure = str(error)
        if self._handle is not None:
            self._owner.drop(self._handle)
        self._handle = None


def _content(shown: Observation) -> Content:
    """What is shown; an env's several messages become one, pictures first."""
    said = shown.messages or (Message(role="user", text=shown.text, images=shown.images),)
    text = "\n".join(message.text for message in said)
    pictures = images_of(said)
    if not pictures:
        return text
    opened = [Picture.open(io.BytesIO(picture.png)) for picture in pictures]
    return [*({"type": "image", "image": one} for one in opened), {"type": "text", "text": text}]


# --- tools ----------------------------------------------------------------------------------------


def _act(env: Env, about_action: str) -> Callable[[Environment, str], object]:
    def act(self: Environment, action: str) -> object:
        return self._act(action)

    act.__annotations__ = {"action": str, "return": str}
    about = (inspect.getdoc(type(env)) or type(env).__name__).splitlines()[0]
    act.__doc__ = (
        f"Act. {about}\n\nArgs:\n    action: {about_action}\n\nReturns:\n    What you see next."
    )
    return act


def _tools_of(env: Env) -> dict[str, Callable[..., object]]:
    """A method for each tool that the env names for its first train task."""
    schemas = env.tools(env.tasks("train")[0])  # type: ignore[attr-defined]
    functions = [cast("Schema", schema.get("function", schema)) for schema in schemas]
    return {str(function["name"]): _tool(function) for function in functions}


def _tool(function: Schema) -> Callable[..., object]:
    """A method whose signature and docstring give TRL the schema back."""
    name = str(function["name"])
    if name.startswith("_") or name in ("reset", "get_reward") or not name.isidentifier():
        raise ConfigError(f"a tool cannot be called {name!r} under TRL: it keeps that name")
    parameters = cast("Schema", function.get("parameters", {}))
    properties = cast("Mapping[str, Schema]", parameters.get("properties", {}))
    required = cast("Sequence[str]", parameters.get("required", ()))

    def tool(self: Environment, **arguments: object) -> object:
        return self._act(json.dumps({"name": name, "arguments": arguments}))

    hints = {key: _hint(schema) for key, schema in properties.items()}
    ordered = sorted(properties, key=lambda key: key not in required)
    tool.__name__ = name
    tool.__annotations__ = {**hints, "return": str}
    tool.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=hints[key],
                    default=inspect.Parameter.empty if key in required else None,
                )
                for key in ordered
            ),
        ]
    )
    lines = [str(function.get("description", name)), ""]
    if properties:
        lines += ["Args:", *(f"    {key}: {_words(properties[key])}" for key in ordered), ""]
    tool.__doc__ = "\n".join(lines)
    return tool


def _hint(schema: Schema) -> object:
    choices = schema.get("enum")
    kind = schema.get("type")
    if isinstance(choices, list):
        hint: object = Literal[tuple(choices)]
    elif kind == "array":
        hint = list[_hint(cast("Schema", schema.get("items", {})))]  # type: ignore[misc]
    else:
        hint = PYTHON.get(str(kind), object) if isinstance(kind, str) else object
    return hint | None if schema.get("nullable") else hint  # type: ignore[operator]


def _words(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "An argument.")).split())
