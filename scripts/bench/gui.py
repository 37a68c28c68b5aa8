"""Episodes per second in a real browser, beside Farama's own driver of the same tasks.

    .venv-gui/bin/python scripts/bench/gui.py --json docs/results/bench/gui.json

Scripts solve three tasks of MiniWoB++ on the same Chromium: by our env, which shows elements alone
or a screenshot besides, and by the gymnasium env of the package `miniwob`, which drives it through
selenium and always takes a screenshot. One page stands against one, four against four: ours are
contexts of one browser in one event loop, the peer's are envs in processes of their own, as it asks
for. Both arms play the same number of episodes from seeds of their own; only solved ones count, and
what starts before the first episode is not timed. The peer needs `apt-get install
chromium-driver`.

`--browsergym PYTHON` also asks BrowserGym (`browsergym_peer.py`, in the environment of that
interpreter) to solve the tasks, as it comes and with its delays off, one page against one with
screenshots; a few episodes in one round, since each takes it seconds.

A ratio is the median of a case's rounds; a figure is the median of the three tasks, four against
four. `mib_per_context` is
what four further pages add to the memory of all processes (proportional set size).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import measure
from measure import Report, Spread, interleaved, ratios, show

from agentrl.core.errors import MissingExtraError
from agentrl.envs.browser.chromium import find_chromium
from agentrl.envs.browser.pool import close_idle
from agentrl.envs.miniwob.env import MiniWob
from agentrl.envs.miniwob.pages import pages as find_pages

TASKS = ("click-test", "click-button", "enter-text")
PAGES = (1, 4)
WAIT_S = 300.0
PEER = Path(__file__).with_name("browsergym_peer.py")
FEW = 3
"""Episodes that BrowserGym plays of a task, each way."""
SHOWN = {"dom": ("dom",), "screenshot": ("dom", "screenshot")}
measure.PACKAGES = ("agentrl", "playwright", "miniwob", "selenium", "gymnasium")


# --- ours -----------------------------------------------------------------------------------------


class Ours:
    """Pages of one browser, kept open between rounds."""

    def __init__(self, task: str, aspects: Any, pages: int) -> None:
        self.envs = [MiniWob(task=task, observe=aspects) for _ in range(pages)]

    async def play(self, episodes: int) -> float:
        """Solved episodes per second."""
        for env in self.envs:
            await env.reset(env.tasks("train")[0])
        began = time.perf_counter()
        each = episodes // len(self.envs)
        solved = await asyncio.gather(*(self._solve(env, each) for env in self.envs))
        return sum(solved) / (time.perf_counter() - began)

    async def _solve(self, env: MiniWob, episodes: int) -> int:
        solved, tasks = 0, env.tasks("train")
        for number in range(episodes):
            await env.reset(tasks[number])
            step = await env.step(env.expert_action())
            while not (step.terminated or step.truncated):
                step = await env.step(env.expert_action())
            solved += bool(step.info.get("success"))
        return solved

    async def close(self) -> None:
        """Give the pages back."""
        for env in self.envs:
            await env.close()


# --- Farama's -------------------------------------------------------------------------------------


class Farama:
    """The package's envs, each in a process of its own, kept open between rounds."""

    def __init__(self, task: str, envs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        self.processes = []
        for _ in range(envs):
            mine, its = context.Pipe()
            process = context.Process(target=serve, args=(task, its), daemon=True)
            process.start()
            its.close()
            self.lines.append(mine)
            self.processes.append(process)
        for line in self.lines:
            self._answer(line)

    def play(self, episodes: int) -> float:
        """Solved episodes per second."""
        began = time.perf_counter()
        for line in self.lines:
            line.send(episodes // len(self.lines))
        solved = sum(self._answer(line) for line in self.lines)
        return solved / (time.perf_counter() - began)

    def _answer(self, line: Connection) -> int:
        if not line.poll(WAIT_S):
            raise TimeoutError(f"the peer did not answer within {WAIT_S:g} s")
        return int(line.recv())

    def close(self) -> None:
        """End the processes and their browsers."""
        for line in self.lines:
            line.send(0)
        for process in self.processes:
            process.join(30)
            process.kill()


def serve(task: str, line: Connection) -> None:
    """Play as many episodes as asked for, until none is."""
    import gymnasium
    import miniwob
    from miniwob.action import ActionTypes

    gymnasium.register_envs(miniwob)
    env: Any = gymnasium.make(f"miniwob/{task}-v1")
    env.reset(seed=0)
    line.send(0)
    seed = 0
    while episodes := line.recv():
        solved = 0
        for _ in range(episodes):
            seed += 1
            seen, _ = env.reset(seed=seed)
            make = env.unwrapped.create_action
            found = {e["text"]: e["ref"] for e in seen["dom_elements"] if e["tag"] == "button"}
            quoted = seen["utterance"].split('"')[1::2]
            if task == "enter-text":
                [field] = [e["ref"] for e in seen["dom_elements"] if e["tag"] == "input_text"]
                kind = ActionTypes.FOCUS_ELEMENT_AND_TYPE_TEXT
                env.step(make(kind, ref=field, text=quoted[0]))
            button = found[quoted[0]] if task == "click-button" else next(iter(found.values()))
            _, reward, is_over, _, _ = env.step(make(ActionTypes.CLICK_ELEMENT, ref=button))
            solved += bool(is_over and reward > 0)
        line.send(solved)
    env.close()


# --- BrowserGym -----------------------------------------------------------------------------------


def browsergym(python: str, program: Path, task: str, episodes: int) -> dict[str, float]:
    """Its solved episodes per second, as it comes and without delays."""
    pages = find_pages().as_uri()
    variables = {"MINIWOB_URL": f"{pages}/miniwob/", "AGENTRL_CHROMIUM": str(program)}
    found = {}
    for name, options in (("default", []), ("no_delays", ["--no-delays"])):
        done = subprocess.run(
            [python, str(PEER), task, str(episodes), *options],
            env={**os.environ, "PYTHONPATH": "", **variables},
            check=True,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        found[name] = told["solved"] / told["seconds"]
    return found


# --- memory ---------------------------------------------------------------------------------------


def family_pss_mib() -> float:
    """Memory of this process and of all that it started, shared pages counted once."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0.0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10
    return total


async def mib_per_context() -> float:
    """What further pages add, each after an episode."""
    envs = [MiniWob(task="click-button", observe=("dom", "screenshot")) for _ in range(5)]
    before = 0.0
    for env in envs:
        await env.reset(env.tasks("train")[0])
        await env.step(env.expert_action())
        if env is envs[0]:
            before = family_pss_mib()
    grown = family_pss_mib() - before
    for env in envs:
        await env.close()
    return grown / (len(envs) - 1)


# --- the benchmark --------------------------------------------------------------------------------


def case(
    report: Report, loop: asyncio.Runner, task: str, pages: int, has_peer: bool
) -> dict[str, Spread]:
    """One task with so many pages: the ratios by what is shown."""
    arguments = report.arguments
    arms: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:
        for shown, aspects in SHOWN.items():
            ours = Ours(task, aspects, pages)
            stack.callback(lambda ours=ours: loop.run(ours.close()))
            arms[shown] = lambda ours=ours: loop.run(ours.play(arguments.episodes))  # type: ignore[misc]
        if has_peer:
            farama = Farama(task, pages)
            stack.callback(farama.close)
            arms["farama"] = lambda: farama.play(arguments.episodes)
        found = interleaved(arms, arguments.repeats)
    pace = {arm: Spread.of(values) for arm, values in found.items()}
    quotients = {s: ratios(found[s], found["farama"]) for s in SHOWN} if has_peer else {}
    report.case(
        task=task,
        pages=pages,
        episodes_per_s=dict(pace_json(pace)),
        **{f"ratio_farama_{shown}": spread for shown, spread in quotients.items()},
    )
    return quotients


def compare_browsergym(report: Report, program: Path) -> None:
    """A case for each task, and the figures against our one page with screenshots."""
    ours = {c["task"]: c["episodes_per_s"]["screenshot"] for c in report.cases if c["pages"] == 1}
    found: dict[str, list[float]] = {"default": [], "no_delays": []}
    for task, pace in ours.items():
        theirs = browsergym(report.arguments.browsergym, program, task, FEW)
        report.case(task=task, pages=0, browsergym=theirs)
        for name, value in theirs.items():
            found[name].append(pace / value)
    report.figure("ratio_browsergym", statistics.median(found["no_delays"]), ">= 100")
    report.figure("ratio_browsergym_default", statistics.median(found["default"]))


def pace_json(pace: dict[str, Spread]) -> list[tuple[str, float]]:
    """The medians."""
    return [(arm, round(spread.median, 2)) for arm, spread in pace.items()]


def main() -> None:
    """Measure, print, and write."""
    options = measure.parser(__doc__ or "", repeats=5)
    options.add_argument(
        "--episodes", type=int, default=40, metavar="N", help="of a round; default %(default)s"
    )
    options.add_argument(
        "--browsergym", metavar="PYTHON", help="an interpreter that has BrowserGym"
    )
    arguments = options.parse_args()
    driver = os.environ.get("MINIWOB_CHROMEDRIVER") or shutil.which("chromedriver")
    try:
        program = find_chromium()
        MiniWob().tasks("train")
    except (MissingExtraError, ValueError) as error:
        sys.exit(str(error))
    if driver is not None:
        os.environ["MINIWOB_CHROMEDRIVER"] = driver
        os.environ["MINIWOB_CHROME_BINARY"] = str(program)
    report = Report(bench="gui", arguments=arguments)
    rows: list[list[str]] = []
    found: dict[str, list[float]] = {shown: [] for shown in SHOWN}
    with asyncio.Runner() as loop:
        for task in TASKS:
            for pages in PAGES:
                quotients = case(report, loop, task, pages, driver is not None)
                for shown, spread in quotients.items():
                    if pages == PAGES[-1]:
                        found[shown].append(spread.median)
                paces = report.cases[-1]["episodes_per_s"]
                texts = [spread.text() for spread in quotients.values()]
                rows.append([task, str(pages), *(f"{v:.1f}" for v in paces.values()), *texts])
        if arguments.browsergym is not None:
            compare_browsergym(report, program)
        memory = loop.run(mib_per_context())
        loop.run(close_idle())
    heads = [*SHOWN, "Farama", *(f"{s} / Farama" for s in SHOWN)]
    show("Episodes per second", ["task", "pages", *heads[: len(rows[0]) - 2]], rows)
    if driver is None:
        print("Farama's env was not measured: apt-get install chromium-driver")
    else:
        for shown, goal in (("screenshot", ">= 2.5"), ("dom", ">= 4")):
            report.figure(f"ratio_farama_{shown}", statistics.median(found[shown]), goal)
    report.figure("mib_per_context", memory, "<= 80")
    report.finish()


if __name__ == "__main__":
    main()
