"""Episodes in a browser under faults: noticed in time, counted as the env's, and no harm to others.

The real worker plays MiniWoB++ by its expert; before the first action of every other episode
something is done to the page or its browser.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agentrl.core.protocols import Completion, Seat
from agentrl.core.types import Group, Stop, Trajectory
from agentrl.envs.browser.page import PageLease
from agentrl.envs.browser.pool import BrowserError, BrowserSettings, close_idle, lease
from agentrl.envs.miniwob.env import MiniWob
from agentrl.rollout.agents import ExpertAgent
from agentrl.rollout.runners import InlineHandle
from agentrl.rollout.worker import SIBLINGS
from agentrl.text.actions.gui import GuiWords
from support.play import renderer, table, worker

pytestmark = pytest.mark.browser

LIMIT_S = 8.0
SLACK_S = 25.0
"""What giving back, relaunching and a busy machine may add to a deadline."""
HUNG_S = 2.0
"""The limit of a page that hangs: it eats a core as long as that."""
IN_FLIGHT = 4
ENV = MiniWob(
    task=("click-button", "enter-text"),
    browser=BrowserSettings(timeout_s=LIMIT_S, episodes_per_context=25, leases_per_browser=100),
)
HANGS = "() => { __wob.pass = () => { for (;;) {} }; }"
STORMS = "() => { __wob.pass = () => { for (;;) alert('again'); }; }"
SAVES = """() => {
  const link = document.createElement("a");
  link.href = "data:text/plain,x";
  link.download = "x";
  link.click();
}"""
FAULTS = ("away", "hang", "crash", "storm", "download", "kill", "full")
LOST = {"hang", "crash", "storm", "kill"}
"""Faults that cost the episode."""
DYING = ("the browser ended", "the page was closed")
"""What is said of pages that a browser took with it."""
SHARED = {"kill", "full"}
"""Faults of the browser: they may cost whatever else is in it."""


async def disturb(fault: str, page_lease: PageLease) -> None:
    """Do it to a page, and wait until it is done."""
    page, browser = page_lease.page, page_lease._browser
    assert browser.pid is not None
    if fault in ("hang", "storm"):
        await page.evaluate(HANGS if fault == "hang" else STORMS)
    elif fault == "crash":
        with suppress(browser.error):
            await page.goto("chrome://crash")
    elif fault == "away":
        await page.goto("about:blank")
    elif fault == "download":
        await page.evaluate(SAVES)
        async with asyncio.timeout(LIMIT_S):
            while not page_lease.counts["downloads"]:
                await asyncio.sleep(0.01)
    elif fault == "kill":
        os.kill(browser.pid, signal.SIGKILL)
    else:  # a disk without room for it: every write of the browser to a file fails
        resource.prlimit(browser.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@dataclass(kw_only=True)
class Saboteur:
    """Sits in the expert's seat and disturbs every other episode."""

    expert: ExpertAgent = field(
        default_factory=lambda: ExpertAgent(renderer=renderer(), actions=GuiWords())
    )
    done: dict[int, str] = field(default_factory=dict)
    """Episode number -> fault."""
    begun: int = 0

    async def act(self, seat: Seat) -> Completion:
        if seat.turn == 0:
            self.begun += 1
            fault = "" if self.begun % 2 else FAULTS[self.begun // 2 % len(FAULTS)]
            self.done[seat.episode] = fault
            assert isinstance(seat.env, InlineHandle)
            assert isinstance(seat.env.env, MiniWob)
            held = seat.env.env._lease
            if fault and held is not None and not held.is_broken:
                if fault == "hang":
                    held.limit_s = HUNG_S
                with suppress(Exception):  # another fault may be quicker
                    await disturb(fault, held)
        return await self.expert.act(seat)

    async def end(self, episode: int) -> None:
        """Nothing to free."""


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants() -> list[str]:
    """Command lines of the processes below this one that still run."""
    found, parents = [], {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parents[int(folder.name)] = (int(parent), state, line)
    for pid, (_, state, line) in parents.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above][0]
        if above == os.getpid() and pid != above and state != "Z":
            found.append(line)
    return found


def folders() -> set[Path]:
    return set(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"agentrl-browser-{os.getpid()}-*"))


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of the episodes."""

    episodes: list[tuple[str, Trajectory]]
    """Each with its fault."""
    groups: list[Group]
    memory: list[float]
    """MiB of this process after each batch."""


def played(count: int, batch: int) -> Played:
    """Play so many episodes, a batch after another."""
    saboteur, found = Saboteur(), Played(episodes=[], groups=[], memory=[])
    by = worker(
        ENV,
        at=replace(table(max_context=4000, deadline_s=120.0), actions=GuiWords()),
        in_flight=IN_FLIGHT,
    )
    tasks = ENV.tasks("train")

    async def whole() -> None:
        try:
            for step in range(count // batch):
                mine = [tasks[(step * batch // 2 + i) % len(tasks)] for i in range(batch // 2)]
                saboteur.done.clear()
                groups = await by.collect(
                    mine, agent=saboteur, group_size=2, label="train", step=step
                )
                found.groups.extend(groups)
                found.episodes.extend(
                    (saboteur.done.get(SIBLINGS * g + s, ""), one)
                    for g, group in enumerate(groups)
                    for s, one in enumerate(group.trajectories)
                )
                found.memory.append(resident_mib())
        finally:
            await by.close()
            await close_idle()

    asyncio.run(whole())
    return found


@pytest.mark.parametrize(
    ("count", "batch"),
    [
        pytest.param(60, 20, id="60", marks=[pytest.mark.timeout(400)]),
        pytest.param(2000, 100, id="2000", marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_faults_cost_their_own_episode_in_time_and_leave_nothing(count: int, batch: int) -> None:
    found = played(count, batch)
    tally = Counter(fault for fault, _ in found.episodes)
    assert len(found.episodes) == count
    assert set(tally) == {"", *FAULTS}
    shared = sum(tally[fault] for fault in SHARED)
    beside = 0
    for fault, one in found.episodes:
        if one.failure is None:
            assert fault not in LOST, (fault, one.stop)
            assert one.success is (fault != "away"), (fault, one.stop, one.turns)
            assert one.score is not None
        else:
            assert one.failure.where == "env"
            assert one.stop in (Stop.ERROR, Stop.TIMEOUT)
            assert one.score is None
            assert one.success is None
            assert one.seconds < LIMIT_S + SLACK_S
            if fault not in LOST:
                beside += 1
                assert fault in SHARED or any(words in one.failure.error for words in DYING)
        assert one.metrics.get("navigations", 0.0) == (fault == "away" and one.failure is None)
        assert one.metrics.get("downloads", 0.0) == (fault == "download" and one.failure is None)
    assert beside <= shared * IN_FLIGHT
    hung = [one.failure for fault, one in found.episodes if fault == "hang"]
    noticed = [
        f"did not answer within {HUNG_S:g} s" in one.error for one in hung if one is not None
    ]
    assert sum(noticed) > len(hung) / 4 - 2, "the others died with a browser"
    for group in found.groups:
        alive = tuple(i for i, one in enumerate(group.trajectories) if one.failure is None)
        assert group.scored == alive
    until(lambda: not descendants() and not folders())
    assert descendants() == []
    assert folders() == set()
    half = len(found.memory) // 2
    assert found.memory[-1] - found.memory[half - 1 if half else 0] < 40, found.memory


def test_a_disk_without_room_is_an_error_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(prefix: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), prefix)

    async def script() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.mkdtemp", refuse)
            with pytest.raises(BrowserError, match="No space left on device"):
                await lease(BrowserSettings(), viewport=(100, 100))
        page_lease = await lease(BrowserSettings(), viewport=(100, 100))
        assert await page_lease.is_healthy()
        await page_lease.give_back()
        await close_idle()

    asyncio.run(script())
