"""Counting states: what was entered less often is worth more."""

import json

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Json
from agentrl.explore.bonuses.counts import Counts
from agentrl.explore.bonuses.several import Part, Several
from support.walks import walk, walks


def test_a_state_is_worth_one_over_the_root_of_its_visits_before_the_step() -> None:
    bonus = Counts(kind="global")
    for _ in range(3):
        bonus.observe([walks("ab")])
    assert bonus.rate([walks("ab", "bcb")]) == [[[0.5, 0.5], [0.5, 1.0, 0.5]]]


def test_siblings_of_one_step_are_rated_alike() -> None:
    bonus = Counts(kind="global")
    [first, second] = bonus.rate([walks("ab", "ab"), walks("ab", "ab")])
    assert first == second == [[1.0, 1.0], [1.0, 1.0]]


def test_an_episode_is_paid_once_for_a_state_and_never_for_its_own_start() -> None:
    bonus = Counts(kind="episodic")
    bonus.observe([walks("aaa")])
    assert bonus.rate([walks("as", "asba", start="s")]) == [[[1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]]


def test_the_product_is_both() -> None:
    bonus = Counts(kind="product")
    for _ in range(3):
        bonus.observe([walks("a")])
    assert bonus.rate([walks("aab", start="s")]) == [[[0.5, 0.0, 1.0]]]


def test_tasks_share_their_counts_or_have_their_own() -> None:
    for pool, expected in (("all", 0.5), ("task", 1.0)):
        bonus = Counts(kind="global", pool="task" if pool == "task" else "all")
        for _ in range(3):
            bonus.observe([walks("a", task="one")])
        assert bonus.rate([walks("a", task="other")]) == [[[expected]]]


def test_what_branches_share_was_entered_once() -> None:
    bonus = Counts(kind="global")
    group = walks("abc", "abd", branch_at=2)
    bonus.observe([group])
    task = group.task
    assert [bonus.count(task, key) for key in "abcd"] == [1, 1, 1, 1]


def test_a_turn_whose_state_is_unknown_is_worth_nothing() -> None:
    bonus = Counts(kind="global")
    group = walks("a")
    lost = walk("a", keys=False)
    bonus.observe([group])
    assert bonus.rate([walks(episodes=[lost])]) == [[[0.0]]]


def test_counts_survive_as_json() -> None:
    bonus, twin = Counts(), Counts()
    bonus.observe([walks("abc")])
    twin.restore(json.loads(json.dumps(bonus.state())))
    assert twin.rate([walks("abd")]) == bonus.rate([walks("abd")])
    assert twin.state() == bonus.state() != {}


@pytest.mark.parametrize("state", [3, {"a": "b"}])
def test_another_state_is_refused(state: Json) -> None:
    with pytest.raises(ConfigError, match="bonus: expected"):
        Counts().restore(state)


def test_several_bonuses_add_up_by_weight_and_keep_their_states() -> None:
    def fresh() -> Several:
        return Several(
            parts=(
                Part(bonus=Counts(kind="global"), weight=2.0),
                Part(bonus=Counts(kind="episodic"), weight=0.5),
            )
        )

    bonus, twin = fresh(), fresh()
    for _ in range(3):
        bonus.observe([walks("a")])
    assert bonus.rate([walks("aab", start="s")]) == [[[1.5, 1.0, 2.5]]]
    assert bonus.needs == {"state_keys"}
    twin.restore(json.loads(json.dumps(bonus.state())))
    assert twin.rate([walks("ab")]) == bonus.rate([walks("ab")])
    with pytest.raises(ConfigError, match="expected the states of 2 bonuses"):
        twin.restore({"0": {}})
