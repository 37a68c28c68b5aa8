"""Any environment as a task of Inspect, for any model that Inspect knows.

    inspect eval agentrl/play -T env=babyai -T level=GoToObj --model openai/gpt-4o --limit 20

Inspect finds it by its entry point (`pip install 'agentrl[inspect]'`); nothing else imports this
module. The model sees messages and, where the environment has tools, calls them as its API does it.
An episode that failed is an error of its sample, which Inspect counts and leaves out of its means.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from inspect_ai import Task as InspectTask
from inspect_ai import task as inspect_task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, accuracy, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolCall, ToolInfo, ToolParams
from inspect_ai.util import StoreModel
from pydantic import Field

from agentrl.core.config import Alone, load_alone
from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import EnvHandle, Runner, ToolFormat, abilities
from agentrl.core.types import Action, Image, Json, Message, Observation, Role, Split, Step, Task
from agentrl.rollout.answers import as_observation, as_step
from agentrl.rollout.runners import runner_for
from agentrl.text.calls import Call, action_of, as_tools


class Played(StoreModel):
    """What an episode came to; it is kept in the sample's store."""

    turns: int = 0
    invalid: int = 0
    """Turns without an action that the env understood."""
    total: float = 0.0
    """Sum of the env's rewards."""
    success: bool = False
    is_over: bool = False
    """Whether the env ended it, rather than a limit."""
    metrics: dict[str, float] = Field(default_factory=dict)


@inspect_task
def play(
    env: str = "babyai",
    split: Split = "test",
    tasks: int = 100,
    max_turns: int = 100,
    native_calls: bool = True,
    **settings: Json,
) -> InspectTask:
    """Play an environment's tasks.

    Args:
        env: its name; further arguments are its settings, as in `-T level=GoToObj`, and
            `-T actions=tagged` names another action format.
        split: which tasks.
        tasks: how many of them at most.
        max_turns: replies of the model, after which an episode is cut off.
        native_calls: tools are called by the model's API; if false, in the action format's words.

    Raises:
        ConfigError: there is no such environment, setting or split.
    """
    alone = load_alone(env, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    if split not in alone.env.splits:
        known = ", ".join(alone.env.splits)
        raise ConfigError(f"split: {env} has no split {split!r} (known: {known})")
    chosen = list(itertools.islice(alone.env.tasks(split), tasks))
    samples = [
        Sample(id=one.id, input=one.instruction or one.id, metadata={"seed": one.seed})
        for one in chosen
    ]
    return InspectTask(
        dataset=MemoryDataset(samples, name=f"{env}/{split}"),
        solver=player(alone, {one.id: one for one in chosen}, max_turns, native_calls),
        scorer=outcome(),
        fail_on_error=False,
    )


@solver
def player(alone: Alone, tasks: Mapping[str, Task], max_turns: int, native_calls: bool) -> Solver:
    """Plays the task that a sample names, with the model in the agent's seat."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        runner = runner_for(alone.env, "auto")
        handle = await runner.open(alone.env)
        seat = Seat(
            state=state, alone=alone, runner=runner, handle=handle, native_calls=native_calls
        )
        try:
            await seat.begin(tasks[str(state.sample_id)])
            while not seat.played.is_over and seat.played.turns < max_turns:
                await seat.turn()
        finally:
            await runner.close(handle)
        return state

    return solve


@scorer(
    metrics={
        "success": [accuracy(), stderr()],
        "reward": [mean(), stderr()],
        "turns": [mean()],
        "invalid": [mean()],
    }
)
def outcome() -> Scorer:
    """Success as the env says it, the sum of its rewards, turns, and how many were invalid."""

    async def score(state: TaskState, target: Target) -> Score:
        played = state.store_as(Played)
        return Score(
            value={
                "success": float(played.success),
                "reward": played.total,
                "turns": played.turns,
                "invalid": played.invalid,
            },
            answer=state.output.completion,
            explanation="the episode ended" if played.is_over else "a limit cut the episode off",
            metadata=dict(played.metrics),
        )

    return score


@dataclass(kw_only=True)
class Seat:
    """The model's seat in one episode."""

    state: TaskState
    alone: Alone
    runner: Runner
    handle: EnvHandle
    native_calls: bool
    schemas: tuple[Mapping[str, Json], ...] = ()
    tools: list[ToolInfo] = field(default_factory=list)
    system: list[ChatMessage] = field(default_factory=list)
    replies: list[ChatMessageAssistant] = field(default_factory=list)

    @property
    def played(self) -> Played:
        """How far the episode came."""
        return cast("Played", self.state.store_as(Played))

    async def begin(self, task: Task) -> None:
        """Reset the env and open the conversation. Raises `EnvError`, `DeadlineError`."""
        shown = as_observation(await self._call("reset", task))
        form, texts = self.alone.format, [self.alone.format.system]
        if isinstance(form, ToolFormat) and "tools" in abilities(self.alone.env):
            self.schemas = as_tools(await self._call("tools", task))
            if self.native_calls:
                self.tools = [_tool(one) for one in self.schemas]
            else:
                texts.append(form.describe(self.schemas))
        text = "\n\n".join(filter(None, texts))
        self.system = [ChatMessageSystem(content=text)] if text else []
        self.state.messages = list(self.system)
        self._hear(shown, [])

    async def turn(self) -> None:
        """Ask the model, act, and let it hear what came of it. Raises as `begin` does."""
        output = await get_model().generate(self.state.messages, tools=self.tools)
        self.state.output = output
        self.replies.append(output.message)
        self.state.messages.append(output.message)
        calls = output.message.tool_calls or []
        action = self._action(output.message.text, calls)
        step = Step(observation=self.alone.format.hint(), info={"invalid_action": True})
        if action is not None:
            step = as_step(await self._call("step", action))
        self._note(step)
        if not self.played.is_over:
            self._hear(as_observation(step.observation), calls)

    def _action(self, text: str, calls: Sequence[ToolCall]) -> Action | None:
        form, found = self.alone.format, None
        if calls:
            if not any(one.parse_error for one in calls):
                found = action_of([Call(one.function, one.arguments) for one in calls])
        elif isinstance(form, ToolFormat):
            found = form.calls(text, self.schemas)
        else:
            found = form.parse(text)
        return text if found is None and self.alone.env.takes_text else found

    def _note(self, step: Step) -> None:
        played, success = self.played, step.info.get("success")
        played.turns += 1
        played.invalid += bool(step.info.get("invalid_action", False))
        played.total += float(step.reward)
        played.is_over = step.terminated or step.truncated
        if success is not None:
            played.success = bool(success)
        elif step.terminated:
            raise EnvError(
                f"env {type(self.alone.env).__name__} ended its task without info['success'], "
                "which a terminal step must set"
            )
        metrics = step.info.get("metrics")
        if isinstance(metrics, Mapping):
            told = {str(key): float(value) for key, value in metrics.items()}
            played.metrics = {**played.metrics, **told}

    def _hear(self, shown: Observation, calls: Sequence[ToolCall]) -> None:
        """What the env says, each call answered by a message of its own."""
        said = shown.messages
        if said is None:
            role: Role = "tool" if calls else "user"
            said = (Message(role=role, text=shown.text, images=shown.images),)
        heard = self.system.copy() if shown.is_whole else self.state.messages
        places = [i for i, message in enumerate(said) if message.role == "tool"][: len(calls)]
        for one, place in itertools.zip_longest(calls, places):
            content = "" if place is None else _content(said[place])
            heard.append(
                ChatMessageTool(content=content, tool_call_id=one.id, function=one.function)
            )
        heard.extend(self._said(message) for i, message in enumerate(said) if i not in places)
        self.state.messages = heard

    def _said(self, message: Message) -> ChatMessage:
        if message.reply is not None:
            return self.replies[message.reply]
        if message.role == "system":
            return ChatMessageSystem(content=message.text)
        if message.role == "assistant":
            return ChatMessageAssistant(content=message.text)
        return ChatMessageUser(content=_content(message))

    async def _call(self, verb: str, *args: object) -> object:
        return await self.runner.call(self.handle, verb, *args)


def _content(message: Message) -> str | list[Content]:
    if not message.images:
        return message.text
    pictures = [ContentImage(image=_url(image)) for image in message.images]
    return [ContentText(text=message.text), *pictures]


def _url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.png).decode()}"


def _tool(schema: Mapping[str, Json]) -> ToolInfo:
    function = cast("Mapping[str, Json]", schema["function"])
    return ToolInfo(
        name=str(function["name"]),
        description=str(function.get("description") or ""),
        parameters=ToolParams.model_validate(function.get("parameters") or {}),
    )
