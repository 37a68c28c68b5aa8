"""When a subgoal counts as reached: by the env's own check, else by the state, else by words.

In this order, and the first that can tell decides: an env that says no is not overruled by words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.explore.captions import news
from agentrl.explore.embedding import cosine, embed
from agentrl.explore.goals import Goal

How = Literal["predicate", "cell", "caption", "judge"]
ORDER: tuple[How, ...] = ("predicate", "cell", "caption", "judge")
Judge = Callable[[Goal, "Moment", "Moment"], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known of an episode before or after a turn."""

    holds: bool | None = None
    """What the env's check says of the goal."""
    cell: str | None = None
    """The state's key."""
    text: str = ""
    """What the env showed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a turn reached a goal, and who says so; `how` is None where nobody can tell."""

    reached: bool
    how: How | None = None
    score: float = 0.0
    """1 or 0, or the similarity of the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Which verifiers may decide, in the fixed order, and how alike words must be."""

    allowed: tuple[How, ...] = ("predicate", "cell")
    least: float = 0.99
    """Cosine of a goal and the caption of a turn (0..1)."""
    acted: bool = True
    """Words count only for turns whose action succeeded."""

    def quick(self, goal: Goal, before: Moment, after: Moment, *, succeeded: bool) -> Verdict:
        """The verdict without the judge."""
        for how in ORDER:
            if how not in self.allowed or how == "judge":
                continue
            verdict = self._by(how, goal, before, after, succeeded=succeeded)
            if verdict is not None:
                return verdict
        return Verdict(reached=False)

    async def verify(
        self, goal: Goal, before: Moment, after: Moment, judge: Judge, *, succeeded: bool = True
    ) -> Verdict:
        """The verdict; the judge is asked where nobody else can tell and he is allowed."""
        verdict = self.quick(goal, before, after, succeeded=succeeded)
        if verdict.how is not None or "judge" not in self.allowed:
            return verdict
        said = await judge(goal, before, after)
        return verdict if said is None else Verdict(reached=said, how="judge", score=float(said))

    def _by(
        self, how: How, goal: Goal, before: Moment, after: Moment, *, succeeded: bool
    ) -> Verdict | None:
        """The verdict of one verifier; None if it cannot tell."""
        match how:
            case "predicate":
                if goal.predicate is None or before.holds is None or after.holds is None:
                    return None
                reached = after.holds and not before.holds
                return Verdict(reached=reached, how=how, score=float(reached))
            case "cell":
                if goal.cell is None or after.cell is None:
                    return None
                reached = goal.cell == after.cell != before.cell
                return Verdict(reached=reached, how=how, score=float(reached))
            case _:
                if goal.predicate is not None or goal.cell is not None:
                    return None  # what names a condition or a state is not known by its words
                if self.acted and not succeeded:
                    return Verdict(reached=False, how=how)
                score = likeness(goal.text, news(before.text, after.text))
                return Verdict(reached=score >= self.least, how=how, score=score)


def likeness(text: str, captions: Sequence[str]) -> float:
    """The highest cosine of a text and any of the captions, 0 without any."""
    return max((cosine(embed(text), embed(line)) for line in captions), default=0.0)
