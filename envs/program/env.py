"""Trains an agent that was written for OpenAI's API, without a change to it.

The program asks for chat completions at an address that it is given; each call is a turn. What it
sends is the whole conversation, so whatever it does with its history (cut it, summarise it, start
sub-agents) is seen as it was: a prompt that goes on from the last reply extends its row, any other
opens a new one, and the model's own replies are known by what they said and never encoded again.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, cast

from annotated_types import Ge, Gt

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.rows import imported, row_tasks
from agentrl.core.types import Action, Json, Observation, Split, Step, Task
from agentrl.envs.program.endpoint import Asked, Broken, Endpoint, Score, Session, read_score
from agentrl.text.openai import ChatRequest, Reply, messages_of

EXAMPLE = "agentrl.envs.program.example:count"
ENDING_S = 5.0
"""How long a program has to end when its episode is over."""


@dataclass(kw_only=True)
class Conversation(Env):
    """A session as an episode: a call is an observation, its answer an action."""

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 120.0
    takes_text: ClassVar[bool] = True

    patience_s: Annotated[float, Gt(0)] = 110.0
    """Seconds that a program may take from one call to the next (above 0); `rollout.env_timeout_s`
    has to be larger."""

    def __post_init__(self) -> None:
        self._session: Session | None = None
        self._asked: Asked | None = None
        self._replies: list[Reply] = []
        self._tools: tuple[Mapping[str, Json], ...] = ()

    @abstractmethod
    def begin(self, task: Task) -> Session:
        """The session of the task, whose program has been started."""

    @abstractmethod
    def end(self, session: Session) -> None:
        """The episode is over: no call of the session is answered any more."""

    @property
    def who(self) -> str:
        """How messages call the program."""
        return "the program"

    def reset(self, task: Task) -> Observation:
        """Begin, and wait for the first call."""
        self.close_session()
        self._replies = []
        self._session = self.begin(task)
        event = self._next(self._session)
        if isinstance(event, Broken):
            raise EnvError(f"{self.who}: {event.error}")
        if isinstance(event, Score):
            raise EnvError(f"{self.who}: it ended before it called the model")
        self._tools = event.request.tools
        return self._shown(event)

    def step(self, action: Action) -> Step:
        """Answer the call that waits, and wait for the next one or for the end."""
        session, asked = self._session, self._asked
        if session is None or asked is None:
            raise RuntimeError(f"{self.who}: the episode is over (or never began)")
        reply = Reply.of(len(self._replies), action, asked.request)
        self._replies.append(reply)
        self._asked = None
        asked.tell(reply)
        event = self._next(session)
        if isinstance(event, Broken):
            return self.broke(event.error)
        if isinstance(event, Score):
            self.close_session()
            return Step(
                observation="",
                reward=event.reward,
                terminated=True,
                info={"success": event.success},
            )
        return Step(observation=self._shown(event))

    def tools(self, task: Task) -> list[Mapping[str, Json]]:
        """What the first call listed."""
        return list(self._tools)

    def close(self) -> None:
        """End the session."""
        self.close_session()

    def close_session(self) -> None:
        """Whoever waits for a reply is told that there is none."""
        session, self._session = self._session, None
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.tell(None)
        if session is not None:
            self.end(session)

    def broke(self, error: str) -> Step:
        """What an episode comes to whose program failed: a failure of the env."""
        raise EnvError(f"{self.who}: {error}")

    def _next(self, session: Session) -> Asked | Score | Broken:
        try:
            event = session.events.get(timeout=self.patience_s)
        except queue.Empty:
            return Broken(f"it neither called the model nor ended within {self.patience_s:g} s")
        if isinstance(event, Asked):
            self._asked = event
        return event

    def _shown(self, asked: Asked) -> Observation:
        request: ChatRequest = asked.request
        if request.tools != self._tools:
            raise EnvError(
                f"{self.who}: it listed other tools than in its first call; the tools of an "
                "episode stay the same"
            )
        return Observation("", messages=messages_of(request, self._replies), is_whole=True)


@register("env", "program")
@dataclass(kw_only=True)
class Program(Conversation):
    """An agent program that speaks OpenAI's chat API, with tasks and a score of its own."""

    function: str = ""
    """A function `module:name`, called as `run(base_url, task)` in a thread for each episode; it
    returns the reward, or `(reward, success)`. Without it and `command` an example is played."""
    command: str = ""
    """A command line, started for each episode with OPENAI_BASE_URL, OPENAI_API_KEY and
    AGENTRL_TASK (the task as JSON) in its environment; the last line that it prints is its score,
    such as `{"reward": 1.0, "success": true}`."""
    rows: Path | None = None
    """A JSON-lines file of tasks. Without it a task is `{"seed": n}`."""
    seeds: Annotated[int, Ge(1)] = 1_000
    """How many seeds there are without a file; a hash of the task decides its split (2:1:1)."""
    call_timeout_s: Annotated[float, Gt(0)] = 600.0
    """Seconds that a call of the program waits for its reply (above 0)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._run: Callable[..., object] | None = None
        if self.function and self.command:
            raise ConfigError("expected either function or command, and both are given")
        if not self.command:
            told = {"key": "function", "what": "function", "example": EXAMPLE}
            self._run = imported(self.function or EXAMPLE, **told)
        self._endpoint: Endpoint | None = None
        self._process: subprocess.Popen[str] | None = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct rows; equal rows are one task."""
        return row_tasks(self.rows, seeds=self.seeds, prefix="program", split=split)

    @property
    def who(self) -> str:
        """What was asked for."""
        return f"program {self.command or self.function or EXAMPLE}"

    def begin(self, task: Task) -> Session:
        """Start the program."""
        if self._endpoint is None:
            self._endpoint = Endpoint()
        session = self._endpoint.open(self.call_timeout_s)
        base_url = self._endpoint.base_url(session)
        row = cast("Mapping[str, Json]", task.data["row"])
        (self._start_command if self.command else self._start_function)(base_url, row, session)
        return session

    def end(self, session: Session) -> None:
        """End the program."""
        if self._endpoint is not None:
            self._endpoint.drop(session)
        process, self._process = self._process, None
        if process is not None:
            _stop(process)

    def close(self) -> None:
        """End the program and stop listening."""
        super().close()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close()

    # --- the program --------------------------------------------------------------------------

    def _start_function(self, base_url: str, row: Mapping[str, Json], session: Session) -> None:
        run = self._run
        assert run is not None

        def work() -> None:
            try:
                session.events.put(_as_score(run(base_url, row)))
            except Exception as error:  # noqa: BLE001 - the boundary to users' code
                session.events.put(Broken(f"{type(error).__name__}: {error}"))

        threading.Thread(target=work, name="program", daemon=True).start()

    def _start_command(self, base_url: str, row: Mapping[str, Json], session: Session) -> None:
        told = {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": session.name,
            "AGENTRL_TASK": json.dumps(row),
        }
        try:
            process = subprocess.Popen(
                shlex.split(self.command),
                env={**os.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvError(f"{self.who}: it could not be started ({error})") from error
        self._process = process

        def work() -> None:
            out, err = process.communicate()
            lines = out.strip().splitlines()
            if process.returncode:
                text = f"it ended with status {process.returncode}: {err.strip()[-500:]}"
                session.events.put(Broken(text))
                return
            try:
                session.events.put(read_score(lines[-1] if lines else ""))
            except ValueError as error:
                session.events.put(Broken(str(error)))

        threading.Thread(target=work, name="program", daemon=True).start()


def _stop(process: subprocess.Popen[str]) -> None:
    """End a program and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
            return


def _as_score(value: object) -> Score:
    """What a function returned as the score. Raises `TypeError`."""
    reward, success = value if isinstance(value, tuple) else (value, None)
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise TypeError(f"expected a reward, or (reward, success), got {value!r:.100}")
    return Score(float(reward), reward >= 1 if success is None else bool(success))
