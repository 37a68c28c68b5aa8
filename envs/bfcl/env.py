"""The Berkeley Function Calling Leaderboard, version 4, for evaluation.

Data, admissible answers and checkers are those of the package `bfcl-eval`, which is not a part of
this one: `pip download --no-deps bfcl-eval -d ~/.cache/agentrl/bfcl` fetches its wheel (2 MB), and
it is read there (`package.py`).

    agentrl eval CHECKPOINT env=bfcl env.category=parallel rollout.max_turns=1
    agentrl eval CHECKPOINT env=bfcl env.category=multi_turn_base rollout.max_turns=60

(with `actions=hermes_talk` if the run had set another format). A task of the single-turn categories
is one message: the calls that it holds are compared with the admissible ones by syntax tree, or,
where no function fits, there must be none. In `multi_turn_base` calls are carried out, a message
without a call ends the user's turn, and in the end the state and the answers of every turn are
compared with those of the package's own calls. Names of functions are shown as they are, dots
included, as the package does for models that are prompted.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from agentrl.core.errors import ConfigError, DataError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.types import Action, Json, Message, Observation, Split, Step, Task
from agentrl.envs.bfcl.gold import answer, parsed, schema, spelt
from agentrl.envs.bfcl.package import NAME, Row, locate, module, private, rows
from agentrl.text.calls import Call, action_of, calls_of

Category = Literal[
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
    "multi_turn_base",
    "multi_turn_miss_param",
    "multi_turn_long_context",
]
MULTI_TURN = "eval_checker.multi_turn_eval.multi_turn"
MOST_STEPS = 20
"""Messages with calls within a user's turn, as in the package; one more fails the task."""


@register("env", "bfcl")
@dataclass(kw_only=True)
class Bfcl(Env):
    """Berkeley Function Calling Leaderboard: evaluation only, with its own data and checkers."""

    runs_in: ClassVar[RunsIn] = "thread"
    actions: ClassVar[str] = "hermes_talk"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    extra: ClassVar[str] = "bfcl"
    licence: ClassVar[str] = "Apache-2.0 (bfcl-eval, code and data)"
    cite: ClassVar[str] = "Patil et al. 2025, The Berkeley Function Calling Leaderboard, ICML"

    category: Category = "simple_python"
    """Which of the leaderboard's categories."""
    wheel: Path | None = None
    """The wheel of bfcl-eval, or a folder that holds it; `none` looks into the environment variable
    BFCL_EVAL, `~/.cache/agentrl/bfcl`, and where the package is installed."""

    def __post_init__(self) -> None:
        self._row: Row | None = None
        self._said: list[list[list[str]]] = []
        self._execute: Any = None
        self._steps = 0

    def tasks(self, split: Split) -> Sequence[Task]:
        """The category's tasks. Raises `ConfigError` for another split, or without the package."""
        if split != "test":
            raise ConfigError(
                f"env: bfcl has a test split only, got {split!r}: it is for evaluation, agentrl "
                "eval CHECKPOINT env=bfcl; train on another env, such as tools"
            )
        return [
            Task(
                id=f"bfcl/{row['id']}",
                seed=number,
                instruction=row["question"][0][-1]["content"],
                data={"category": self.category, "id": row["id"]},
            )
            for number, row in enumerate(self._rows())
        ]

    def reset(self, task: Task) -> Observation:
        """The first question. Raises `EnvError` for a task of another category."""
        found = [row for row in self._rows() if row["id"] == task.data.get("id")]
        if not found:
            raise EnvError(f"bfcl: expected a task of category {self.category}, got {task.id}")
        self._row, self._said, self._steps = found[0], [[]], 0
        if self._is_multi_turn:
            self._execute = private(self._place, f"{MULTI_TURN}_utils")
        return self._question(0)

    def tools(self, task: Task) -> list[Json]:
        """The functions of the task as JSON schemas."""
        types = module(self._place, "constants.type_mappings").GORILLA_TO_OPENAPI
        [row] = [row for row in self._rows() if row["id"] == task.data.get("id")]
        return [schema(function, types) for function in self._functions(row)]

    def step(self, action: Action) -> Step:
        """A message: calls, or a text that calls nothing."""
        row = self._playing()
        try:
            calls = calls_of(action)
        except DataError:
            calls = []
        if not self._is_multi_turn:
            return self._ended(self._is_right(row, calls))
        if calls:
            return self._carried_out(row, calls)
        self._steps = 0
        if len(self._said) < len(row["question"]):
            self._said.append([])
            return Step(observation=self._question(len(self._said) - 1))
        return self._ended(self._has_solved(row))

    def close(self) -> None:
        """Forget the task."""
        self._row = self._execute = None

    def expert_action(self) -> Action:
        """The package's own answer: all calls of a message at once, or a text."""
        row = self._playing()
        if not self._is_multi_turn:
            answers = [] if "relevance" in self.category else self._answers(row)
            calls = [answer(entry, row["function"]) for entry in answers]
            if self.category == "live_relevance":
                calls = [Call(row["function"][0]["name"], {})]
        else:
            functions = self._functions(row)
            turn = len(self._said) - 1
            is_due = not self._said[turn]
            calls = [parsed(c, functions) for c in self._answers(row)[turn] if is_due]
        return action_of(calls) or "There is nothing to call."

    @property
    def _place(self) -> Path:
        return locate(self.wheel)

    @property
    def _is_multi_turn(self) -> bool:
        return self.category.startswith("multi_turn")

    def _rows(self) -> Sequence[Row]:
        return rows(self._place, f"BFCL_v4_{self.category}")

    def _answers(self, row: Row) -> list[Any]:
        answers = rows(self._place, f"possible_answer/BFCL_v4_{self.category}")
        [found] = [entry["ground_truth"] for entry in answers if entry["id"] == row["id"]]
        return list(found)

    def _functions(self, row: Row) -> list[Row]:
        if not self._is_multi_turn:
            return list(row["function"])
        files = module(self._place, "constants.executable_backend_config")
        names = [files.MULTI_TURN_FUNC_DOC_FILE_MAPPING[c] for c in row["involved_classes"]]
        docs = [rows(self._place, f"multi_turn_func_doc/{Path(name).stem}") for name in names]
        return [function for doc in docs for function in doc]

    def _playing(self) -> Row:
        if self._row is None:
            raise RuntimeError("bfcl: the episode is over (or never began): call reset(task)")
        return self._row

    def _question(self, turn: int) -> Observation:
        messages = self._playing()["question"][turn]
        said = tuple(Message(role=m["role"], text=m["content"]) for m in messages)
        return Observation("\n".join(m.text for m in said), messages=said)

    def _is_right(self, row: Row, calls: Sequence[Call]) -> bool:
        """Whether the calls of a single message are admissible ones."""
        if "relevance" in self.category:
            return bool(calls) == (self.category == "live_relevance")
        said = [{call.name: dict(call.arguments)} for call in calls]
        language = module(self._place, "constants.enums").Language.PYTHON
        checker = module(self._place, "eval_checker.ast_eval.ast_checker").ast_checker
        answers, functions = deepcopy(self._answers(row)), deepcopy(row["function"])
        try:
            verdict = checker(functions, said, answers, language, self.category, NAME)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return False  # the package's checker trips over some values of another type
        return bool(verdict["valid"])

    def _carried_out(self, row: Row, calls: Sequence[Call]) -> Step:
        """What the applications answer; another line for each call."""
        functions = self._functions(row)
        texts = [spelt(call, functions) for call in calls]
        known = [text for text in texts if text is not None]
        self._steps += 1
        if self._steps > MOST_STEPS:
            return self._ended(False)
        self._said[-1].append(known)
        results, _ = self._execute.execute_multi_turn_func_call(
            known,
            row["initial_config"],
            row["involved_classes"],
            NAME,
            row["id"],
            long_context="long_context" in self.category,
        )
        answers = iter(results)
        lines = [
            next(answers) if text is not None else f"Error: there is no such function: {call.name}"
            for text, call in zip(texts, calls, strict=True)
        ]
        return Step(
            observation="\n".join(lines).encode(errors="replace").decode(),
            info={"invalid_action": None in texts},
        )

    def _has_solved(self, row: Row) -> bool:
        """Carry everything out anew beside the package's own calls, and compare turn by turn."""
        checker = private(self._place, f"{MULTI_TURN}_checker")
        again = private(self._place, f"{MULTI_TURN}_utils")
        checker.execute_multi_turn_func_call = again.execute_multi_turn_func_call
        answers = self._answers(row)
        verdict = checker.multi_turn_checker(self._said, answers, row, self.category, NAME)
        return bool(verdict["valid"])

    def _ended(self, success: bool) -> Step:
        self._row = self._execute = None
        return Step(
            observation="", reward=float(success), terminated=True, info={"success": success}
        )
