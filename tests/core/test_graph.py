"""Cells, the better way to each, and ways between them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.graph import StateGraph, fuzzy, same_state


def chain(length: int) -> StateGraph:
    """0 -> 1 -> ... by "on", and back by "back"."""
    graph = StateGraph("0")
    cell = graph.start
    for number in range(1, length):
        came = cell
        cell = graph.add(cell, "on", str(number)).cell
        graph.add(cell, "back", came.key)
    return graph


def test_a_cell_keeps_the_shorter_of_two_ways_with_equal_scores() -> None:
    graph = StateGraph("s")
    far = graph.add(graph.add(graph.start, "a", "m").cell, "b", "t")
    assert (far.is_new, far.is_better, far.cell.actions()) == (True, True, ["a", "b"])
    near = graph.add(graph.start, "c", "t")
    assert (near.is_new, near.is_better, near.cell.actions()) == (False, True, ["c"])
    again = graph.add(graph.cells["m"], "b", "t")
    assert not again.is_better
    assert again.cell.actions() == ["c"]
    assert again.cell.seen == 3
    assert again.way.actions() == ["a", "b"], "the way that was taken, not the best one"


def test_a_higher_score_is_worth_a_longer_way_and_forgets_the_choices() -> None:
    graph = StateGraph("s")
    cell = graph.add(graph.start, "a", "t").cell
    cell.chosen, cell.since_new = 4, 2
    middle = graph.add(graph.start, "b", "m", reward=1.0).cell
    assert (cell.chosen, cell.since_new) == (4, 2)
    richer = graph.add(middle, "c", "t")
    assert richer.is_better
    assert (cell.actions(), cell.score, cell.chosen, cell.since_new) == (["b", "c"], 1.0, 0, 0)
    assert not graph.add(graph.start, "a", "t").is_better


def test_a_way_is_not_changed_by_a_better_way_to_a_cell_on_it() -> None:
    graph = StateGraph("s")
    middle = graph.add(graph.add(graph.start, "a", "x").cell, "b", "m").cell
    end = graph.add(middle, "c", "t").cell
    graph.add(graph.start, "d", "m")
    assert middle.actions() == ["d"]
    assert end.actions() == ["a", "b", "c"]
    assert graph.way("s", "t") == ["d", "c"]


def test_distance_bridge_and_projection_on_a_chain_of_five() -> None:
    graph = chain(5)
    assert graph.way("0", "4") == ["on"] * 4
    assert graph.distances("0") == {str(n): n for n in range(5)}
    assert graph.distances("0", most=2).keys() == {"0", "1", "2"}
    assert graph.bridge("0", "4") == "2"
    assert graph.project("0", "4", within=2) == "2"
    assert graph.project("0", "2", within=2) == "2"
    assert graph.way("0", "4", most=3) is None


def test_where_no_way_leads_nothing_is_found() -> None:
    graph = chain(3)
    graph.cells["away"] = graph.start
    assert graph.way("0", "away") is None
    assert graph.project("0", "away", within=2) is None
    assert graph.bridge("0", "away") is None


@given(st.integers(0, 2**32))
def test_ways_can_be_walked_and_none_is_shorter_than_breadth_first_s(seed: int) -> None:
    rng = Random(seed)
    graph, cell = StateGraph("0"), None
    world = {(s, a): rng.randrange(6) for s in range(6) for a in "abc"}
    for _ in range(40):
        cell = rng.choice([*graph.cells.values()]) if cell is None or rng.random() < 0.2 else cell
        action = rng.choice("abc")
        cell = graph.add(cell, action, str(world[int(cell.key), action])).cell
    for key, found in graph.cells.items():
        for way in (found.actions(), graph.way("0", key)):
            assert way is not None
            at = 0
            for taken in way:
                at = world[at, str(taken)]
            assert str(at) == key
        assert graph.distances("0")[key] == len(graph.way("0", key) or []) <= found.depth


def test_turns_in_the_same_state_are_found_and_those_without_a_key_left_out() -> None:
    keys: list[list[str | None]] = [["a", "b", None], ["a", "c"]]
    assert same_state(keys) == {"a": [(0, 0), (1, 0)], "b": [(0, 1)], "c": [(1, 1)]}
    assert same_state(keys, {"c": "b"})["b"] == [(0, 1), (1, 1)]


def test_texts_that_nearly_agree_count_as_the_first_of_them() -> None:
    long = "you are in a kitchen with a table and a door to the north"
    near, far = long.replace("table", "tablet"), "a dark cellar"
    assert fuzzy([long, near, far], 0.95) == {long: long, near: long, far: far}
    assert fuzzy([long, near], 1.0) == {long: long, near: near}


@pytest.mark.parametrize("action", ["one", ["one", "two"]])
def test_what_was_tried_is_known_by_its_text(action: str | list[str]) -> None:
    graph = StateGraph("s")
    graph.add(graph.start, action, "t")
    assert [*graph.start.tried] == ["one" if action == "one" else "one\ntwo"]
    assert graph.way("s", "t") == [action]
