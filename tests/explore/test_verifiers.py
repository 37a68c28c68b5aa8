"""Who may say that a subgoal is reached, and in which order they are asked."""

import asyncio

import pytest

from agentrl.explore.goals import Goal
from agentrl.explore.verifiers import Moment, Verdict, Verifier, likeness

ALL = Verifier(allowed=("judge", "caption", "cell", "predicate"), least=0.99)
WORDS = Goal(text="chop tree")


def judged(said: bool | None, goal: Goal, before: Moment, after: Moment) -> tuple[Verdict, int]:
    asked = 0

    async def judge(goal: Goal, before: Moment, after: Moment) -> bool | None:
        nonlocal asked
        asked += 1
        return said

    return asyncio.run(ALL.verify(goal, before, after, judge)), asked


@pytest.mark.parametrize(
    ("before", "after", "reached"),
    [(False, True, True), (True, True, False), (False, False, False), (True, False, False)],
)
def test_a_condition_has_to_become_true(before: bool, after: bool, reached: bool) -> None:
    goal = Goal(text="open door", predicate="open door", cell="k")
    verdict, asked = judged(
        True,
        goal,
        Moment(holds=before, cell="a"),
        Moment(holds=after, cell="k", text="open door"),
    )
    assert verdict == Verdict(reached=reached, how="predicate", score=float(reached))
    assert asked == 0, "an env that says no is not overruled"


def test_where_the_env_cannot_tell_the_state_decides() -> None:
    goal = Goal(text="the cellar", predicate="in cellar", cell="cellar")
    moments = Moment(cell="hall"), Moment(cell="cellar"), Moment(cell="attic")
    assert ALL.quick(goal, moments[0], moments[1], succeeded=True).how == "cell"
    assert ALL.quick(goal, moments[0], moments[1], succeeded=True).reached
    assert not ALL.quick(goal, moments[0], moments[2], succeeded=True).reached
    assert not ALL.quick(goal, moments[1], moments[1], succeeded=True).reached, "it was there"


def test_words_decide_for_goals_that_are_only_words_and_turns_that_succeeded() -> None:
    before, after = Moment(text="a tree\nyou wait"), Moment(text="a tree\nchop tree")
    verdict = ALL.quick(WORDS, before, after, succeeded=True)
    assert (verdict.reached, verdict.how) == (True, "caption")
    assert verdict.score == pytest.approx(1.0)
    assert not ALL.quick(WORDS, before, after, succeeded=False).reached
    assert not ALL.quick(WORDS, after, after, succeeded=True).reached
    named = Goal(text="chop tree", predicate="never")
    assert ALL.quick(named, before, after, succeeded=True) == Verdict(reached=False)


def test_the_judge_is_asked_last_and_only_where_nobody_else_can_tell() -> None:
    named = Goal(text="win", predicate="unheard of")
    for said in (True, False):
        verdict, asked = judged(said, named, Moment(), Moment())
        assert (verdict.reached, verdict.how, asked) == (said, "judge", 1)
    verdict, asked = judged(None, named, Moment(), Moment())
    assert (verdict.reached, verdict.how, asked) == (False, None, 1)
    verdict, asked = judged(True, WORDS, Moment(), Moment())
    assert (verdict.reached, verdict.how, asked) == (False, "caption", 0)


def test_by_default_neither_words_nor_a_judge_are_believed() -> None:
    verdict = Verifier().quick(WORDS, Moment(), Moment(text="chop tree"), succeeded=True)
    assert verdict == Verdict(reached=False)


def test_words_are_compared_with_the_likest_line() -> None:
    assert likeness("c", []) == 0.0
    assert likeness("get the key", ["you see a door", "get the key"]) == pytest.approx(1.0)
