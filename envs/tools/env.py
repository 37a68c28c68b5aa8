"""Function calling over four small applications: files, calendar, mail and shop.

    Delete "notes.txt". Cancel "yoga" on "mon".
    {"arguments":{"path":"notes.txt"},"name":"files_delete"}        deleted
    {"arguments":{"day":"mon"},"name":"calendar_show"}              e31 yoga at 9
    {"arguments":{"event":"e31"},"name":"calendar_cancel"}          cancelled
    {"arguments":{},"name":"finish"}                                finished

The state of all applications is one JSON value, of which only tools tell. An episode succeeds if
in the end the state differs from the first one by exactly what was asked for: whatever else was
changed makes it fail. Some requests must be met in one message, or two, which then hold several
calls; some cannot be met, and the right answer is to say so (`cannot`) and to change nothing.

A solution stands in `Task.data["gold"]`: calls, and for each of them which must come `after`
which. The reward `tool_calls` compares an episode's calls with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, cast

from annotated_types import Ge, Le

from agentrl.core.errors import ConfigError, DataError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks, digest
from agentrl.core.types import Action, Json, Split, Step, Task
from agentrl.envs.tools.apps import APPS, AppName, facts, perform, toolbox
from agentrl.envs.tools.tasks import Wanted, starts, suggested
from agentrl.envs.tools.toolbox import TABLES, RefusedError, World, WrongCallError, brief
from agentrl.text.calls import Call, call, calls_of, canonical

CALLS = 16
"""Calls that a message may hold."""
EXAMPLE = 'expected calls such as {"name": "finish", "arguments": {}}'
OBSTACLES = ("missing", "taken", "too_few")


class Saved(NamedTuple):
    """A snapshot: the world as JSON, and how far the episode is."""

    request: str
    gold: tuple[tuple[str, tuple[int, ...], int], ...]
    """The solution: canonical calls, what each comes after, the message that can hold it first."""
    messages: int | None
    obstacle: str
    first: str
    world: str
    wanted: Mapping[str, int]
    """What matters of the state when the solution has been carried out."""
    made: frozenset[int] = frozenset()
    """Calls of the solution that were made."""
    looked: frozenset[str] = frozenset()
    """Lookups that were answered."""
    turn: int = 0
    calls: int = 0
    errors: int = 0
    is_over: bool = False


@register("env", "tools")
@dataclass(kw_only=True)
class Tools(Env):
    """Function calling over small applications with one state (files, calendar, mail, shop)."""

    runs_in: ClassVar[RunsIn] = "inline"
    actions: ClassVar[str] = "hermes"

    apps: tuple[AppName, ...] = ("files", "calendar", "mail", "shop")
    """Which applications there are."""
    steps_low: Annotated[int, Ge(1), Le(8)] = 1
    """Things that a request asks for at least (1 to `steps`); each takes 1 to 3 calls."""
    steps: Annotated[int, Ge(1), Le(8)] = 2
    """Things that a request asks for at most (`steps_low` to 8)."""
    distractors: Annotated[int, Ge(0), Le(8)] = 3
    """Files, events, mails and goods that the world holds beyond `steps` of each kind (0 to 8; no
    more than there are names for)."""
    hidden: bool = True
    """Whether half of the things asked for need a lookup (an id, a content, a price) first."""
    together: Annotated[float, Ge(0), Le(1)] = 0.25
    """Share of requests that must be met in as few messages as possible, where that means several
    calls in a message."""
    infeasible: Annotated[float, Ge(0), Le(1)] = 0.1
    """Share of requests that cannot be met."""
    ends: Literal["finish", "reached"] = "finish"
    """The episode ends when the model says so, or as soon as the goal is `reached`."""
    turns: Annotated[int, Ge(1)] | None = None
    """Messages until truncation; `none` is twice the calls of the solution and two more."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        if not self.apps or len(set(self.apps)) < len(self.apps):
            raise ConfigError(
                f"env.apps: expected some of {', '.join(APPS)}, each once, got {self.apps}"
            )
        if self.steps_low > self.steps:
            raise ConfigError(
                f"env.steps_low: must be at most env.steps={self.steps}, got {self.steps_low}"
            )
        self._tools = toolbox(self.apps, can_finish=self.ends == "finish")
        self._now: Saved | None = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts (state and request), all solved; a hash decides the split (2:1:1)."""
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        apps = tuple(app for app in APPS if app in self.apps)
        wanted = Wanted(
            apps=apps,
            steps_low=self.steps_low,
            steps=self.steps,
            distractors=self.distractors,
            hidden=self.hidden,
            together=self.together,
            infeasible=self.infeasible,
            ends=self.ends,
        )
        return Tasks("tools", split, lengths[split], starts(wanted))

    def reset(self, task: Task) -> str:
        """Furnish the applications. Raises `EnvError` for a task that is not this env's."""
        try:
            self._now = self._begin(task)
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise EnvError(
                f"tools: expected a task of this env, whose data holds world, gold, messages and "
                f"obstacle, got {task.id} ({type(error).__name__}: {error})"
            ) from error
        return task.instruction

    def tools(self, task: Task) -> list[Json]:
        """The schemas of all tools; the same for every task."""
        return [tool.schema for tool in self._tools.values()]

    def step(self, action: Action) -> Step:
        """One call or several; each is made in turn, whatever became of those before it."""
        before = self._playing()
        answers: list[str] = []
        said: Call | None = None
        is_invalid = False
        try:
            calls = read(action)
        except WrongCallError as error:
            calls, answers, is_invalid = [], [str(error)], True
        now = before._replace(turn=before.turn + 1, errors=before.errors + is_invalid)
        for one in calls:
            now, answer, is_wrong = self._make(now, one)
            answers.append(answer)
            is_invalid |= is_wrong
            if one.name in ("finish", "cannot") and not is_wrong:
                said = one
                break
        return self._judged(now, said, answers, is_invalid)

    def close(self) -> None:
        """Nothing is held."""
        self._now = None

    def snapshot(self) -> Saved | None:
        """All that there is; immutable."""
        return self._now

    def restore(self, snapshot: Saved | None) -> None:
        """Go on from a snapshot."""
        self._now = snapshot

    def state_key(self) -> str:
        """A hash of the request, the state, and what was looked up."""
        now = self._begun()
        return digest("\n".join([now.request, now.world, *sorted(now.looked)]))

    def legal_actions(self) -> list[Action]:
        """Calls that make sense, a few dozen of them; the same ones for the same state."""
        calls = suggested(self.apps, thawed(self._playing().world))
        legal = dict.fromkeys(canonical(one) for one in calls)
        endings = [call("cannot", because=obstacle) for obstacle in OBSTACLES]
        return [*legal, *endings, *([call("finish")] if self.ends == "finish" else [])]

    def expert_action(self) -> Action:
        """The solution's next call; in a request for few messages, all calls of the next one.

        It knows the solution from the beginning, and does not mend what others broke.
        """
        now = self._playing()
        pending = [at for at in range(len(now.gold)) if at not in now.made]
        if not pending:
            return self.legal_actions()[-1]
        if now.messages is None:
            return now.gold[pending[0]][0]
        first = min(now.gold[at][2] for at in pending)
        together = [now.gold[at][0] for at in pending if now.gold[at][2] == first]
        return together if len(together) > 1 else together[0]

    def check(self, goal: str) -> bool | None:
        """`reached`: whether the state is the wanted one. `files a.txt text=milk` and other facts
        (their first words are the tables of the state): whether they hold. None for any other."""
        now = self._begun()
        holding = facts(thawed(now.world))
        if goal.strip() == "reached":
            return holding == now.wanted and not now.obstacle
        return goal.strip() in holding if goal.split(" ", 1)[0] in TABLES else None

    def _begin(self, task: Task) -> Saved:
        data = task.data
        world = json.dumps(data["world"], sort_keys=True)
        gold = []
        after = thawed(world)
        if after.keys() != TABLES.keys():
            raise ValueError(f"a world of {', '.join(after) or 'nothing'}")
        everything = toolbox(tuple(APPS), can_finish=True)
        for entry in cast("Sequence[Mapping[str, Json]]", data["gold"]):
            one = Call(str(entry["name"]), cast("Mapping[str, Json]", entry["arguments"]))
            before = tuple(cast("Sequence[int]", entry["after"]))
            gold.append((canonical(one), before, cast("int", entry["message"])))
            perform(after, one, everything)
        return Saved(
            request=task.instruction,
            gold=tuple(gold),
            messages=cast("int | None", data["messages"]),
            obstacle=str(data["obstacle"]),
            first=world,
            world=world,
            wanted=facts(after),
        )

    def _begun(self) -> Saved:
        if self._now is None:
            raise RuntimeError("tools: no state before the first reset(task)")
        return self._now

    def _playing(self) -> Saved:
        if self._now is None or self._now.is_over:
            raise RuntimeError("tools: the episode is over (or never began): call reset(task)")
        return self._now

    def _make(self, now: Saved, one: Call) -> tuple[Saved, str, bool]:
        """The state after a call, its answer, and whether no tool takes such a call."""
        world = thawed(now.world)
        is_wrong = False
        try:
            answer = perform(world, one, self._tools)
        except RefusedError as error:
            answer, is_wrong = f"error: {error}", isinstance(error, WrongCallError)
            now = now._replace(errors=now.errors + 1)
        else:
            text, after = canonical(one), json.dumps(world, sort_keys=True)
            looked = now.looked | {text} if after == now.world else now.looked
            now = now._replace(world=after, looked=looked, made=_made(now, text))
        return now._replace(calls=now.calls + 1), answer, is_wrong

    def _judged(
        self, now: Saved, said: Call | None, answers: Sequence[str], is_invalid: bool
    ) -> Step:
        """End the episode if it is over, and say what came of the message."""
        first, holding = facts(thawed(now.first)), facts(thawed(now.world))
        is_reached = holding == now.wanted
        if now.obstacle:
            is_right = said == Call("cannot", {"because": now.obstacle})
            success = is_reached and is_right
        else:
            success = is_reached and (said is None or said.name == "finish")
        has_used_all = now.messages is not None and now.turn >= now.messages
        is_there = self.ends == "reached" and success
        terminated = said is not None or has_used_all or is_there
        truncated = not terminated and now.turn >= (self.turns or 2 * len(now.gold) + 2)
        self._now = now._replace(is_over=terminated or truncated)
        info: dict[str, object] = {
            "metrics": {
                "calls": float(now.calls),
                "errors": float(now.errors),
                "collateral": float(collateral(first, Counter(now.wanted), holding)),
            }
        }
        if is_invalid:
            info["invalid_action"] = True
        if self._now.is_over:
            info["success"] = success and terminated
        return Step(
            observation="\n".join(answers),
            reward=float(success and terminated),
            terminated=terminated,
            truncated=truncated,
            info=info,
        )


def read(action: Action) -> list[Call]:
    """The calls that an action says, in one string or several.

    Raises:
        WrongCallError: it says no calls, or too many.
    """
    try:
        calls = calls_of(action)
    except DataError as error:
        shown = action if isinstance(action, str) else next(iter(action), "")
        raise WrongCallError(f"error: {EXAMPLE}, got {brief(shown)}") from error
    if not 1 <= len(calls) <= CALLS:
        raise WrongCallError(f"error: expected 1 to {CALLS} calls, got {len(calls)}")
    return calls


def thawed(world: str) -> World:
    """A world of one's own from its JSON."""
    return cast("World", json.loads(world))


def collateral(first: Counter[str], wanted: Counter[str], holding: Counter[str]) -> int:
    """How many facts were changed that the request leaves alone: lost though they should stay, or
    there though nobody asked for them."""
    lost = (first & wanted) - holding
    made = (holding - first) - wanted
    return lost.total() + made.total()


def _made(now: Saved, text: str) -> frozenset[int]:
    """The solution's calls that were made, this one among them if it is one."""
    for at, (gold, _, _) in enumerate(now.gold):
        if gold == text and at not in now.made:
            return now.made | {at}
    return now.made
