"""The packed tree against a tree that is built node by node."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.core.types import Row
from agentrl.train.trie.forest import Forest, Wanted, bare, split
from support.models import row
from support.trees import rows_of

SEEDS = st.integers(0, 10**9)


def prefixes(rows: list[Row]) -> set[tuple[int, ...]]:
    return {one.ids[:t] for one in rows for t in range(1, len(one.ids) + 1)}


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 12))
def test_every_distinct_prefix_is_one_node(seed: int, count: int) -> None:
    rows = rows_of(Random(seed), count)
    forest = Forest.of(rows)
    assert forest.unique == len(prefixes(rows))
    assert forest.real == sum(len(one.ids) for one in rows)
    assert sorted(forest.order) == list(range(count))
    for one, nodes in zip(rows, forest.nodes, strict=True):
        assert forest.ids_T[nodes].tolist() == list(one.ids)
        assert forest.depth_T[nodes].tolist() == list(range(len(one.ids)))
        assert forest.parent_T[nodes].tolist() == [-1, *nodes[:-1].tolist()]


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 12))
def test_spans_see_exactly_the_ancestors(seed: int, count: int) -> None:
    forest = Forest.of(rows_of(Random(seed), count))
    seen = np.zeros((forest.unique, forest.unique), dtype=int)
    for start, stop, end, _ in forest.spans:
        causal = np.arange(start, end)[:, None] >= np.arange(start, stop)[None]
        seen[start:end, start:stop] += causal
    expected = np.zeros_like(seen)
    for node in range(forest.unique):
        at = node
        while at >= 0:
            expected[node, at] = 1
            at = int(forest.parent_T[at])
    assert (seen == expected).all()


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 12))
def test_spans_are_chains_that_are_as_long_as_can_be(seed: int, count: int) -> None:
    forest = Forest.of(rows_of(Random(seed), count))
    assert [s.start for s in forest.spans[1:]] == [s.stop for s in forest.spans[:-1]]
    assert (forest.spans[0].start, forest.spans[-1].stop) == (0, forest.unique)
    children = [0] * len(forest.spans)
    for number, span in enumerate(forest.spans):
        above = int(forest.parent_T[span.start])
        if above < 0:
            assert span.parent == -1
        else:
            assert forest.spans[span.parent].stop == above + 1
            children[span.parent] += 1
        assert forest.path(number) == (
            [] if above < 0 else [*forest.path(span.parent), span.parent]
        )
    assert 1 not in children


def test_rows_with_other_pictures_share_nothing() -> None:
    one = bare((1, 2, 3))
    assert Forest.of([one, one]).unique == 3
    assert Forest.of([one, replace(one, images=("a",)), replace(one, images=("b",))]).unique == 9


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 12))
def test_logits_are_wanted_of_distinct_parents_only(seed: int, count: int) -> None:
    rows = rows_of(Random(seed), count)
    forest = Forest.of(rows)
    wanted = Wanted.of(rows, forest)
    sampled = [
        (one.ids[:t], one.ids[t], one.temperature)
        for one in rows
        for t, is_sampled in enumerate(one.mask)
        if is_sampled
    ]
    assert len(wanted.parents_R) == len({prefix for prefix, _, _ in sampled})
    assert len(wanted.ids_N) == len(set(sampled))
    for (prefix, token, temperature), place in zip(sampled, wanted.place_M, strict=True):
        assert wanted.ids_N[place] == token
        assert wanted.temperature_N[place] == temperature
        parent = int(wanted.parents_R[wanted.row_N[place]])
        assert forest.ids_T[parent] == prefix[-1]
        assert forest.depth_T[parent] == len(prefix) - 1
    assert (np.diff(wanted.parents_R[wanted.row_N]) >= 0).all()


def test_a_row_that_begins_with_a_sampled_token_is_refused() -> None:
    rows = [row((7, 8), (True, True))]
    with pytest.raises(DataError, match="prompt must not be empty"):
        Wanted.of(rows, Forest.of(rows))


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 14), st.sampled_from([1, 12, 30, 10_000]))
def test_a_cut_keeps_trajectories_whole_and_new_tokens_within_the_budget(
    seed: int, count: int, budget: int
) -> None:
    rows = rows_of(Random(seed), count)
    parts = split(rows, budget)
    assert sorted(i for part in parts for i in part) == list(range(count))
    keys = [{rows[i].trajectory for i in part} for part in parts]
    assert sum(map(len, keys)) == len(set.union(*keys))
    for part in parts:
        chosen = [rows[i] for i in part]
        assert len({r.trajectory for r in chosen}) == 1 or len(prefixes(chosen)) <= budget


def test_siblings_are_cut_together() -> None:
    rng = Random(0)
    prompts = [[rng.randrange(64) for _ in range(20)] for _ in range(3)]
    rows = [
        row([*prompts[n % 3], n, n], [False] * 20 + [True] * 2, trajectory=n) for n in range(12)
    ]
    parts = split(rows, 28)
    assert {frozenset(i % 3 for i in part) for part in parts} == {frozenset({n}) for n in range(3)}
    assert len(parts) == 3
    assert split([], 10) == []
