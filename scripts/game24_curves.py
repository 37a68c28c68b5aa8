"""Game of 24, puzzles 900 to 999: how many a search solves within how many operations.

    python scripts/game24_curves.py                     # every search, then the page
    python scripts/game24_curves.py --only dfs bfs      # these anew
    python scripts/game24_curves.py --model FOLDER      # a small model leads, too
    python scripts/game24_curves.py --held-out FILE     # these puzzles, not to be learned from
    python scripts/game24_curves.py --page              # only write the page

The game is that of Intelligent Go-Explore (Lu et al. 2024, arXiv 2405.15143): an operation is a
pair of places and one of four signs, illegal divisions cost one and end a walk. All searches are
explorers of this package, with one archive and different selectors. The list of puzzles is not part
of the package: `--puzzles` names a JSON file with 1,362 of them. Results are kept in
docs/results/search/.
"""

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from agentrl.core.protocols import Explorer
from agentrl.core.types import Action, Task
from agentrl.envs.game24 import Game24, moves
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.ige import IntelligentGoExplore
from agentrl.explore.proposers.checkpoint import Checkpoint
from agentrl.explore.selectors.counts import CountWeighted
from agentrl.explore.selectors.frontier import Frontier
from agentrl.explore.selectors.latent import Latent
from agentrl.explore.selectors.start import FromStart
from agentrl.explore.selectors.ucb import Ucb
from agentrl.rollout.runners import runner_for

ROOT = Path(__file__).parent.parent
PUZZLES = ROOT.parent / "shared" / "data" / "game24.json"
KEPT = ROOT / "docs" / "results" / "search"
PAGE = ROOT / "docs" / "exploration-game24.md"
PICTURE = ROOT / "docs" / "exploration-game24.svg"
BUDGET = 700
WITHIN = (50, 150, 300, 700)
COMMON = {"budget": BUDGET, "tasks": 100}
UNTRIED = CountWeighted(only_untried=True)
SEARCHES: dict[str, tuple[str, Explorer, int]] = {
    "dfs": (
        "depth first: `selector={name: frontier, order: newest} order=listed steps=1`",
        GoExplore(**COMMON, steps=1, order="listed", selector=Frontier(order="newest")),
        1,
    ),
    "bfs": (
        "breadth first: `selector={name: frontier, order: oldest} order=listed steps=1`",
        GoExplore(**COMMON, steps=1, order="listed", selector=Frontier(order="oldest")),
        1,
    ),
    "random": (
        "random episodes: `selector=start untried=false steps=3`",
        GoExplore(**COMMON, steps=3, untried=False, selector=FromStart()),
        3,
    ),
    "counts": (
        "Go-Explore: `selector={name: counts, only_untried: true} steps=3`",
        GoExplore(**COMMON, steps=3, selector=UNTRIED),
        3,
    ),
    "ucb": ("`selector=ucb steps=3`", GoExplore(**COMMON, steps=3, selector=Ucb()), 3),
    "latent": ("`selector=latent steps=3`", GoExplore(**COMMON, steps=3, selector=Latent()), 3),
    "frontier": (
        "`selector=frontier steps=3`",
        GoExplore(**COMMON, steps=3, selector=Frontier()),
        3,
    ),
}
"""Name -> what the page says, the explorer, and how many seeds."""
LED = "led"
"""The search that a small model leads."""
PUBLISHED = {
    "dfs": (33, 65, 91, 100),
    "bfs": (0, 1, 52, 100),
    "random": (12, 32, 54, 76),
    "counts": (25, 61, 89, 100),
}
"""Share solved by an independent implementation, to compare with."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#8a6d00", "#56a8e0", "#444444", "#dd2222")


@dataclass(kw_only=True)
class Customary(Game24):
    """Every pair of places is an action of its own, those of equal numbers and illegal divisions
    too; equal ones are told apart by spaces, which the game does not mind."""

    def legal_actions(self) -> list[Action]:
        """24, 12 or 4 of them."""
        seen: dict[str, int] = {}
        found: list[Action] = []
        for move in moves(self._playing().numbers, "restricted"):
            text = str(move)
            seen[text] = seen.get(text, 0) + 1
            found.append(text.replace("calc ", f"calc{' ' * seen[text]}"))
        return found


def firsts(how: Explorer, puzzles: list[list[int]], seed: int) -> list[int | None]:
    """Operations until each puzzle was solved, None where it was not."""
    tasks = [Task(id=f"puzzle/{i}", seed=i, data={"numbers": p}) for i, p in enumerate(puzzles)]
    env = Customary()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        found = asyncio.run(
            how.find(tasks, env, runner_for(env), where, seed=seed, say=lambda text: None)
        )
    return [one.first for one in found]


def measure(name: str, what: str, how: Explorer, seeds: int, puzzles: list[list[int]]) -> None:
    """Run one search and keep what it took."""
    began = time.process_time()
    runs = [firsts(how, puzzles, seed) for seed in range(1, seeds + 1)]
    seconds = round(time.process_time() - began, 1)
    KEPT.mkdir(parents=True, exist_ok=True)
    told = {"what": what, "runs": runs, "cpu_seconds": seconds}
    (KEPT / f"game24-{name}.json").write_text(json.dumps(told) + "\n")
    print(name, [round(solved(runs, most), 1) for most in WITHIN], f"{seconds} CPU s")


def led(folder: str) -> Explorer:
    """The small model says what is done; counts say where, and everything is kept."""
    return IntelligentGoExplore(
        **COMMON,
        steps=3,
        selector=UNTRIED,
        proposer=Checkpoint(path=folder, style="act", temperature=1.0, max_tokens=10),
        chooses_state=False,
        keeps=False,
        history=0,
    )


def solved(runs: list[list[int | None]], most: int) -> float:
    """Percent of puzzles within so many operations, mean over seeds."""
    return fmean(
        100 * sum(first is not None and first <= most for first in run) / len(run) for run in runs
    )


def kept() -> dict[str, dict[str, object]]:
    """What was measured."""
    order = [*SEARCHES, LED]
    paths = {name: KEPT / f"game24-{name}.json" for name in order}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def write_page() -> None:
    """The table and the picture."""
    lines = [
        "# Game of 24: searches by their operations",
        "",
        "Puzzles 900 to 999 of the customary list under the rules of Intelligent Go-Explore "
        "([Lu et al. 2024](https://arxiv.org/abs/2405.15143)): share solved (%) within so many "
        "operations, means over seeds. Each search is an explorer of this package with another "
        "selector; `python scripts/game24_curves.py` makes this page.",
        "",
        "![share solved against operations](exploration-game24.svg)",
        "",
        f"| search | seeds | {' | '.join(map(str, WITHIN))} | last | to compare |",
        f"|---|---|{'---|' * len(WITHIN)}---|---|",
    ]
    for name, told in kept().items():
        runs: list[list[int | None]] = told["runs"]  # type: ignore[assignment]
        shares = " | ".join(f"{solved(runs, most):.0f}" for most in WITHIN)
        every = [first for run in runs for first in run]
        last = max(first for first in every if first is not None)
        beyond = "" if None not in every else f" ({every.count(None) / len(runs):.0f} unsolved)"
        other = " / ".join(map(str, PUBLISHED[name])) if name in PUBLISHED else ""
        lines.append(f"| {told['what']} | {len(runs)} | {shares} | {last}{beyond} | {other} |")
    lines += [
        "",
        "*To compare* is what an independent implementation of the same rules gave; depth first "
        "and breadth first search are deterministic and must agree exactly.",
    ]
    if LED in kept():
        lines += [
            "",
            "The model that leads has learned the expert's steps on other puzzles "
            "(`scripts/game24-proposer.yaml`; none of these hundred: `env.puzzles` holds them out) "
            "and is asked for actions "
            "only: `explore={name: intelligent_go_explore, proposer: {name: checkpoint, style: "
            "act}, chooses_state: false, keeps: false}`. The published search asks GPT-4 for all "
            "three choices.",
        ]
    PAGE.write_text("\n".join(lines) + "\n")
    PICTURE.write_text(picture())


def picture() -> str:
    """Share solved against operations, as SVG."""
    width, height, left, right, top, bottom = 720, 380, 46, 110, 14, 40
    across = (width - left - right) / BUDGET
    down = (height - top - bottom) / 100
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for share in (0, 25, 50, 75, 100):
        y = height - bottom - share * down
        parts.append(f'<path d="M{left} {y}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share}</text>')
    for most in (0, 100, 200, 300, 400, 500, 600, 700):
        x, y = left + most * across, height - bottom + 18
        parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{most}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">operations</text>')
    ends: list[tuple[float, str, str]] = []
    for (name, told), colour in zip(kept().items(), COLOURS, strict=False):
        runs: list[list[int | None]] = told["runs"]  # type: ignore[assignment]
        shares = [(most, solved(runs, most)) for most in range(0, BUDGET + 1, 5)]
        path = "L".join(
            f"{left + most * across:.1f} {height - bottom - share * down:.1f}"
            for most, share in shares
        )
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        ends.append((height - bottom - shares[-1][1] * down, name, colour))
    parts += _names(ends, width - right + 8)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _names(ends: list[tuple[float, str, str]], x: float) -> list[str]:
    """The names of the curves beside their ends, none upon another."""
    found, lowest = [], 0.0
    for y, name, colour in sorted(ends):
        lowest = max(y + 4, lowest + 14)
        found.append(f'<text x="{x}" y="{lowest:.1f}" fill="{colour}">{name}</text>')
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puzzles", type=Path, default=PUZZLES)
    parser.add_argument("--only", nargs="*", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--model", help="folder of a model that leads a search")
    parser.add_argument("--held-out", type=Path, help="write the hundred, for env.puzzles, and end")
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    if given.held_out:
        puzzles = json.loads(given.puzzles.read_text())["puzzles"][900:1000]
        given.held_out.write_text(json.dumps({"test": puzzles}) + "\n")
        return
    if not given.page:
        puzzles = json.loads(given.puzzles.read_text())["puzzles"][900:1000]
        if given.model:
            measure(LED, "led by a small model", led(given.model), 1, puzzles)
        for name in () if given.model else given.only:
            measure(name, *SEARCHES[name], puzzles)
    write_page()


if __name__ == "__main__":
    main()
