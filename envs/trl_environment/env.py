"""Plays classes that were written for TRL's `environment_factory`. TRL itself is not needed.

The contract is plain Python: `reset(**row)` gets a dataset's row and returns what is shown first
(text, content blocks or None), every other public method is a tool whose schema comes from its type
hints and docstring, `get_reward()` says what the episode was worth.

An action is a canonical JSON tool call, or a list of them. Names and arguments that no tool can
take and tools that raise are told to the model, in TRL's words, and counted as invalid actions. As
with TRL, a message that calls no tool is the model's last word.
"""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MethodType
from typing import Annotated, ClassVar, Protocol, cast, runtime_checkable

from annotated_types import Ge

from agentrl.core.errors import ConfigError, EnvError, did_you_mean
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.rows import imported, row_tasks
from agentrl.core.types import Action, Image, Message, Observation, Role, Split, Step, Task
from agentrl.envs.trl_environment.calls import Schema, is_call, read

Tool = Callable[..., object]
EXAMPLE = "agentrl.envs.trl_environment.example:Ladder"
_SENT: dict[str, dict[str, Schema]] = {}
"""The schemas that this process was sent with an env, by factory."""


@runtime_checkable
class Resettable(Protocol):
    """What TRL asks of an environment, beside its tools."""

    def reset(self, **row: object) -> object:
        """Begin an episode on a dataset's row."""
        ...


@register("env", "trl_environment")
@dataclass(kw_only=True)
class TrlEnvironment(Env):
    """A class written for TRL's `environment_factory`; its public methods are the tools."""

    runs_in: ClassVar[RunsIn] = "thread"

    factory: str = EXAMPLE
    """Where the class is, `module:Class`. It is nobody's registered part, so a path must do; it is
    imported, and its tools are read, when the config is loaded."""
    rows: Path | None = None
    """A JSON-lines file; `reset` gets the keys of a line. Without it `reset` gets `seed`."""
    seeds: Annotated[int, Ge(1)] = 1_000
    """How many seeds there are without a file; a hash of the row decides its split (2:1:1)."""
    reward: str = "get_reward"
    """Method or attribute that holds the reward so far; a turn's reward is what it adds."""
    done: str = ""
    """Method or attribute that is true when the episode is over; empty: the model ends it."""
    success_at: float = 1.0
    """Reward from which an episode counts as a success."""

    def __post_init__(self) -> None:
        self._make = imported(self.factory, key="factory", what="class", example=EXAMPLE)
        self._schemas = _SENT.get(self.factory) or _schemas(self._make, self.factory)
        is_class = isinstance(self._make, type)  # attributes are seen at the first reset
        if is_class and self.reward == "get_reward" and not hasattr(self._make, self.reward):
            raise ConfigError(_lacks(self._make, self.reward, f"factory: {self.factory}", "reward"))
        self._world: Resettable | None = None
        self._earned = 0.0
        self._is_over = True

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """The settings, and the schemas: reading them takes transformers, seconds to import."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        return _elsewhere, (type(self), settings, self._schemas)

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct rows; equal rows are one task."""
        return row_tasks(self.rows, seeds=self.seeds, prefix="trl", split=split)

    async def reset(self, task: Task) -> Observation:
        """A row's prompt, and what the class shows of it."""
        if self._world is None:
            self._world = self._build()
        row = cast("Mapping[str, object]", task.data["row"])
        shown = await _awaited(self._world.reset(**row))
        self._need_settings(self._world)
        self._earned, self._is_over = 0.0, False
        return _opening(row.get("prompt"), shown)

    async def step(self, action: Action) -> Step:
        """Call the tools that the action names; text that is no call ends the episode."""
        if self._world is None or self._is_over:
            raise RuntimeError(f"{self.factory}: the episode is over (or never began)")
        calls = [action] if isinstance(action, str) else action
        is_last = not any(map(is_call, calls))
        answers, n_bad = [], 0
        for text in [] if is_last else calls:
            answer, is_bad = await self._call(self._world, text)
            answers.append(answer)
            n_bad += is_bad
        self._is_over = is_last or bool(self.done and await _value(self._world, self.done))
        reward, info = await self._earn(self._world), dict[str, object]()
        info["metrics"] = {"tool_calls": float(len(answers)), "bad_calls": float(n_bad)}
        if self._is_over:
            info["success"] = self._earned >= self.success_at
        if n_bad:
            info["invalid_action"] = True
        return Step(
            observation=_told(answers),
            reward=reward,
            terminated=self._is_over,
            info=info,
        )

    def close(self) -> None:
        """Forget the object; the next reset makes a new one."""
        self._world = None
        self._is_over = True

    def tools(self, task: Task) -> list[Schema]:
        """Schemas of the class's tools, in TRL's order."""
        return list(self._schemas.values())

    async def _call(self, world: Resettable, text: str) -> tuple[Observation, bool]:
        """The tool's answer, and whether the call was bad."""
        try:
            call = read(text, self._schemas)
            tool: Tool = getattr(world, call.name)
            value = await _awaited(tool(**call.arguments))
        except Exception as error:  # noqa: BLE001 - TRL's contract: what a tool raises is told
            return Observation(str({"error": str(error)})), True
        return (_observation(value) if isinstance(value, list) else Observation(str(value))), False

    async def _earn(self, world: Resettable) -> float:
        """What the reward grew by; NaN (unscorable) if the class cannot tell at the end."""
        now = await _value(world, self.reward)
        if now is None:
            return math.nan if self._is_over else 0.0
        if not isinstance(now, int | float):
            raise EnvError(
                f"{self.factory}: expected a number from {self.reward}, got {now!r:.100}"
            )
        gain = float(now) - self._earned
        self._earned = float(now)
        return gain

    def _need_settings(self, world: Resettable) -> None:
        for name, key in ((self.reward, "reward"), (self.done, "done")):
            if name and not hasattr(world, name):
                raise EnvError(_lacks(world, name, self.factory, key))

    def _build(self) -> Resettable:
        world = self._make()
        if not isinstance(world, Resettable):
            raise EnvError(f"{self.factory}: expected an object with reset(), got {world!r:.100}")
        return world


# --- the class ------------------------------------------------------------------------------------


def _elsewhere(
    make: Callable[..., Env], settings: dict[str, object], schemas: dict[str, Schema]
) -> Env:
    """The env, in a process that gets the schemas with it."""
    _SENT[str(settings["factory"])] = schemas
    return make(**settings)


def _schemas(make: Callable[[], object], path: str) -> dict[str, Schema]:
    """The schemas that TRL would show. Raises `ConfigError` if it would refuse the class."""
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
    )

    cls = make if isinstance(make, type) else type(make())
    found = dict(inspect.getmembers(cls, predicate=inspect.isfunction))
    if "reset" not in found:
        raise ConfigError(f"factory: {path} has no reset(), which TRL's contract asks for")
    hidden = ("reset", "get_reward")
    tools = {n: f for n, f in found.items() if n not in hidden and not n.startswith("_")}
    if not tools:
        raise ConfigError(f"factory: {path} has no public method that could be a tool")
    try:
        return {n: get_json_schema(MethodType(f, make)) for n, f in tools.items()}
    except (DocstringParsingException, TypeHintParsingException) as error:
        raise ConfigError(
            f"factory: a tool of {path} cannot be described ({' '.join(str(error).split())}); give "
            "it type hints and a docstring with an Args section"
        ) from error


def _lacks(owner: object, name: str, path: str, key: str) -> str:
    near = did_you_mean(name, [n for n in dir(owner) if not n.startswith("_")])
    return f"{path} has no {name!r}{near}; say what holds it: {key}=ATTRIBUTE"


async def _value(owner: object, name: str) -> object:
    held = getattr(owner, name)
    return await _awaited(held() if callable(held) else held)


async def _awaited(value: object) -> object:
    return await value if inspect.isawaitable(value) else value


# --- content --------------------------------------------------------------------------------------


def _opening(prompt: object, shown: object) -> Observation:
    """As TRL does: what `reset` shows is appended to the last message of the row's prompt."""
    first = _observation(shown)
    if prompt is None or isinstance(prompt, str):
        return Observation((prompt or "") + first.text, images=first.images)
    messages = [_message(part) for part in cast("Sequence[object]", prompt)]
    last = messages[-1]
    messages[-1] = Message(role=last.role, text=last.text + first.text, images=first.images)
    return Observation(messages[-1].text, messages=tuple(messages))


def _message(part: object) -> Message:
    if not isinstance(part, Mapping) or not isinstance(part.get("content"), str):
        raise EnvError(f"expected messages with role and content as the prompt, got {part!r:.100}")
    return Message(role=cast("Role", part["role"]), text=part["content"])


def _observation(value: object) -> Observation:
    """What a tool or a reset returned: text, content blocks, None or anything that has a `str`."""
    if not isinstance(value, list):
        return Observation("" if value is None else str(value))
    blocks = [block for block in value if isinstance(block, Mapping)]
    text = "".join(str(b["text"]) for b in blocks if b.get("type") == "text")
    images = tuple(_image(b["image"]) for b in blocks if b.get("type") == "image")
    return Observation(text, images=images)


def _image(picture: object) -> Image:
    save = getattr(picture, "save", None)
    if save is None:
        raise EnvError(f"expected a PIL image in a tool's answer, got {picture!r:.100}")
    buffer = io.BytesIO()
    save(buffer, "PNG")
    return Image(buffer.getvalue())


def _told(answers: Sequence[Observation]) -> Observation:
    """One tool message for each call."""
    messages = tuple(Message(role="tool", text=a.text, images=a.images) for a in answers)
    return Observation("\n".join(a.text for a in answers), messages=messages or None)
