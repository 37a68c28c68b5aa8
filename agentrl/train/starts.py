"""Where a run's training episodes begin: the sampler is opened, asked, and told what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.types import Group, Sum, Trajectory
from agentrl.train.run import Run
from agentrl.train.warm_start import archive_folder


def open_starts(run: Run) -> None:
    """From here on, training episodes begin where the sampler says; evaluations never do.

    Raises:
        ConfigError: there is no archive to begin in.
    """
    if run.config.start is not None:
        run.config.start.open(archive_folder(run))
        run.stage.worker.starts = run.config.start


def observed(run: Run, groups: Sequence[Group]) -> dict[str, Sum]:
    """Metrics of a step's starts, after its groups were told to the sampler; none without one."""
    if run.config.start is None:
        return {}
    run.config.start.observe(groups, run.share_done)
    episodes = [t for g in groups for t in g.trajectories if not t.stop.is_failure]
    away = [bool(group.start.actions) for group in groups]
    return {
        "start/away": Sum(float(sum(away)), float(len(away))),
        "start/success": begun(episodes, away=True),
        **run.config.start.metrics(),
    }


def begun(episodes: Sequence[Trajectory], *, away: bool) -> Sum:
    """Success of the episodes that began in a cell, or of those that began at the task's start."""
    these = [bool(t.success) for t in episodes if bool(t.start.actions) == away]
    return Sum(float(sum(these)), float(len(these)))
