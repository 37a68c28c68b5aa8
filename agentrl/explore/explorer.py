"""What explorers have in common: tasks one after another, one archive, one env."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Asks, CellKeys, CellSelector, Found, Proposer, Voice
from agentrl.core.protocols import Env, Runner, abilities
from agentrl.core.seeds import derive_seed
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Task
from agentrl.explore.archive import Archive
from agentrl.explore.ground import Ground, Restore, check_explorable
from agentrl.explore.school import School
from agentrl.explore.visits import Visits


@dataclass(frozen=True, kw_only=True)
class ArchiveExplorer:
    """Explores each task from its own start; those that derive say how one is visited."""

    tasks: Annotated[int, Ge(1)] = 40
    """Train tasks that are explored (1 or more)."""
    budget: Annotated[int, Ge(1)] = 4_000
    """Env steps for each task at most (1 or more); replayed ones count."""
    steps: Annotated[int, Ge(1)] = 10
    """Actions of one visit (1 or more)."""
    more: Annotated[int, Ge(0)] = 0
    """Env steps that a task is explored on after its first success, to find shorter ways."""
    shortcuts: bool = False
    """Go to a cell by the fewest actions that were seen, if those that led there were more: what
    lies behind it comes within the episode's limit. For envs without chance."""
    tidy: bool = False
    """Play the way to a success without each of its actions, and with neighbours in the order of
    their texts, and keep what succeeds (`explore/tidying.py`): no detours, and demonstrations of
    several tasks agree. Counts as `budget` does; for envs without chance."""
    lessons: Annotated[int, Ge(0)] = 0
    """Demonstrations of a solved task that are played by a plan of all that was seen of it: the
    first from its start, the others from cells beside that way (`explore/plans.py`). 0 plays the
    shortest way alone."""
    hindsight: Annotated[int, Ge(0)] = 0
    """Further demonstrations of each explored task, for goals that were reached on the way and are
    those of other tasks (`explore/hindsight.py`)."""
    selector: Annotated[CellSelector, Slot("selector")] = field(
        default_factory=DefaultPart("selector", "counts")
    )
    """Which cell is returned to."""
    cells: Annotated[CellKeys, Slot("cells")] = field(default_factory=DefaultPart("cells", "exact"))
    """Which states are one cell."""
    restore: Restore = "auto"
    """By snapshot, or by replaying actions; `auto` takes snapshots where the env has them."""

    def check(self, env: Env) -> None:
        """Refuse an env that cannot be explored. Raises `ConfigError`."""
        check_explorable(env, self.restore, needs_state_key=self.cells.needs_state_key)
        if self.hindsight and "hindsight" not in abilities(env):
            raise ConfigError(
                f"explore.hindsight: env {type(env).__name__} has no hindsight(), which would name "
                "the task that was reached; leave it at 0"
            )

    def visits(self, ground: Ground, rng: Random) -> Visits:
        """One task while it is explored."""
        raise NotImplementedError

    def asked(self) -> list[Proposer]:
        """Whom it asks while it explores."""
        return [self.selector.proposer] if isinstance(self.selector, Asks) else []

    async def find(
        self,
        tasks: Sequence[Task],
        env: Env,
        runner: Runner,
        folder: Path,
        *,
        seed: int,
        say: Callable[[str], None],
        voice: Voice | None = None,
    ) -> list[Found]:
        """Explore each task. One whose env fails is counted as failed; what it saw is kept."""
        found: list[Found] = []
        others: list[Found] = []
        school = School(count=self.lessons, seed=seed)
        handle = await runner.open(env)
        try:
            for proposer in self.asked():
                await proposer.start(folder, voice)
            with Archive(folder / "archive.sqlite") as archive:
                for task in tasks:
                    ground = Ground(
                        task=task,
                        env=handle,
                        runner=runner,
                        restore=self.restore,
                        name=self.cells.namer(),
                    )
                    visits = self.visits(ground, Random(derive_seed(seed, "explore", task.id)))
                    found.append(await visits.explore())
                    others += visits.others
                    if found[-1].failure is not None:
                        await runner.close(handle, is_broken=True)
                        handle = await runner.open(env)
                    if visits.graph is not None:
                        archive.merge(task.id, visits.graph)
                        if self.lessons:
                            school.attend(visits)
                    if len(found) % max(len(tasks) // 5, 1) == 0 or len(found) == len(tasks):
                        say(_progress(found, len(tasks)))
        finally:
            for proposer in self.asked():
                await proposer.close()
            await runner.close(handle)
        return [*(school.taught(found) if self.lessons else found), *others]


def _progress(found: Sequence[Found], count: int) -> str:
    solved = sum(bool(one.ways) for one in found)
    failed = sum(one.failure is not None for one in found)
    return (
        f"explore: {len(found)} of {count} tasks, {solved} solved"
        f"{f', {failed} failed' if failed else ''}, {sum(one.cells for one in found):,} cells, "
        f"{sum(one.steps for one in found):,} env steps"
    )
