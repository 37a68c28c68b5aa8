"""From groups to batches: fold, what the estimator needs, advantages, micro-batches.

Statistics are taken over trajectories before anything is cut; micro-batches hold whole trajectories
and at most a budget of tokens, counted as the scorer computes them. Axes: `B` rows, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from agentrl.algo.spread import TokenAdvantages
from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Filter, Parallel, Scorer
from agentrl.core.tensors import Batch
from agentrl.core.types import Group, Row, Sum
from agentrl.train.score import evaluating, padded


@dataclass(frozen=True, kw_only=True)
class TrainRow:
    """A row with everything that its loss needs; the lists have the row's length."""

    row: Row
    advantages: TokenAdvantages
    old_logprobs: tuple[float, ...] | None = None
    ref_logprobs: tuple[float, ...] | None = None
    entropies: tuple[float, ...] | None = None
    """Under the weights that gave `old_logprobs` (nats)."""
    values: tuple[float, ...] | None = None
    """The critic's, of the state before each token."""
    value_after: float | None = None
    """The critic's, of the state behind the last token."""
    targets: tuple[float, ...] | None = None
    """What the critic should have said of each token's state; NaN where nothing is known."""

    @classmethod
    def blank(cls, row: Row) -> TrainRow:
        """A row that has not got its advantages yet."""
        return cls(row=row, advantages=TokenAdvantages((0.0,) * len(row.ids), row.mask))

    @property
    def key(self) -> tuple[int, int]:
        """(group, trajectory): rows with one key are never parted."""
        return self.row.group, self.row.trajectory

    @property
    def n_trained(self) -> int:
        """Trained tokens."""
        return sum(self.advantages.mask)

    @property
    def is_idle(self) -> bool:
        """No token of it has an advantage: its policy gradient is exactly zero."""
        return not any(self.advantages.values)


FILLER = TrainRow(
    row=Row(
        ids=(0, 0),
        mask=(False, True),
        inherited=(False, False),
        sampler_logprobs=(0.0, 0.0),
        turn_of=(-1, 0),
        versions=(-1, 0),
        trajectory=-1,
        group=-1,
    ),
    advantages=TokenAdvantages((0.0, 0.0), (False, False)),
    old_logprobs=(0.0, 0.0),
    ref_logprobs=(0.0, 0.0),
)
"""What a rank scores that has fewer micro-batches than another: the forward and backward pass
happen, no token of it is trained, and its gradient is exactly zero."""


def usable(
    groups: Sequence[Group], chosen_by: Filter | None = None
) -> tuple[list[Group], dict[str, Sum]]:
    """The groups with at least two scored trajectories that the filter keeps, and what was left
    out. `groups/frac_zero_std` is of those before the filter.

    Raises:
        TrainingError: a group's goal was set in hindsight, so that its actions are not on policy.
    """
    for group in groups:
        if group.task.hindsight_of is not None:
            raise TrainingError(
                f"a group of task {group.task.id}, whose goal was set in hindsight, came to be "
                "trained on policy; such tasks are demonstrations alone"
            )
    kept = [group for group in groups if len(group.scored) >= 2]
    episodes = [t for group in groups for t in group.trajectories]
    unscored = sum(not t.is_scored and not t.stop.is_failure for t in episodes)
    failures: dict[str, int] = {"env": 0, "engine": 0, "reward": 0}
    for trajectory in episodes:
        if trajectory.failure is not None:
            failures[trajectory.failure.where] += 1
    flat = [len(set(group.values)) <= 1 for group in kept]
    chosen = kept if chosen_by is None else chosen_by(kept)
    metrics = {
        "groups/dropped": Sum(float(len(groups) - len(kept))),
        "groups/filtered": Sum(float(len(kept) - len(chosen))),
        "groups/trained": Sum(float(len(chosen))),
        "groups/frac_zero_std": Sum(float(sum(flat)), float(len(flat))),
        "episodes/unscored": Sum(float(unscored)),
        **{f"episodes/failed_{where}": Sum(float(n)) for where, n in failures.items()},
    }
    return chosen, metrics


def micro_batches(
    rows: Sequence[TrainRow], budget: int, scorer: Scorer, *, whole_groups: bool = False
) -> list[list[TrainRow]]:
    """Lists of whole trajectories, or of whole groups, cut as suits the scorer and its memory.

    The summed loss does not depend on the cut. A group that is asked for whole and exceeds the
    budget stands alone.
    """
    units = [r.row for r in rows]
    if whole_groups:  # to the scorer, a group is one trajectory of many rows
        units = [replace(unit, trajectory=0) for unit in units]
    return [[rows[i] for i in part] for part in scorer.split(units, budget)]


def as_many(batches: list[list[TrainRow]], parallel: Parallel) -> list[list[TrainRow]]:
    """The micro-batches, filled up to as many as the rank with most of them has."""
    (most,) = parallel.largest([float(len(batches))])
    return batches + [[FILLER]] * (int(most) - len(batches))


class RowScores(NamedTuple):
    """Logprobs and entropies of one row, of its length (0 off the mask)."""

    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]


def score_ragged(
    rows: Sequence[TrainRow],
    scorer: Scorer,
    module: torch.nn.Module,
    budget: int,
    under: AbstractContextManager[object] | None = None,
    parallel: Parallel | None = None,
) -> list[RowScores]:
    """Scores of every row without gradient, in row order.

    Args:
        under: may switch an adapter off.
        parallel: whose ranks meet in every forward pass of `module`, because its weights are
            sharded; None for a module that is whole.
    """
    found: dict[int, RowScores] = {}
    places = {id(row): i for i, row in enumerate(rows)}
    batches = micro_batches(rows, budget, scorer)
    if parallel is not None:
        batches = as_many(batches, parallel)
    with evaluating(module), under or nullcontext():
        for batch in batches:
            with parallel.micro_batch(is_last=True) if parallel else nullcontext():
                scores = scorer.score(module, [r.row for r in batch])
            lists = zip(batch, scores.logp_BT.tolist(), scores.entropy_BT.tolist(), strict=True)
            for item, logp_T, entropy_T in lists:
                end = len(item.row.ids)
                if item is not FILLER:
                    found[places[id(item)]] = RowScores(tuple(logp_T[:end]), tuple(entropy_T[:end]))
    return [found[i] for i in range(len(rows))]


def with_old(
    rows: Sequence[TrainRow],
    scorer: Scorer,
    module: torch.nn.Module,
    budget: int,
    parallel: Parallel | None = None,
) -> list[TrainRow]:
    """Rows with `old_logprobs` and `entropies` under the weights as they are now."""
    scores = score_ragged(rows, scorer, module, budget, None, parallel)
    return [
        replace(row, old_logprobs=found.logprobs, entropies=found.entropies)
        for row, found in zip(rows, scores, strict=True)
    ]


def with_reference(
    rows: Sequence[TrainRow],
    scorer: Scorer,
    reference: torch.nn.Module,
    budget: int,
    adapter_off: AbstractContextManager[object] | None = None,
    parallel: Parallel | None = None,
) -> list[TrainRow]:
    """Rows with `ref_logprobs` under the reference."""
    scores = score_ragged(rows, scorer, reference, budget, adapter_off, parallel)
    return [
        replace(row, ref_logprobs=found.logprobs) for row, found in zip(rows, scores, strict=True)
    ]


def collate(
    rows: Sequence[TrainRow],
    *,
    lengths: dict[tuple[int, int], int],
    n_tokens: int,
    n_trajectories: int,
    n_batches: int = 1,
    device: torch.device | str = "cpu",
) -> Batch:
    """Rows as one right-padded batch.

    Args:
        lengths: trained tokens of each (group, trajectory) of the whole step.
        n_tokens: trained tokens of the whole step over all ranks.
        n_trajectories: trajectories with a trained token, likewise.
        n_batches: micro-batches of the whole step, likewise.
    """
    floats = torch.float32
    old = [row.old_logprobs for row in rows]
    ref = [row.ref_logprobs for row in rows]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(row.key for row in rows))}
    return Batch(
        ids_BT=padded([r.row.ids for r in rows], torch.long).to(device),
        mask_BT=padded([r.advantages.mask for r in rows], torch.bool).to(device),
        old_logprobs_BT=_optional(old, device),
        sampler_logprobs_BT=padded([r.row.sampler_logprobs for r in rows], floats).to(device),
        ref_logprobs_BT=_optional(ref, device),
        advantages_BT=padded([r.advantages.values for r in rows], floats).to(device),
        turn_BT=padded([r.row.turn_of for r in rows], torch.long, fill=-1).to(device),
        temperature_B=torch.tensor([r.row.temperature for r in rows], device=device),
        trajectory_B=torch.tensor([numbers[r.key] for r in rows], device=device),
        group_B=torch.tensor([r.row.group for r in rows], device=device),
        lengths_B=torch.tensor([float(lengths[r.key]) for r in rows], device=device),
        n_tokens=n_tokens,
        n_trajectories=n_trajectories,
        n_batches=n_batches,
    )


def _optional(
    lists: Sequence[tuple[float, ...] | None], device: torch.device | str
) -> torch.Tensor | None:
    present = [values for values in lists if values is not None]
    return padded(present, torch.float32).to(device) if len(present) == len(lists) else None


def turn_advantages(
    groups: Sequence[Group], rows: Sequence[TrainRow]
) -> dict[tuple[int, int], list[list[float]]]:
    """Advantages `[turn][sampled token]` by (group, trajectory), 0 where not trained."""
    found: dict[tuple[int, int], list[list[float]]] = {}
    for item in rows:
        row = item.row
        turns = groups[row.group].trajectories[row.trajectory].turns
        values = found.setdefault(item.key, [[] for _ in turns])
        for t, k in enumerate(row.turn_of):
            if k >= 0:
                values[k].append(item.advantages.values[t])
    return found
