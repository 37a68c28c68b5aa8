"""Where rows lie, and that their contents go with them."""

import mmap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.protocols import SamplingParams
from agentrl.engines.rows import Request, Row, common_prefix
from agentrl.engines.slots import Move, Pool, Shape, arrange, fit

SHAPE = Shape(2, 1, 2, 3, 2, torch.float32, torch.device("cpu"))


def row(slot: int, filled: int = 1, *, max_tokens: int | None = None) -> Row:
    ids = list(range(filled))
    asked = None
    if max_tokens is not None:
        asked = Request(
            prompt=ids, params=SamplingParams(max_tokens=max_tokens), episode=0, group=0
        )
    return Row(asked, 0, 0, ids, filled=filled, slot=slot)


@st.composite
def rooms(draw: st.DrawFn) -> tuple[list[list[Row]], list[Row]]:
    slots = draw(st.permutations(range(draw(st.integers(1, 12)))))
    rows = [row(slot) for slot in slots]
    news = [row(-1, 0) for _ in range(draw(st.integers(0, 3)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), min_size=3, max_size=3)))
    first, second, third = rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] : cuts[2]]
    return [first, second + news, third], rows[cuts[2] :]


@settings(max_examples=50)
@given(rooms())
def test_regions_lie_side_by_side_and_contents_follow_their_rows(
    room: tuple[list[list[Row]], list[Row]],
) -> None:
    regions, idle = room
    everybody = [row for region in regions for row in region] + idle
    pool = Pool(SHAPE, len(everybody), 1)
    names = {}
    for place in everybody:
        if place.slot >= 0:
            names[id(place)] = float(place.slot)
            pool.content[:, :, place.slot] = place.slot
    staying = [r.slot for r in regions[0] if 0 <= r.slot < len(regions[0])]
    moves = arrange(regions, idle)
    pool.move(moves)
    assert sorted(r.slot for r in everybody) == list(range(len(everybody)))
    first = 0
    for region in regions:
        assert {r.slot for r in region} == set(range(first, first + len(region)))
        first += len(region)
    for place in everybody:
        if id(place) in names:
            assert pool.content[:, :, place.slot].unique().tolist() == [names[id(place)]]
    assert not {move.source for move in moves} & set(staying), "who lies right stays"


def test_a_pool_keeps_its_rows_when_it_grows() -> None:
    active, idle = [row(0, 40, max_tokens=10), row(-1, 3, max_tokens=1)], [row(5, 7)]
    pool = fit(None, SHAPE, 800, active, idle)
    pool.content[:, :, 0, :, :40], pool.content[:, :, 5, :, :7] = 1, 2
    active[0].ids += range(100)
    grown = fit(pool, SHAPE, 10_000, active, idle)
    assert grown.length >= 140 > pool.length
    assert grown.slots >= 3
    assert grown.content[:, :, active[0].slot, :, :40].unique().tolist() == [1]
    assert grown.content[:, :, idle[0].slot, :, :7].unique().tolist() == [2]
    assert fit(grown, SHAPE, 10_000, active, idle) is grown


def test_room_takes_memory_only_where_rows_are() -> None:
    rows = [row(-1, 40, max_tokens=10) for _ in range(3)]
    pool = fit(None, SHAPE, 2**20, rows, [])
    assert (pool.slots, pool.length) == (8, 2**17), "slots are as long as the capacity goes"
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("memory is read from /proc")
    before = int(statm.read_text().split()[1])
    pool.content[:, :, :, :, :64] = 1
    grown = (int(statm.read_text().split()[1]) - before) * mmap.PAGESIZE
    assert grown < pool.content.nbytes / 8


def test_a_pool_never_takes_more_than_its_capacity() -> None:
    rows = [row(-1, 100, max_tokens=100) for _ in range(20)]
    for capacity in (20 * 112, 20 * 208, 32 * 208, 32 * 256):
        pool = fit(None, SHAPE, capacity, rows, [])
        assert pool.slots * pool.length <= capacity
        assert pool.slots >= 20
        assert pool.length >= 100
    tokens = 10_000 * SHAPE.token_bytes
    assert Pool(SHAPE, 10, 1000).content.nbytes == tokens


def test_a_slot_may_be_source_and_target() -> None:
    pool = Pool(SHAPE, 3, 4)
    for slot in range(3):
        pool.content[:, :, slot] = slot
    pool.move([Move(0, 1, 4), Move(1, 2, 3), Move(2, 0, 4)])
    found = [pool.content[:, :, slot, :, :3].unique().tolist() for slot in range(3)]
    assert found == [[2], [0], [1]]
    assert pool.content[:, :, 2, :, 3].unique().tolist() == [2], "no more than its length is moved"


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefixes_are_as_long_as_they_can_be(a: list[int], b: list[int]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]
