"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16) over sampled
tokens, or over turns; whatever lies between them is not seen.

Axes: `B` scored trajectories of a step, `T` sampled tokens (first, so that one token of all
trajectories lies together), `K` turns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from agentrl.algo.returns import FLOOR, turn_rewards
from agentrl.core.errors import DataError
from agentrl.core.types import Scored, Trajectory


class TurnStep(NamedTuple):
    """A turn that sampled something: its number, its tokens from `begin` to `last`, its reward."""

    turn: int
    begin: int
    last: int
    reward: float


class Episode(NamedTuple):
    """A scored trajectory and its values: `[T]` of the state of each token, and beyond the end."""

    group: int
    trajectory: int
    steps: tuple[TurnStep, ...]
    values: Sequence[float]
    beyond: float


def steps_of(trajectory: Trajectory) -> tuple[TurnStep, ...]:
    """The turns that sampled something. The reward of one that did not is paid in the last one
    before it that did, or else in the first after it."""
    steps: list[TurnStep] = []
    position, early = 0, 0.0
    for k, (turn, reward) in enumerate(
        zip(trajectory.turns, turn_rewards(trajectory), strict=True)
    ):
        count = len(turn.action_ids)
        if count:
            steps.append(TurnStep(k, position, position + count - 1, reward + early))
            position, early = position + count, 0.0
        elif steps:
            steps[-1] = steps[-1]._replace(reward=steps[-1].reward + reward)
        else:
            early += reward
    return tuple(steps)


def episodes_of(scored: Scored) -> Iterator[Episode]:
    """Every scored trajectory of the step. Beyond the end a truncated one is worth what the critic
    says, any other 0.

    Raises:
        DataError: the step has no values, or not one for each sampled token.
    """
    if scored.values is None or scored.end_values is None:
        raise DataError("expected a step with values and end_values: the run needs a critic")
    for g, group in enumerate(scored.groups):
        for i in group.scored:
            trajectory = group.trajectories[i]
            values = scored.values[g][i]
            if len(values) != trajectory.n_tokens:
                raise DataError(
                    f"expected {trajectory.n_tokens} values for trajectory {i} of group {g}, got "
                    f"{len(values)}"
                )
            beyond = scored.end_values[g][i] if trajectory.stop.is_truncation else 0.0
            yield Episode(g, i, steps_of(trajectory), values, beyond)


def gae(
    rewards: Sequence[float],
    values: Sequence[float],
    *,
    gamma: float,
    lam: float,
    beyond: float = 0.0,
) -> list[float]:
    """`A_k = d_k + gamma lam A_{k+1}`, `d_k = r_k + gamma V_{k+1} - V_k`; `beyond` is the value
    behind the last."""
    later, following, found = 0.0, beyond, []
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        later = reward + gamma * following - value + gamma * lam * later
        following = value
        found.append(later)
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The sampled tokens of many trajectories side by side, `[T,B]` in float64, 0 behind the ends.

    `following_TB` is the value of what comes after each token.
    """

    values_TB: torch.Tensor
    following_TB: torch.Tensor
    rewards_TB: torch.Tensor
    mask_TB: torch.Tensor
    is_end_TB: torch.Tensor
    """The last token of each turn."""

    @classmethod
    def of(
        cls, episodes: Sequence[Episode], paid: Sequence[Sequence[float]] | None = None
    ) -> Tokens:
        """Each turn's reward falls on its last token; `paid` (a list of an episode's turns for each
        of them) stands in for the rewards."""
        # An array takes a list of floats three times as fast as a tensor does.
        lists = [
            torch.frombuffer(array("d", (*e.values, e.beyond)), dtype=torch.float64)
            for e in episodes
        ]
        padded_TB = pad_sequence(lists) if lists else torch.zeros(1, 0, dtype=torch.float64)
        length_B = torch.tensor([len(e.values) for e in episodes], dtype=torch.long)
        mask_TB = torch.arange(len(padded_TB) - 1)[:, None] < length_B
        rewards_TB = torch.zeros(mask_TB.shape, dtype=torch.float64)
        is_end_TB = torch.zeros_like(mask_TB)
        rows = torch.tensor([step.last for e in episodes for step in e.steps], dtype=torch.long)
        turns_B = torch.tensor([len(e.steps) for e in episodes], dtype=torch.long)
        columns = torch.arange(len(episodes)).repeat_interleave(turns_B)
        if paid is None:
            flat = [step.reward for e in episodes for step in e.steps]
        else:
            flat = [reward for own in paid for reward in own]
        rewards_TB[rows, columns] = torch.tensor(flat, dtype=torch.float64)
        is_end_TB[rows, columns] = True
        return cls(
            values_TB=padded_TB[:-1] * mask_TB,
            following_TB=padded_TB[1:] * mask_TB,
            rewards_TB=rewards_TB,
            mask_TB=mask_TB,
            is_end_TB=is_end_TB,
        )

    def advantages(self, gamma: float, decay: float | torch.Tensor) -> torch.Tensor:
        """`[T,B]`: `A_t = d_t + decay_t A_{t+1}`, `d_t = r_t + gamma V_{t+1} - V_t`."""
        found_TB = self.following_TB.mul(gamma).add_(self.rewards_TB).sub_(self.values_TB)
        rows = found_TB.unbind()
        decays = decay.unbind() if isinstance(decay, torch.Tensor) else None
        for t in range(len(rows) - 2, -1, -1):
            if decays is None:
                rows[t].add_(rows[t + 1], alpha=float(decay))
            else:
                rows[t].addcmul_(rows[t + 1], decays[t])
        return found_TB

    def whitened(self, found_TB: torch.Tensor) -> torch.Tensor:
        """`(x - mean) / sqrt(variance + 1e-8)` over the sampled tokens (ddof 1), 0 elsewhere."""
        count = max(int(self.mask_TB.sum()), 1)
        centred_TB = (found_TB - found_TB.sum() / count).mul_(self.mask_TB)
        variance = centred_TB.square().sum() / max(count - 1, 1)
        return centred_TB.div_(torch.sqrt(variance + FLOOR))


def ragged(
    scored: Scored, episodes: Sequence[Episode], lists: Sequence[Sequence[float]]
) -> tuple[tuple[Sequence[float] | None, ...], ...]:
    """The lists in the step's shape, `[group][trajectory]`; None where nothing was scored."""
    found: list[list[Sequence[float] | None]] = [
        [None] * len(group.trajectories) for group in scored.groups
    ]
    for episode, own in zip(episodes, lists, strict=True):
        found[episode.group][episode.trajectory] = own
    return tuple(map(tuple, found))


def lists_of(values_TB: torch.Tensor, episodes: Sequence[Episode]) -> list[list[float]]:
    """The columns as lists, each of its trajectory's length."""
    return [
        column[: len(episode.values)].tolist()
        for column, episode in zip(values_TB.T.contiguous(), episodes, strict=True)
    ]
