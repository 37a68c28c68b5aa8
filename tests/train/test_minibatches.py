"""How a step is cut into updates."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from random import Random

import pytest

from agentrl.core.config import Config
from agentrl.core.loading import load
from agentrl.core.types import Group
from agentrl.train.loop import minibatches
from agentrl.train.prepare import FILLER
from support.credit import rewarded

Key = tuple[int, int]


def cut(
    groups: list[Group],
    *,
    shares: int,
    epochs: int = 1,
    step: int = 0,
    rank: int = 0,
    world: int = 1,
    loss: str = "ppo_clip",
) -> list[list[Key]]:
    """The keys of the rows of each update of one rank, which has every `world`-th group."""
    optim = {"updates_per_batch": shares, "epochs": epochs}
    config: Config = load(
        Config, {"run": {"seed": 1}, "env": "countdown", "optim": optim, "loss": loss}
    )
    items = [
        replace(FILLER, row=replace(FILLER.row, group=g, trajectory=i))
        for g, group in enumerate(groups)
        for i in group.scored
        if g % world == rank
    ]
    Random(rank).shuffle(items)
    return [[row.key for row in part] for part in minibatches(items, groups, config, step)]


def full(count: int, size: int) -> list[Group]:
    return [rewarded([0.0] * size) for _ in range(count)]


def test_each_epoch_trains_each_scored_trajectory_once_in_updates_of_equal_size() -> None:
    groups = [rewarded([0.0] * size + [None]) for size in (5, 3, 8, 2, 7)]
    scored = [(g, i) for g, group in enumerate(groups) for i in group.scored]
    parts = cut(groups, shares=4, epochs=3)
    assert len(parts) == 12
    assert {len(part) for part in parts} == {6, 7}
    for epoch in range(3):
        assert sorted(chain(*parts[4 * epoch : 4 * epoch + 4])) == scored


@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_a_loss_that_compares_siblings_parts_no_group(shares: int) -> None:
    groups = [rewarded([0.0] * size) for size in (5, 3, 8, 2, 7)]
    for step in range(10):
        parts = cut(groups, shares=shares, step=step, loss="dpo")
        homes = [{g for g, _ in part} for part in parts]
        assert sum(map(len, homes)) == len(groups)
        assert all(homes)


@pytest.mark.parametrize("shares", [2, 3, 4, 8])
def test_a_group_is_parted_only_where_a_cut_goes_through_it(shares: int) -> None:
    for step in range(10):
        parts = cut(full(8, 6), shares=shares, step=step)
        held = Counter(g for part in parts for g in {g for g, _ in part})
        assert sum(held.values()) - 8 <= (0 if 8 % shares == 0 else shares - 1)


def test_who_shares_an_update_changes_from_step_to_step_and_from_epoch_to_epoch() -> None:
    first, second = cut(full(6, 5), shares=4, epochs=2)[:4], cut(full(6, 5), shares=4, epochs=2)[4:]
    other = cut(full(6, 5), shares=4, step=1)
    assert len({str(sorted(map(sorted, parts))) for parts in (first, second, other)}) == 3


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_make_the_updates_of_one_process_each_with_its_part(world: int) -> None:
    whole = cut(full(16, 4), shares=4)
    ranks = [cut(full(16, 4), shares=4, rank=rank, world=world) for rank in range(world)]
    for share, part in enumerate(whole):
        assert sorted(chain(*(parts[share] for parts in ranks))) == sorted(part)
        assert {len(parts[share]) for parts in ranks} == {len(part) // world}


def test_a_step_of_which_nothing_is_kept_has_empty_updates() -> None:
    assert cut([], shares=2) == [[], []]
