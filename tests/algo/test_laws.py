"""What must hold of every registered estimator, loss, aggregator, KL, correction and filter.

The parts are found by walking the registry, so a new one is held to these laws without a line here.
Losses are looked at through the objective that trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.algo.aggregate import TokenMean
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.spread import TokenAdvantages, spread
from agentrl.core.protocols import (
    Advantage,
    Aggregate,
    Entropy,
    Filter,
    GroupLoss,
    Kl,
    Loss,
    Mismatch,
)
from agentrl.core.registry import find, names
from agentrl.core.tensors import Batch, Scores
from agentrl.core.types import AdvantageOut, Group, Row, Scored, Sum
from agentrl.rollout.fold import fold
from agentrl.train.objective import Objective
from agentrl.train.prepare import TrainRow, collate, micro_batches, usable
from agentrl.train.score import Padded
from support import ragged

SLOTS = ("loss", "aggregate", "kl", "mismatch", "entropy")
PARTS = [(slot, name) for slot in SLOTS for name in names(slot)]
CUT = [(s, n) for s, n in PARTS if getattr(find(s, n), "depends_on_cut", False)]
EVERY_PART = pytest.mark.parametrize(("slot", "name"), PARTS, ids=[f"{s}-{n}" for s, n in PARTS])
EVERY_ADVANTAGE = pytest.mark.parametrize("name", names("advantage"))
seeds = st.integers(0, 2**40)
few = settings(max_examples=8)


def objective(**parts: str) -> Objective:
    """Each slot's part by name; PPO and the token mean where none is named."""
    made = {slot: ragged.part(slot, name) for slot, name in parts.items()}
    return Objective(
        loss=cast(Loss, made.get("loss", PpoClip())),
        aggregate=cast(Aggregate, made.get("aggregate", TokenMean())),
        kl=cast("Kl | None", made.get("kl")),
        mismatch=cast("Mismatch | None", made.get("mismatch")),
        entropy=cast("Entropy | None", made.get("entropy")),
    )


@dataclass
class Outcome:
    """A loss, its gradients, and metrics."""

    loss: torch.Tensor
    logp_grad: torch.Tensor
    entropy_grad: torch.Tensor
    metrics: dict[str, Sum]


def outcome(of: Objective, step: Batch, live: Scores) -> Outcome:
    logp = live.logp_BT.detach().clone().requires_grad_()
    entropy = live.entropy_BT.detach().clone().requires_grad_()
    loss, metrics = of(step, Scores(logp_BT=logp, entropy_BT=entropy))
    zero = 0.0 * (logp.sum() + entropy.sum())  # a batch without a trained token has no graph
    logp_grad, entropy_grad = torch.autograd.grad(loss + zero, (logp, entropy))
    return Outcome(loss.detach(), logp_grad, entropy_grad, metrics)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def same_metrics(a: dict[str, Sum], b: dict[str, Sum]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert (a[key].total, a[key].weight) == pytest.approx(
            (b[key].total, b[key].weight), rel=1e-9, abs=1e-12
        ), key


# --- losses and what stands beside them -----------------------------------------------------------


@EVERY_PART
@few
@given(seeds)
def test_the_order_of_rows_changes_nothing(slot: str, name: str, seed: int) -> None:
    rng = Random(seed)
    step, live = ragged.batch(rng)
    order = torch.tensor(rng.sample(range(len(step.mask_BT)), len(step.mask_BT)))
    plain = outcome(objective(**{slot: name}), step, live)
    mixed = outcome(objective(**{slot: name}), *ragged.chosen(step, live, order))
    close(mixed.loss, plain.loss)
    close(mixed.logp_grad, plain.logp_grad[order])
    close(mixed.entropy_grad, plain.entropy_grad[order])
    same_metrics(mixed.metrics, plain.metrics)


@EVERY_PART
@few
@given(seeds, st.integers(1, 4), st.sampled_from([0.0, -7.0, 1e4]))
def test_padding_changes_nothing(slot: str, name: str, seed: int, by: int, fill: float) -> None:
    step, live = ragged.batch(Random(seed))
    width = step.mask_BT.shape[1]
    plain = outcome(objective(**{slot: name}), step, live)
    padded = outcome(objective(**{slot: name}), *ragged.wider(step, live, by, fill))
    close(padded.loss, plain.loss)
    close(padded.logp_grad[:, :width], plain.logp_grad)
    assert not padded.logp_grad[:, width:].any()
    same_metrics(padded.metrics, plain.metrics)


@EVERY_PART
@few
@given(seeds, st.sampled_from([5.0, -80.0]))
def test_what_lies_off_the_mask_is_never_looked_at(
    slot: str, name: str, seed: int, noise: float
) -> None:
    step, live = ragged.batch(Random(seed))
    mask = step.mask_BT

    def other(value_BT: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, value_BT, value_BT + noise)

    assert step.old_logprobs_BT is not None
    assert step.ref_logprobs_BT is not None
    changed = replace(
        step,
        old_logprobs_BT=other(step.old_logprobs_BT) - 1.0 * ~mask,
        ref_logprobs_BT=other(step.ref_logprobs_BT),
        sampler_logprobs_BT=other(step.sampler_logprobs_BT) + 2.0 * ~mask,
    )
    scores = Scores(logp_BT=other(live.logp_BT), entropy_BT=other(live.entropy_BT))
    plain = outcome(objective(**{slot: name}), step, live)
    got = outcome(objective(**{slot: name}), changed, scores)
    close(got.loss, plain.loss)
    close(got.logp_grad, plain.logp_grad)
    assert not got.logp_grad[~mask].any()
    same_metrics(got.metrics, plain.metrics)


def in_pieces(
    of: Objective, step: Batch, live: Scores, seed: int
) -> list[tuple[torch.Tensor, Outcome]]:
    """The step cut into at most three micro-batches, between trajectories, or between groups if the
    loss compares siblings: rows and outcomes."""
    rng = Random(seed)
    unit_B = step.group_B if of.whole_groups else step.trajectory_B
    share_of = [rng.randrange(3) for _ in range(int(unit_B.max()) + 1)]
    cut = [
        torch.tensor([b for b, t in enumerate(unit_B.tolist()) if share_of[t] == share])
        for share in range(3)
        if share in share_of
    ]
    step = replace(step, n_batches=len(cut))
    return [(rows, outcome(of, *ragged.chosen(step, live, rows))) for rows in cut]


@EVERY_PART
@few
@given(seeds)
def test_micro_batches_add_up_to_the_whole(slot: str, name: str, seed: int) -> None:
    if (slot, name) in CUT:
        return
    step, live = ragged.batch(Random(seed))
    whole = outcome(objective(**{slot: name}), step, live)
    pieces = in_pieces(objective(**{slot: name}), step, live, seed)
    close(torch.stack([piece.loss for _, piece in pieces]).sum(), whole.loss)
    for rows, piece in pieces:
        close(piece.logp_grad, whole.logp_grad[rows])
        close(piece.entropy_grad, whole.entropy_grad[rows])


@pytest.mark.parametrize(("slot", "name"), CUT)
def test_what_says_that_it_depends_on_the_cut_does(slot: str, name: str) -> None:
    of = objective(**{slot: name})
    gaps = []
    for seed in range(20):
        step, live = ragged.batch(Random(seed))
        pieces = in_pieces(of, step, live, seed)
        gaps.append(float(sum(p.loss for _, p in pieces) - outcome(of, step, live).loss))
    assert max(map(abs, gaps)) > 1e-3


COMPARING = [name for name in names("loss") if isinstance(find("loss", name)(), GroupLoss)]


@pytest.mark.parametrize("name", COMPARING)
@few
@given(seeds)
def test_a_loss_that_compares_siblings_does_not_know_what_they_have_in_common(
    name: str, seed: int
) -> None:
    step, live = ragged.batch(Random(seed))
    more_B = 3.0 * (1.0 + step.group_B)
    shifted = replace(step, advantages_BT=step.advantages_BT + more_B[:, None] * step.mask_BT)
    plain, got = (outcome(objective(loss=name), one, live) for one in (step, shifted))
    close(got.loss, plain.loss)
    close(got.logp_grad, plain.logp_grad)


@pytest.mark.parametrize("name", [name for name in names("loss") if name not in COMPARING])
@few
@given(seeds)
def test_on_policy_every_loss_has_the_gradient_of_reinforce(name: str, seed: int) -> None:
    step, live = ragged.batch(Random(seed))
    on_policy = replace(step, old_logprobs_BT=live.logp_BT, sampler_logprobs_BT=live.logp_BT)
    got = outcome(objective(loss=name), on_policy, live)
    expected = -step.advantages_BT * step.mask_BT / max(step.n_tokens, 1)
    if getattr(find("loss", name), "drops_tokens", False):
        expected = torch.where(got.logp_grad == 0.0, 0.0, expected)
    close(got.logp_grad, expected)


@pytest.mark.parametrize("name", names("mismatch"))
@pytest.mark.parametrize("loss", names("loss"))
@few
@given(seeds)
def test_where_the_sampler_is_the_trainer_a_correction_keeps_every_bit(
    loss: str, name: str, seed: int
) -> None:
    step, live = ragged.batch(Random(seed))
    assert step.old_logprobs_BT is not None
    same = replace(step, sampler_logprobs_BT=step.old_logprobs_BT)
    plain = outcome(objective(loss=loss), same, live)
    corrected = outcome(objective(loss=loss, mismatch=name), same, live)
    assert torch.equal(corrected.loss, plain.loss)
    assert torch.equal(corrected.logp_grad, plain.logp_grad)


@pytest.mark.parametrize("name", names("mismatch"))
@few
@given(seeds)
def test_corrections_are_detached_and_never_negative(name: str, seed: int) -> None:
    step, live = ragged.batch(Random(seed), extreme=True)
    assert step.old_logprobs_BT is not None
    part = cast(Mismatch, ragged.part("mismatch", name))
    weights, _ = part(
        step.old_logprobs_BT.clone().requires_grad_(),
        step.sampler_logprobs_BT,
        step.mask_BT,
        logp=live.logp_BT,
        advantages=step.advantages_BT,
        trajectory_B=step.trajectory_B,
    )
    assert not weights.requires_grad
    assert torch.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[~step.mask_BT] == 1).all()


# --- estimators and filters -----------------------------------------------------------------------


def plain_step(seed: int) -> list[Group]:
    """Groups whose siblings may change places: none is another's branch."""
    rng = Random(seed)
    return [ragged.group(rng, branches=False) for _ in range(rng.randint(1, 3))]


def permuted(step: Scored, orders: Sequence[Sequence[int]]) -> Scored:
    """Every group's siblings in another order, and the groups backwards."""

    def mixed(ragged_values: Sequence[Sequence[object]] | None) -> object:
        assert ragged_values is not None
        return [[g[i] for i in o] for g, o in zip(ragged_values, orders, strict=True)][::-1]

    groups = tuple(
        replace(group, trajectories=tuple(group.trajectories[i] for i in order))
        for group, order in zip(step.groups, orders, strict=True)
    )
    return Scored(
        groups=groups[::-1],
        values=mixed(step.values),  # type: ignore[arg-type]
        end_values=mixed(step.end_values),  # type: ignore[arg-type]
        entropies=mixed(step.entropies),  # type: ignore[arg-type]
        ref_logprobs=mixed(step.ref_logprobs),  # type: ignore[arg-type]
    )


def numbers(value: float | Sequence[float] | None) -> list[float]:
    if value is None:
        return []
    return [float(value)] if isinstance(value, float | int) else [float(v) for v in value]


@EVERY_ADVANTAGE
@given(seeds)
def test_siblings_and_groups_may_stand_in_any_order(name: str, seed: int) -> None:
    rng = Random(seed)
    step = ragged.scored(rng, plain_step(seed))
    orders = [rng.sample(range(n), n) for n in (len(g.trajectories) for g in step.groups)]
    estimator: Advantage = find("advantage", name)()
    plain, mixed = estimator(step), estimator(permuted(step, orders))
    for g, order in enumerate(orders):
        for place, i in enumerate(order):
            got = mixed.values[len(orders) - 1 - g][place]
            expected = plain.values[g][i]
            assert (got is None) == (expected is None)
            assert numbers(got) == pytest.approx(numbers(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", names("filter"))
@given(seeds)
def test_a_filter_keeps_some_groups_as_they_are_and_in_order(name: str, seed: int) -> None:
    rng = Random(seed)
    groups = [ragged.group(rng) for _ in range(rng.randint(0, 6))]
    keep: Filter = find("filter", name)()
    kept = keep(groups)
    places = [next(i for i, g in enumerate(groups) if g is one) for one in kept]
    assert places == sorted(set(places))
    assert [id(g) for g in keep(groups[::-1])] == [id(g) for g in kept[::-1]]
    assert [id(g) for g in keep(kept)] == [id(g) for g in kept]


# --- ten thousand unkind steps --------------------------------------------------------------------


def check_credit(out: AdvantageOut, step: Scored) -> None:
    """Finite where there is a score, None elsewhere."""
    for rewards_G, values_G in zip(step.rewards_PG, out.values, strict=True):
        for reward, value in zip(rewards_G, values_G, strict=True):
            assert (value is None) == (reward is None)
            assert all(math.isfinite(v) for v in numbers(value))


def train_rows(
    rng: Random, rows: Sequence[Row], credit: Sequence[TokenAdvantages]
) -> list[TrainRow]:
    """Rows with logprobs, some of them of policies that went far apart; some fully masked."""
    reach = rng.choice((0.0, 0.5, 60.0))

    def near(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(value + rng.uniform(-reach, reach) for value in values)

    made = []
    for row, advantages in zip(rows, credit, strict=True):
        if rng.random() < 0.1:
            advantages = TokenAdvantages((0.0,) * len(row.ids), (False,) * len(row.ids))
        assert all(math.isfinite(a) for a in advantages.values)
        made.append(
            TrainRow(
                row=row,
                advantages=advantages,
                old_logprobs=near(row.sampler_logprobs) if rng.random() < 0.99 else None,
                ref_logprobs=near(row.sampler_logprobs),
            )
        )
    return made


def check_losses(rng: Random, items: Sequence[TrainRow]) -> None:
    """Every part of every slot once, the slots' lists side by side."""
    lengths = dict.fromkeys((item.key for item in items), 0)
    for item in items:
        lengths[item.key] += item.n_trained
    for part in micro_batches(items, rng.choice((24, 1000)), Padded()):
        step = collate(
            part,
            lengths=lengths,
            n_tokens=sum(lengths.values()),
            n_trajectories=sum(n > 0 for n in lengths.values()),
        )
        noise = torch.randn(step.mask_BT.shape) * rng.choice((0.0, 0.3, 40.0))
        live = Scores(
            logp_BT=torch.where(step.mask_BT, step.sampler_logprobs_BT + noise, 0.0),
            entropy_BT=torch.where(step.mask_BT, torch.rand(step.mask_BT.shape), 0.0),
        )
        for turn in range(max(len(names(slot)) for slot in SLOTS)):
            chosen = {slot: names(slot)[turn % len(names(slot))] for slot in SLOTS}
            got = outcome(objective(**chosen), step, live)
            assert torch.isfinite(got.loss), chosen
            assert torch.isfinite(got.logp_grad).all(), chosen
            assert all(math.isfinite(m.total) for m in got.metrics.values()), chosen


def check_step(seed: int) -> int:
    """One random step from groups to gradients; returns how many rows it trained."""
    rng = Random(seed)
    torch.manual_seed(seed)
    groups = [ragged.group(rng) for _ in range(rng.randint(1, 3))]
    for name in names("filter"):
        find("filter", name)()(groups)
    kept, _ = usable(groups)
    trained = 0
    for name in names("advantage"):
        estimator: Advantage = find("advantage", name)()
        check_credit(estimator(everything := ragged.scored(rng, groups)), everything)
        step = ragged.scored(rng, kept)
        rows = [row for g, one in enumerate(kept) for row in fold(one, index=g)]
        shared: Literal["once", "each"] = rng.choice(("once", "each"))
        credit = spread(rows, kept, estimator(step), shared=shared)
        items = train_rows(rng, rows, credit)
        if items and name == names("advantage")[seed % len(names("advantage"))]:
            check_losses(rng, items)
            trained = len(items)
    return trained


def test_no_random_step_gives_a_nan() -> None:
    trained = [check_step(seed) for seed in range(100)]
    assert sum(n > 0 for n in trained) > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_none_of_ten_thousand_random_steps_gives_a_nan() -> None:
    trained = [check_step(seed) for seed in range(10_000)]
    assert sum(n > 0 for n in trained) > 4_000
