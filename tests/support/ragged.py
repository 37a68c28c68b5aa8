"""Random steps as unkind as a run may bring them, and batches cut from nothing but numbers."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from random import Random

import torch

from agentrl.core.registry import find
from agentrl.core.tensors import Batch, Scores
from agentrl.core.types import Failure, Fork, Group, Score, Scored, Stop, Trajectory, Turn
from support.credit import TASK

FAILED = Failure(where="env", error="gone")


def _turn(rng: Random, last: Turn | None) -> Turn:
    """One token or a few; it extends the row before it, or rewrites history and opens a new one."""
    ids = tuple(rng.randrange(10, 99) for _ in range(rng.choice((1, 1, 2, 3))))
    rewrites = last is not None and rng.random() < 0.3
    prompt = (
        (1, rng.randrange(100, 999))
        if last is None or rewrites
        else (*last.prompt_ids, *last.action_ids, 3)
    )
    return Turn(
        prompt_ids=prompt,
        action_ids=ids,
        sampler_logprobs=tuple(-rng.random() * 3 for _ in ids),
        row=0 if last is None else last.row + rewrites,
        reward=rng.choice((0.0, 0.0, 1.0, -0.5)),
        state_key=rng.choice("abc"),
    )


def _ending(rng: Random, turns: list[Turn]) -> tuple[Stop, Score | None]:
    """A stop and a score: some fail, some cannot be told, some get NaN."""
    fate = rng.random()
    if fate < 0.15:
        return rng.choice((Stop.ERROR, Stop.TIMEOUT)), None
    stop = rng.choice((Stop.DONE, Stop.MAX_TURNS, Stop.MAX_TOKENS, Stop.BAD_ACTION))
    stop = stop if turns else Stop.MAX_TOKENS
    if fate < 0.25:
        return stop, None
    value = math.nan if fate < 0.3 else rng.choice((0.0, 1.0, 1.0, rng.uniform(-5, 5), 1e6))
    told = tuple(turn.reward for turn in turns) if rng.random() < 0.5 else None
    return stop, Score(value=value, turns=told)


def _progress(rng: Random) -> tuple[tuple[int, float], ...]:
    """Up to three marks, some of them behind the end."""
    places = sorted(rng.randrange(9) for _ in range(rng.choice((0, 0, 1, 3))))
    return tuple((place, rng.random()) for place in places)


def group(rng: Random, *, branches: bool = True) -> Group:
    """One to five siblings: without turns, with several rows, branching off each other."""
    made: list[Trajectory] = []
    for number in range(rng.randint(1, 5)):
        turns: list[Turn] = []
        fork = None
        if branches and made and rng.random() < 0.4:
            parent = rng.randrange(number)
            fork = Fork(parent, rng.randint(0, len(made[parent].turns)))
            turns = list(made[parent].turns[: fork.turn])
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            turns.append(_turn(rng, turns[-1] if turns else None))
        stop, score = _ending(rng, turns)
        made.append(
            Trajectory(
                task=TASK,
                turns=tuple(turns),
                stop=stop,
                score=score,
                success=None if stop.is_failure else rng.random() < 0.5,
                failure=FAILED if stop.is_failure else None,
                parent=fork,
                budget=rng.choice((None, None, 0, 8)),
                progress=_progress(rng),
            )
        )
    return Group(task=TASK, trajectories=tuple(made))


def scored(rng: Random, groups: list[Group]) -> Scored:
    """A step with everything that an estimator may need."""

    def each(low: float, high: float) -> list[list[list[float]]]:
        return [
            [[rng.uniform(low, high) for _ in range(t.n_tokens)] for t in group.trajectories]
            for group in groups
        ]

    return Scored(
        groups=tuple(groups),
        values=each(-1, 1),
        end_values=[[rng.uniform(-1, 1) for _ in group.trajectories] for group in groups],
        entropies=each(0, 2),
        ref_logprobs=each(-3, 0),
    )


def batch(rng: Random, *, extreme: bool = False) -> tuple[Batch, Scores]:
    """A whole step of one to four trajectories of one to three rows, two to a group, in float64.

    Some rows have nothing to train. Log-ratios stay within 0.3, or within 60 if `extreme`.
    """
    rows = [t for t in range(rng.randint(1, 4)) for _ in range(rng.choice((1, 1, 2, 3)))]
    width = rng.randint(2, 7)
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    reach = 60.0 if extreme else 0.3

    def noise(scale: float) -> torch.Tensor:
        uniform = torch.rand(len(rows), width, generator=generator, dtype=torch.float64)
        return scale * (2 * uniform - 1)

    mask_BT = torch.rand(len(rows), width, generator=generator) < rng.choice((0.2, 0.6, 0.9))
    mask_BT[:, 0] = False
    if rng.random() < 0.3:
        mask_BT[rng.randrange(len(rows))] = False
    trajectory_B = torch.tensor(rows)
    own_B = mask_BT.sum(-1).double()
    lengths_B = (trajectory_B[:, None] == trajectory_B).double() @ own_B
    old_BT = noise(1.5) - 1.5
    step = Batch(
        ids_BT=torch.zeros(len(rows), width, dtype=torch.long),
        mask_BT=mask_BT,
        old_logprobs_BT=old_BT,
        sampler_logprobs_BT=old_BT + noise(reach),
        ref_logprobs_BT=old_BT + noise(reach),
        advantages_BT=torch.where(mask_BT, noise(2.0), 0.0),
        turn_BT=torch.where(mask_BT, 0, -1),
        temperature_B=torch.ones(len(rows)),
        trajectory_B=trajectory_B,
        group_B=trajectory_B // 2,
        lengths_B=lengths_B,
        n_tokens=int(mask_BT.sum()),
        n_trajectories=len({t for t, n in zip(rows, own_B.tolist(), strict=True) if n}),
    )
    live = Scores(logp_BT=old_BT + noise(reach), entropy_BT=noise(1.0) + 1.0)
    return step, live


def chosen(step: Batch, live: Scores, rows: torch.Tensor) -> tuple[Batch, Scores]:
    """Some rows of a batch, in another order perhaps; the counts of the step stay."""
    taken = {
        field.name: value[rows]
        for field in fields(step)
        if isinstance(value := getattr(step, field.name), torch.Tensor)
    }
    scores = Scores(logp_BT=live.logp_BT[rows], entropy_BT=live.entropy_BT[rows])
    return replace(step, **taken), scores  # type: ignore[arg-type]


def wider(step: Batch, live: Scores, by: int, fill: float) -> tuple[Batch, Scores]:
    """More padding, with `fill` in every column that nothing may look at."""

    def pad(value: torch.Tensor) -> torch.Tensor:
        filler = torch.full((len(value), by), fill).to(value.dtype)
        return torch.cat(
            [value, torch.zeros_like(filler) if value.dtype is torch.bool else filler], 1
        )

    padded = {
        field.name: pad(value)
        for field in fields(step)
        if isinstance(value := getattr(step, field.name), torch.Tensor) and value.dim() == 2
    }
    padded["advantages_BT"][:, step.ids_BT.shape[1] :] = 0.0
    scores = Scores(logp_BT=pad(live.logp_BT), entropy_BT=pad(live.entropy_BT))
    return replace(step, **padded), scores  # type: ignore[arg-type]


def part(slot: str, name: str) -> object:
    """A registered part with its defaults; an entropy control that is at work."""
    made = find(slot, name)()
    if slot != "entropy":
        return made
    if "coef" in {field.name for field in fields(made)}:
        return replace(made, coef=0.01)
    made.observe(0.0)
    return made
