"""From rows to batches: nothing is lost, parted or reordered."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.spread import TokenAdvantages
from agentrl.core.config import Lora
from agentrl.core.types import Group
from agentrl.train.lora import add_lora
from agentrl.train.prepare import (
    TrainRow,
    collate,
    micro_batches,
    score_ragged,
    usable,
    with_old,
    with_reference,
)
from agentrl.train.score import Padded
from support.credit import rewarded
from support.models import logprobs, row, shared_policy, tiny_policy
from support.steps import train_rows

POLICY = shared_policy()


def trajectories(lengths: list[list[int]]) -> list[TrainRow]:
    return [
        TrainRow(
            row=row([7] * n, [False] + [True] * (n - 1), trajectory=i),
            advantages=TokenAdvantages((0.0,) * n, (False,) * n),
        )
        for i, rows in enumerate(lengths)
        for n in rows
    ]


@given(
    st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=4), max_size=8),
    st.integers(1, 120),
)
def test_micro_batches_hold_every_row_once_and_whole_trajectories(
    lengths: list[list[int]], budget: int
) -> None:
    rows = trajectories(lengths)
    batches = micro_batches(rows, budget, Padded())
    assert sorted(id(r) for b in batches for r in b) == sorted(map(id, rows))
    homes = [{r.key for r in b} for b in batches]
    assert sum(map(len, homes)) == len(lengths)
    for b, home in zip(batches, homes, strict=True):
        padded_size = max(len(r.row.ids) for r in b) * len(b)
        assert padded_size <= budget or len(home) == 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 120))
def test_micro_batches_of_whole_groups_part_none(sizes: list[int], budget: int) -> None:
    rows = [
        replace(row, row=replace(row.row, group=g))
        for g, size in enumerate(sizes)
        for row in trajectories([[4, 3]] * size)
    ]
    batches = micro_batches(rows, budget, Padded(), whole_groups=True)
    homes = [{r.row.group for r in batch} for batch in batches]
    assert sum(map(len, homes)) == len(sizes)
    assert sorted(id(r) for b in batches for r in b) == sorted(map(id, rows))


def test_short_trajectories_are_not_padded_to_long_ones() -> None:
    batches = micro_batches(trajectories([[30], [2], [2], [30], [2]]), 60, Padded())
    assert [[len(r.row.ids) for r in b] for b in batches] == [[2, 2, 2], [30, 30]]


@pytest.mark.parametrize("budget", [1, 25, 1000])
def test_ragged_scores_come_in_row_order_whatever_the_budget(budget: int) -> None:
    rows = train_rows()
    random.Random(0).shuffle(rows)
    found = score_ragged(rows, Padded(), POLICY.module, budget)
    for item, scores in zip(rows, found, strict=True):
        with torch.no_grad():
            plain = [0.0, *logprobs(POLICY.module, item.row.ids).tolist()]
        expected = [p * m for p, m in zip(plain, item.row.mask, strict=True)]
        assert scores.logprobs == pytest.approx(expected, abs=1e-5)


def test_old_logprobs_are_those_of_the_weights_now() -> None:
    rows = with_old(train_rows(), Padded(), POLICY.module, 100)
    found = score_ragged(rows, Padded(), POLICY.module, 100)
    assert [(r.old_logprobs, r.entropies) for r in rows] == found


def test_a_reference_is_the_frozen_copy_or_the_model_with_its_adapter_off() -> None:
    policy = tiny_policy()
    plain = with_reference(train_rows(), Padded(), policy.module, 100)
    adapted = add_lora(policy.module, Lora(rank=4), seed=0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    off = with_reference(train_rows(), Padded(), adapted, 100, adapted.disable_adapter())  # type: ignore[operator]
    on = with_reference(train_rows(), Padded(), adapted, 100)
    for a, b, c in zip(plain, off, on, strict=True):
        assert b.ref_logprobs == pytest.approx(a.ref_logprobs, abs=1e-6)
        assert c.ref_logprobs != pytest.approx(a.ref_logprobs, abs=1e-3)


def test_a_batch_is_padded_on_the_right_with_nothing_to_train() -> None:
    rows = train_rows()
    lengths = {r.key: 3 for r in rows}
    batch = collate(rows, lengths=lengths, n_tokens=30, n_trajectories=5)
    for i, item in enumerate(rows):
        n = len(item.row.ids)
        assert batch.ids_BT[i, :n].tolist() == list(item.row.ids)
        assert batch.mask_BT[i, :n].tolist() == list(item.advantages.mask)
        assert batch.turn_BT[i, :n].tolist() == list(item.row.turn_of)
        assert batch.advantages_BT[i, :n].tolist() == pytest.approx(item.advantages.values)
        assert not batch.mask_BT[i, n:].any()
        assert (batch.turn_BT[i, n:] == -1).all()
    assert batch.trajectory_B.tolist() == [item.row.trajectory for item in rows]
    assert (batch.n_tokens, batch.n_trajectories) == (30, 5)
    assert batch.ref_logprobs_BT is None
    assert batch.old_logprobs_BT is not None


def test_logprobs_that_some_rows_lack_are_not_given() -> None:
    rows = train_rows()
    rows[0] = replace(rows[0], old_logprobs=None)
    batch = collate(rows, lengths={r.key: 1 for r in rows}, n_tokens=1, n_trajectories=1)
    assert batch.old_logprobs_BT is None


def test_what_cannot_be_learned_from_is_dropped_and_counted() -> None:
    groups: list[Group] = [
        rewarded(g) for g in ([1.0, 0.0, None], [1.0, 1.0], [1.0, None], [float("nan"), 0.0])
    ]
    kept, metrics = usable(groups)
    assert kept == groups[:2]
    assert metrics["groups/dropped"].total == 2
    assert metrics["groups/frac_zero_std"].mean == 0.5
    assert metrics["episodes/unscored"].total == 1
