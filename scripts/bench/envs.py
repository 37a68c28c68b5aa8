"""What our runners add to environments: a step's cost, and episodes a second beside the bare loop.

    python scripts/bench/envs.py --json docs/results/bench/envs.json

Added cost: an env whose `step` does nothing is played by the worker; an agent answers at once with
tokens that were made before. Noted is the time from the end of one `step` to the begin of the next,
in which the episode is told what the env says, renders its prompt, reads the reply, calls the env
and records the turn. Sampling is not in it. Every observation and reply is another text, so that no
tokens are remembered; `same words` has one text. A call by the runner alone stands beside them.

Episodes: the same tasks with the same actions, those of the env's expert, which were found before.
The peer is the package's own loop: `reset` and `step` of the very same env, one episode after
another, no runner, no messages, no tokens. Ours has 1 to 64 episodes in flight. For BabyAI
minigrid's own `reset(seed)` and `step(number)` stand beside it, which make no words. Memory is what
64 open envs add to a process that has one already, and to those that they start, over 64.

With an interpreter that has openenv-core (`.venv-openenv`, or AGENTRL_OPENENV_VENV), OpenEnv's own
client plays the env that does nothing from `agentrl serve-env`, one step after another.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
from measure import (
    CONSOLE,
    Report,
    Spread,
    family_mib,
    interleaved,
    percentile,
    ratios,
    show,
)
from subjects import GAPS, Noop, words_tokenizer

from agentrl.core.config import load_alone
from agentrl.core.errors import AgentRLError
from agentrl.core.protocols import Agent, Env, EnvHandle, Renderer, Seat
from agentrl.core.registry import find
from agentrl.core.types import Action, Completion, Finish, Task
from agentrl.rollout.answers import as_step
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.runners import runner_for
from agentrl.rollout.strategies.flat import Flat
from agentrl.rollout.worker import Worker
from agentrl.text.context import Full
from agentrl.text.renderer import build_renderer

ROOT = Path(__file__).parents[2]
GOAL_MS = 0.2
IN_FLIGHT = (1, 4, 16, 64)
OPEN = 64
"""Envs that are open at once where memory is measured."""
CASES = {
    "babyai": ("level=GoToLocalS6N2", 64),
    "countdown": ("", 64),
    "game24": ("", 64),
    "sudoku": ("", 64),
    "tools": ("", 64),
    "gymnasium": ("id=FrozenLake-v1", 64),
    "reasoning_gym": ("", 64),
    "bfcl": ("", 64),
    "textworld": ("", 8),
    "scienceworld": ("", 4),
}
"""Env -> its settings, and how many episodes an arm plays."""
WAIT_S = 300.0
OPENENV = """
import asyncio, sys, time
from openenv.core import GenericEnvClient

async def main():
    async with GenericEnvClient(base_url=sys.argv[1], message_timeout_s=20) as env:
        await env.reset(seed=0)
        for turn in range(-20, 200 * int(sys.argv[2])):
            began = time.perf_counter()
            await env.step({"message": "go"})
            if turn >= 0:
                print(1e3 * (time.perf_counter() - began))

asyncio.run(main())
"""
"""Milliseconds of each step by OpenEnv's own client."""


@dataclass
class Script:
    """A task, and what is done in it."""

    task: Task
    actions: list[Action]
    replies: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class Replay:
    """An agent that answers at once with what was made before."""

    scripts: Sequence[Script]

    async def act(self, seat: Seat) -> Completion:
        """The reply of this turn; the last one again where the episode goes on."""
        replies = self.scripts[seat.group].replies
        ids = replies[min(seat.turn, len(replies) - 1)]
        return Completion(ids=ids, logprobs=(0.0,) * len(ids), finish=Finish.EOS)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


def table_for(env: Env) -> Table:
    """Messages as tokens of a small tokenizer; limits that nothing meets."""
    rules = Rules(max_turns=10_000, max_tokens=10**6, max_context=10**9, deadline_s=3600.0)
    renderer: Renderer = build_renderer("plain", words_tokenizer())
    actions = find("actions", env.actions)()
    return Table(renderer=renderer, context=Full(), actions=actions, rules=rules)


def scripted(env: Env, count: int, table: Table) -> list[Script]:
    """The expert's episodes of the first tasks, with its replies as tokens."""
    tasks = env.tasks("test")
    found = []
    for number in range(count):
        script, over = Script(tasks[number], []), False
        env.reset(tasks[number])
        while not over:
            action = env.expert_action()  # type: ignore[attr-defined]
            step = as_step(env.step(action))
            script.actions.append(action)
            over = step.terminated or step.truncated
        script.replies = [table.renderer.reply(table.actions.write(a)) for a in script.actions]
        found.append(script)
    return found


class Ours:
    """The worker, its envs open from round to round."""

    def __init__(self, env: Env, table: Table, scripts: Sequence[Script]) -> None:
        self.env, self.table, self.scripts = env, table, scripts
        self.loop = asyncio.Runner()
        self.workers: dict[int, Worker] = {}

    def play(self, in_flight: int) -> float:
        """Seconds for all scripts."""
        agent: Agent = Replay(self.scripts)
        tasks = [script.task for script in self.scripts]
        worker = self.workers.setdefault(in_flight, self._worker(in_flight))
        began = time.perf_counter()
        groups = self.loop.run(worker.collect(tasks, agent=agent, group_size=1, label="bench"))
        spent = time.perf_counter() - began
        failed = [t.failure for g in groups for t in g.trajectories if t.failure is not None]
        if failed:
            raise SystemExit(f"an episode failed: {failed[0]}")
        return spent

    def _worker(self, in_flight: int) -> Worker:
        return Worker(
            env=self.env,
            runner=runner_for(self.env),
            table=self.table,
            reward=find("reward", "env")(),
            strategy=Flat(),
            seed=0,
            in_flight=in_flight,
        )

    def close(self) -> None:
        """Every env."""
        for worker in self.workers.values():
            self.loop.run(worker.close())
        self.loop.close()


def bare(env: Env, scripts: Sequence[Script]) -> float:
    """Seconds of the package's own loop."""
    began = time.perf_counter()
    for script in scripts:
        env.reset(script.task)
        for action in script.actions:
            env.step(action)
    return time.perf_counter() - began


def minigrid(env: Any, scripts: Sequence[Script]) -> Callable[[], float]:
    """Minigrid's own loop: the same seeds and moves, no words."""
    from agentrl.envs.babyai.game import ACTIONS, level_id, make

    game = make(level_id(env.level))
    names = list(ACTIONS)
    moves = [(s.task.seed, [names.index(str(a)) for a in s.actions]) for s in scripts]

    def play() -> float:
        began = time.perf_counter()
        for seed, actions in moves:
            game.reset(seed=seed)
            for action in actions:
                game.step(action)
        return time.perf_counter() - began

    return play


def added(report: Report, repeats: int, episodes: int) -> None:
    """The cost of a step that does nothing."""
    alone = Spread.of([call_ms(Noop(), 2_000) for _ in range(repeats)])
    rows: dict[str, tuple[Spread, Spread | None]] = {}
    for name, news in (("a turn", True), ("a turn, same words", False)):
        medians, tails, shares = turn_ms(Noop(news=news), repeats, episodes)
        rows[name] = (medians, tails)
        rows[f"{name}, mean with 64 in flight"] = (shares, None)
    rows["a call by the runner"] = (alone, None)
    for name, (middle, tail) in rows.items():
        report.case(what=name, ms=middle, p99_ms=tail)
    show(
        "Added by a step, ms",
        ["what", "median", "99th percentile"],
        [[n, m.text(".4f"), t.text(".4f") if t else ""] for n, (m, t) in rows.items()],
    )
    report.figure("added_ms_per_step", rows["a turn"][0].median, f"at most {GOAL_MS:g}")
    report.figure("added_ms_per_step_p99", rows["a turn"][1].median)  # type: ignore[union-attr]
    report.figure("added_ms_per_call", alone.median)


def turn_ms(env: Noop, repeats: int, episodes: int) -> tuple[Spread, Spread, Spread]:
    """Median and 99th percentile of the gaps; the mean of whole episodes, 64 in flight."""
    table = table_for(env)
    scripts = []
    for task in env.tasks("test")[:episodes]:
        said = [env.words() if env.news else "go" for _ in range(env.turns)]
        scripts.append(Script(task, list(said), [table.renderer.reply(text) for text in said]))
    ours = Ours(env, table, scripts)
    medians, tails, shares = [], [], []
    ours.play(1)
    for _ in range(repeats):
        GAPS.clear()
        ours.play(1)
        medians.append(1e3 * statistics.median(GAPS))
        tails.append(1e3 * percentile(GAPS, 0.99))
        shares.append(1e3 * ours.play(64) / (episodes * env.turns))
    ours.close()
    return Spread.of(medians), Spread.of(tails), Spread.of(shares)


def call_ms(env: Noop, calls: int) -> float:
    """Milliseconds of one call by the inline runner."""

    async def call() -> float:
        runner = runner_for(env)
        handle = await runner.open(env)
        await runner.call(handle, "reset", env.tasks("test")[0])
        began = time.perf_counter()
        for _ in range(calls):
            await runner.call(handle, "step", "go")
        spent = time.perf_counter() - began
        await runner.close(handle)
        return 1e3 * spent / calls

    return asyncio.run(call())


# --- episodes a second ----------------------------------------------------------------------------


def episodes(name: str, report: Report, repeats: int, share: float) -> list[str] | None:
    """A row of the table; None, with the reason said, for an env that cannot be played here."""
    settings, count = CASES[name]
    count = max(2, int(count * share))
    try:
        env = load_alone(name, settings.split()).env
        table = table_for(env)
        scripts = scripted(env, count, table)
    except AgentRLError as error:
        reason = str(error).partition(" (known")[0]
        CONSOLE.print(f"{name}: not measured: {reason}", markup=False)
        report.case(env=name, missing=reason)
        return None
    ours = Ours(env, table, scripts)
    arms: dict[str, Callable[[], float]] = {"bare": lambda: bare(env, scripts)}
    if name == "babyai":
        arms["minigrid"] = minigrid(env, scripts)
    for in_flight in IN_FLIGHT:
        arms[str(in_flight)] = lambda n=in_flight: ours.play(n)  # type: ignore[misc]
    for arm in arms.values():
        arm()
    found = interleaved(arms, repeats)
    ours.close()
    env.close()
    steps = sum(len(script.actions) for script in scripts)
    pace = {arm: Spread.of([count / s for s in seconds]) for arm, seconds in found.items()}
    speeds = {str(n): ratios(found["bare"], found[str(n)]) for n in IN_FLIGHT}
    per_env = memory_mib(name)
    report.case(
        env=name,
        settings=settings,
        runs_in=env.runs_in,
        episodes=count,
        steps=steps,
        episodes_per_s={arm: spread.median for arm, spread in pace.items()},
        **{f"ratio_{n}": spread for n, spread in speeds.items()},
        added_ms=Spread.of(
            [1e3 * (a - b) / steps for a, b in zip(found["1"], found["bare"], strict=True)]
        ),
        env_mib=per_env,
    )
    return [
        name,
        env.runs_in,
        f"{pace['bare'].median:.0f}",
        *(f"{pace[str(n)].median:.0f} ({speeds[str(n)].median:.2f})" for n in IN_FLIGHT),
        f"{per_env:.2f}",
    ]


def memory_mib(name: str) -> float:
    """What an open env takes, in a process that has done nothing else, and in those it starts."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_open_many, args=(name, its))
    process.start()
    its.close()
    try:
        if not mine.poll(WAIT_S):
            raise TimeoutError(f"no figure within {WAIT_S:g} s")
        found: float = mine.recv()
    finally:
        process.kill()
        process.join()
    return found


def _open_many(name: str, line: Any) -> None:
    settings, count = CASES[name]
    env = load_alone(name, settings.split()).env
    many = OPEN if env.runs_in != "process" else 4
    tasks = [env.tasks("test")[number % count] for number in range(many + 1)]

    async def open_all() -> float:
        runner = runner_for(env)
        handles: list[EnvHandle] = []
        before = 0.0
        for task in tasks:
            handles.append(await runner.open(env))
            await runner.call(handles[-1], "reset", task)
            if len(handles) == 1:  # what the first one imports is there once
                gc.collect()
                before = family_mib()
        grown = family_mib() - before
        for handle in handles:
            await runner.close(handle)
        return max(0.0, grown) / many

    line.send(asyncio.run(open_all()))


# --- OpenEnv --------------------------------------------------------------------------------------


def openenv(report: Report, repeats: int) -> None:
    """The same env behind a server, stepped by OpenEnv's own client."""
    venv = ROOT / os.environ.get("AGENTRL_OPENENV_VENV", ".venv-openenv")
    python = venv / "bin" / "python"
    if not python.exists():
        CONSOLE.print(f"OpenEnv: not measured: openenv-core is not in {venv}")
        report.case(openenv="absent")
        return
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with served() as address:
        done = subprocess.run(
            [str(python), "-c", OPENENV, address, str(repeats)],
            env=clean,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    if done.returncode:
        CONSOLE.print(f"OpenEnv: not measured: {done.stderr[-300:]}", markup=False)
        report.case(openenv="failed")
        return
    steps = [float(line) for line in done.stdout.split()]
    rounds = [steps[at : at + 200] for at in range(0, len(steps), 200)]
    medians = [statistics.median(one) for one in rounds]
    tails = [percentile(one, 0.99) for one in rounds]
    middle, tail = Spread.of(medians), Spread.of(tails)
    report.case(openenv="measured", ms=middle, p99_ms=tail)
    show("A step by OpenEnv's client, ms", ["median", "p99"], [[middle.text(), tail.text()]])
    report.figure("openenv_ms_per_step", middle.median)


@contextmanager
def served() -> Iterator[str]:
    """`agentrl serve-env` of the env that does nothing, once it answers."""
    import httpx

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    code = (
        "import sys; sys.path.insert(0, 'scripts/bench'); import subjects; "
        "from agentrl.cli import main; "
        f"sys.exit(main(['serve-env', 'bench_noop', '--port', '{port}', 'turns=1000000']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    address, due = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            try:
                if httpx.get(f"{address}/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > due:
                raise SystemExit("agentrl serve-env does not answer")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def main() -> None:
    """Measure, and name the figures."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--envs", nargs="+", default=list(CASES), help="of the second table")
    options.add_argument("--share", type=float, default=1.0, help="of the episodes (%(default)s)")
    arguments = options.parse_args()
    report = Report(bench="envs", arguments=arguments)
    added(report, arguments.repeats, max(2, int(64 * arguments.share)))
    rows = [
        row
        for name in arguments.envs
        if (row := episodes(name, report, arguments.repeats, arguments.share)) is not None
    ]
    heads = ["env", "runs", "bare", *(f"{n} in flight" for n in IN_FLIGHT), "MiB"]
    show("Episodes a second (over the bare loop's)", heads, rows)
    openenv(report, arguments.repeats)
    report.finish()


if __name__ == "__main__":
    main()
