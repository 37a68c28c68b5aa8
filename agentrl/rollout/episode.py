"""One episode, turn by turn: where a message becomes tokens, tokens an action, an action a reward.

Whatever breaks (env, engine) ends in a `Failure` with the boundary that broke; the caller gets a
trajectory in every case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, SupportsFloat

from agentrl.core.config import Thinking
from agentrl.core.deadlines import deadline
from agentrl.core.errors import DeadlineError, EngineError, EnvError
from agentrl.core.protocols import (
    ActionFormat,
    Agent,
    Completion,
    ContextPolicy,
    EnvHandle,
    Renderer,
    Runner,
    Seat,
    ToolFormat,
    abilities,
)
from agentrl.core.saved import Saved
from agentrl.core.seeds import derive_seed
from agentrl.core.types import (
    Action,
    Failure,
    Fork,
    Image,
    Json,
    Message,
    Observation,
    Opening,
    Role,
    Start,
    Step,
    Stop,
    Task,
    Trajectory,
    Turn,
    with_forced,
)
from agentrl.rollout.answers import as_completion, as_observation, as_step, spots_of
from agentrl.rollout.fold import continues
from agentrl.rollout.gate import Gate
from agentrl.rollout.saving import put, saved
from agentrl.rollout.thinking import answer_in
from agentrl.rollout.watching import Watching
from agentrl.text.calls import as_tools


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits of an episode (config section `rollout`)."""

    max_turns: int
    max_tokens: int
    """Sampled tokens of one turn at most."""
    max_context: int
    """Tokens of prompt and reply at most; a longer prompt ends the episode (MAX_TOKENS)."""
    deadline_s: float = 120.0
    env_timeout_s: float | None = None
    on_invalid: Literal["tell", "pass", "end"] = "tell"
    state_keys: bool = False
    kept: frozenset[str] = frozenset()
    """What is recorded of where turns led: "state_keys", "texts"."""
    thinking: Thinking | None = None
    """How replies reason before they act; the action is looked for behind that."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What an episode is played with: the parts that turn messages into tokens and back."""

    renderer: Renderer
    context: ContextPolicy
    actions: ActionFormat
    rules: Rules

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """The action format, if its actions are calls of tools."""
        return self.actions if isinstance(self.actions, ToolFormat) else None


@dataclass(kw_only=True)
class Episode:
    """The state of one episode while it is played; `play` runs it to its end."""

    task: Task
    table: Table
    agent: Agent
    runner: Runner
    env: EnvHandle
    number: int
    group: int
    seed: int
    start: Start = field(default_factory=Start)
    fork: tuple[Trajectory, Fork] | None = None
    """For a branch: its parent and where it leaves it. The env is brought there by replay, or by
    what `stages` hold of that turn."""
    stages: dict[int, Saved] | None = None
    """Without a fork they get the episode as it stands before each turn, by number."""
    begins: Opening | None = None
    """How the first reply after the fork, or of all, is made to begin."""
    gate: Gate | None = None
    watching: Watching | None = None

    system: tuple[Message, ...] = ()
    """The run's own system message, before what the env says."""
    messages: list[Message] = field(default_factory=list)
    tools: tuple[Mapping[str, Json], ...] = ()
    """What the chat template lists; empty where the system message does."""
    schemas: tuple[Mapping[str, Json], ...] = ()
    """The env's tools for this task."""
    opening: str | None = None
    key: str | None = None
    """The state that the last turn led to, where that is kept."""
    said: list[Message] = field(default_factory=list)
    """The replies, by turn."""
    turns: list[Turn] = field(default_factory=list)
    pixels: dict[str, Image] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    success: bool | None = None
    env_seconds: float = 0.0
    waiting_for: Literal["env", "engine"] = "env"

    async def play(self) -> Trajectory:
        """Play to the end. Never raises for a fault of the env or the engine."""
        began = time.perf_counter()
        failure: Failure | None = None
        try:
            async with deadline(self.table.rules.deadline_s) as clock:
                await self._reset()
                stop = await self._turns(clock)
        except (EnvError, EngineError) as error:
            stop = Stop.ERROR
            failure = Failure(
                where="env" if isinstance(error, EnvError) else "engine", error=str(error)
            )
        except DeadlineError as error:
            stop = Stop.TIMEOUT
            failure = Failure(where=self.waiting_for, error=str(error))
        except TimeoutError:
            stop = Stop.TIMEOUT
            limit = self.table.rules.deadline_s
            failure = Failure(
                where=self.waiting_for,
                error=f"the episode passed its deadline of {limit:g} s (rollout.deadline_s) "
                f"while waiting for the {self.waiting_for}",
            )
        return Trajectory(
            task=self.task,
            start=self.start,
            parent=self._parent(),
            turns=tuple(self.turns),
            stop=stop,
            success=None if failure else bool(self.success),
            failure=failure,
            seconds=time.perf_counter() - began,
            env_seconds=self.env_seconds,
            metrics=self.metrics,
            pixels=self.pixels,
            opening=self.opening,
            goals=tuple(one.goal for one in self.watching.goals) if self.watching else (),
            held=self.watching.first if self.watching else (),
            budget=self.begins.budget if self.begins else None,
        )

    def _parent(self) -> Fork | None:
        """Where the branch left its parent; earlier, if it failed while it was brought there."""
        if self.fork is None:
            return None
        _, fork = self.fork
        return Fork(fork.trajectory, min(fork.turn, len(self.turns)))

    async def _reset(self) -> None:
        observation = as_observation(await self._call("reset", self.task))
        system = "\n\n".join(filter(None, (self.table.actions.system, await self._list_tools())))
        if system:
            self.system = (Message(role="system", text=system),)
        self.messages.extend(self.system)
        self.opening = self._told(observation)
        if self.watching is not None:
            await self.watching.begin(self.task, self._call)
        self._hear(observation)
        if self.fork is not None and self.stages is not None:
            before = self.stages[self.fork[1].turn]
            await self._call("restore", before.env)
            put(self, before)
        for action in self.start.actions if not self.turns else ():
            await self._lead(action)
        if self.fork is not None:
            parent, fork = self.fork
            for turn in parent.turns[len(self.turns) : fork.turn]:
                await self._replay(turn)
            for turn in parent.turns[fork.turn : fork.turn + 1]:
                self._expect(turn, self._prompt(self._shown()))

    async def _lead(self, action: Action) -> None:
        """Take an action of the start. It is shown as if the policy had written it, and as nobody
        sampled it, it is context alone."""
        text = self.table.actions.write(action)
        ids = self.table.renderer.reply(text)
        self.said.append(Message(role="assistant", text=text, ids=ids))
        self.messages.append(self.said[-1])
        step = as_step(await self._call("step", action))
        if step.terminated or step.truncated:
            raise EnvError(
                f"the start of task {self.task.id} ends the episode: its actions no longer "
                "lead to the cell that was archived"
            )
        observation = as_observation(step.observation)
        self.opening = self._told(observation)
        self._hear(observation, action)

    async def _list_tools(self) -> str:
        """Ask the env for its tools if replies can call them; what the system message says."""
        actions = self.table.tool_format
        if actions is None or "tools" not in abilities(self.env.template):
            return ""
        self.schemas = as_tools(await self._call("tools", self.task))
        if actions.tools_in == "auto" and self.table.renderer.takes_tools:
            self.tools = self.schemas
            return ""
        return actions.describe(self.schemas) if self.schemas else ""

    def _read(
        self, prompt_ids: tuple[int, ...], ids: tuple[int, ...], aside: int = 0
    ) -> tuple[str, Action | None]:
        """Note a reply as a message. Its text, and the action that it holds behind what is said
        `aside`."""
        text = self.table.renderer.text(ids)
        self.said.append(Message(role="assistant", text=text, ids=ids))
        self.messages.append(self.said[-1])
        said: str | None = self.table.renderer.text(ids[aside:]) if aside else text
        if self.table.rules.thinking is not None:
            said = answer_in(self.table.rules.thinking, self.table.renderer, prompt_ids, ids)
        if said is None:
            return text, None
        actions = self.table.tool_format
        if actions is not None:
            return text, actions.calls(said, self.schemas)
        return text, self.table.actions.parse(said)

    async def _replay(self, turn: Turn) -> None:
        """Take an inherited turn again: the env must answer as it answered the parent."""
        self._expect(turn, self._prompt(self._shown()))
        _, parsed = self._read(turn.prompt_ids, turn.reply_ids)
        step = Step(observation=self.table.actions.hint())
        if turn.action is not None:
            step = as_step(await self._call("step", turn.action))
        if float(step.reward) != turn.reward or step.terminated or step.truncated:
            raise self._diverged(len(self.turns))
        self.turns.append(turn)
        self.key = turn.led_to
        self._note(step)
        self._hear(as_observation(step.observation), parsed)

    def _expect(self, turn: Turn, prompt_ids: tuple[int, ...]) -> None:
        if prompt_ids != turn.prompt_ids:
            raise self._diverged(len(self.turns) - 1)

    def _diverged(self, turn: int) -> EnvError:
        what = f"turn {turn}" if turn >= 0 else "the start"
        return EnvError(
            f"replaying {what} of task {self.task.id} gave another answer than its parent got: the "
            "env is not deterministic, so it cannot be branched by replay"
        )

    def _shown(self) -> list[Message]:
        return self.table.context(self.messages)

    def _prompt(self, shown: Sequence[Message]) -> tuple[int, ...]:
        last = self.turns[-1] if self.turns else None
        after = last.prompt_ids + last.reply_ids if last else ()
        return self.table.renderer.prompt(shown, after, self.tools)

    def _is_same_row(self, prompt_ids: tuple[int, ...], shown: Sequence[Message]) -> bool:
        """Whether the prompt continues the row so far, and shows its pictures and the new ones."""
        if not self.turns or not continues(self.turns[-1], prompt_ids):
            return False
        row = self.turns[-1].row
        so_far = [name for turn in self.turns if turn.row == row for name in turn.images]
        new = images_of(since_reply(shown))
        return [image.hash for image in images_of(shown)] == [*so_far, *(i.hash for i in new)]

    async def _turns(self, deadline: asyncio.Timeout) -> Stop:
        rules = self.table.rules
        while len(self.turns) < rules.max_turns:
            last = self.turns[-1] if self.turns else None
            shown = self._shown()
            prompt_ids = self._prompt(shown)
            begun = self.begins.ids if self.begins and len(self.turns) == self._first else ()
            room = rules.max_context - len(prompt_ids) - len(begun)
            if room < 1:
                if last is None:
                    self.metrics["prompt_too_long"] = 1.0
                return Stop.MAX_TOKENS
            is_same_row = self._is_same_row(prompt_ids, shown)
            seen = Seen(
                prompt_ids=prompt_ids,
                row=(0 if last is None else last.row) + (not is_same_row and last is not None),
                images=images_of(since_reply(shown) if is_same_row else shown),
                state_key=await self._state_key(),
            )
            if self.stages is not None and self.fork is None:
                self.stages[len(self.turns)] = saved(self, await self._call("snapshot"))
            await self._pass(deadline)
            completion = await self._act(prompt_ids, shown, min(rules.max_tokens, room), begun)
            stop = await self._answer(seen, completion)
            if stop is not None:
                return stop
        return Stop.MAX_TURNS

    async def _pass(self, deadline: asyncio.Timeout) -> None:
        """Wait at the gate, for which the episode has all the time that it takes."""
        if self.gate is None:
            return
        due = deadline.when()
        deadline.reschedule(None)
        waited = await self.gate.wait()
        if due is not None:
            deadline.reschedule(due + waited)

    async def _act(
        self,
        prompt_ids: tuple[int, ...],
        shown: Sequence[Message],
        max_tokens: int,
        begun: tuple[int, ...],
    ) -> Completion:
        self.waiting_for = "engine"
        completion = await self.agent.act(
            Seat(
                prompt_ids=prompt_ids,
                messages=tuple(self.messages),
                images=images_of(shown),
                runner=self.runner,
                env=self.env,
                episode=self.number,
                group=self.group,
                turn=len(self.turns),
                max_tokens=max_tokens,
                seed=derive_seed(self.seed, len(self.turns)),
                begun=begun,
            )
        )
        return as_completion(completion)

    async def _answer(self, seen: Seen, completion: Completion) -> Stop | None:
        """Parse the reply, step the env, record the turn; a stop if the episode is over."""
        rules = self.table.rules
        ids = with_forced(completion.ids, completion.forced)
        text, parsed = self._read(seen.prompt_ids, ids, self._aside(completion))
        action, is_invalid = parsed, parsed is None
        if action is None and rules.on_invalid == "pass":
            action = text
        if action is not None:
            step = as_step(await self._call("step", action))
        else:
            step = Step(observation=self.table.actions.hint())
        is_invalid = is_invalid or bool(step.info.get("invalid_action", False))
        if "state_keys" in self.table.rules.kept:
            self.key = await self._state_key(anew=True)
        self.turns.append(
            Turn(
                prompt_ids=seen.prompt_ids,
                action_ids=completion.ids,
                sampler_logprobs=completion.logprobs,
                versions=completion.versions,
                row=seen.row,
                reward=float(step.reward),
                state_key=seen.state_key,
                led_to=self.key,
                heard=self._told(as_observation(step.observation)),
                held=await self.watching.held(self._call) if self.watching else (),
                images=tuple(image.hash for image in seen.images),
                spots=spots_of(step),
                action=action,
                invalid=is_invalid,
                finish=completion.finish,
                forced=completion.forced,
            )
        )
        self._note(step)
        if is_invalid and rules.on_invalid == "end":
            self.success = False
            return Stop.BAD_ACTION
        if step.terminated and self.success is None:
            raise EnvError(
                f"env {type(self.env.template).__name__} ended task {self.task.id} without "
                "info['success'], which a terminal step must set"
            )
        if step.terminated:
            return Stop.DONE
        if step.truncated:
            return Stop.MAX_TURNS
        self._hear(as_observation(step.observation), parsed)
        return None

    @property
    def _first(self) -> int:
        """The first turn that is not inherited."""
        return self.fork[1].turn if self.fork is not None else 0

    def _aside(self, completion: Completion) -> int:
        """How many tokens at the beginning of the reply are no part of an action."""
        is_aside = self.begins is not None and self.begins.is_aside
        forced = completion.forced if len(self.turns) == self._first else None
        return len(forced.ids) if is_aside and forced is not None and forced.at == 0 else 0

    def _note(self, step: Step) -> None:
        success = step.info.get("success")
        if success is not None:
            self.success = bool(success)
        metrics = step.info.get("metrics", {})
        if not isinstance(metrics, Mapping):
            raise EnvError(f"expected info['metrics'] to be a mapping, got {metrics!r:.200}")
        for name, value in metrics.items():
            if not isinstance(value, SupportsFloat):
                raise EnvError(f"expected numbers in info['metrics'], got {name}={value!r:.200}")
            self.metrics[str(name)] = float(value)

    def _hear(self, observation: Observation, after: Action | None = None) -> None:
        """What the env says; behind a call, a plain observation is what the tool answered."""
        heard = observation.messages
        is_answer = after is not None and self.table.tool_format is not None
        role: Role = "tool" if is_answer else "user"
        if heard is None:
            heard = (Message(role=role, text=observation.text, images=observation.images),)
        if observation.is_whole:
            self.messages = list(self.system)
        self.messages.extend(self._recalled(message) for message in heard)
        self.pixels.update((image.hash, image) for image in images_of(heard))

    def _recalled(self, message: Message) -> Message:
        """A reply of this episode that the env named comes back with its own tokens."""
        if message.reply is None:
            return message
        if not 0 <= message.reply < len(self.said):
            raise EnvError(
                f"env {type(self.env.template).__name__} named the reply of turn {message.reply}, "
                f"and the episode has {len(self.said)}"
            )
        return self.said[message.reply]

    def _told(self, observation: Observation) -> str | None:
        """The text of an observation, where that is kept."""
        return observation.words if "texts" in self.table.rules.kept else None

    async def _state_key(self, *, anew: bool = False) -> str | None:
        if self.key is not None and not anew:
            return self.key
        rules = self.table.rules
        is_asked = rules.state_keys or "state_keys" in rules.kept
        if not is_asked or "state_key" not in abilities(self.env.template):
            return None
        return str(await self._call("state_key"))

    async def _call(self, verb: str, *args: object) -> object:
        self.waiting_for = "env"
        began = time.perf_counter()
        timeout_s = self.table.rules.env_timeout_s or self.env.template.timeout_s
        try:
            return await self.runner.call(self.env, verb, *args, timeout_s=timeout_s)
        finally:
            self.env_seconds += time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a turn begins with: its prompt, the row that it lies in, the images new to that row."""

    prompt_ids: tuple[int, ...]
    row: int
    images: tuple[Image, ...]
    state_key: str | None


def images_of(messages: Sequence[Message]) -> tuple[Image, ...]:
    """Every image that the messages show, in order, repeated ones as often as they are shown."""
    return tuple(image for message in messages for image in message.images)


def since_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages after the last reply."""
    replies = [i for i, message in enumerate(messages) if message.role == "assistant"]
    return messages[replies[-1] + 1 :] if replies else messages
