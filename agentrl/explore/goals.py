"""Subgoals: what somebody proposes to reach on the way, and how proposals are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, cast

from agentrl.explore.asking import LONGEST, parse_list

Kind = Literal["position", "object", "language"]
KINDS: tuple[Kind, ...] = ("position", "object", "language")
MOST = 50
"""Goals of one answer that are read."""
WORDS = 200
"""Characters of a goal's text and predicate that are kept."""
PLACE = re.compile(r"(-?\d{1,4}) (-?\d{1,4})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A subgoal. `predicate` is what `Env.check` is asked, None where the text is all there is."""

    text: str
    predicate: str | None = None
    kind: Kind = "language"
    cell: str | None = None
    """The key of the state that it names, if it names one."""
    proposer: str = ""
    """Who proposed it."""
    parent: str = ""
    """The cell in which it was proposed."""
    budget: int | None = None
    """Turns in which it has to be reached; None sets no limit of its own."""

    def moved(self, distance: int, rng: Random) -> Goal:
        """The goal with its place so many cells away, by columns and rows together; without a
        place, one that nothing can reach."""
        found = PLACE.search(self.predicate or "")
        if found is None:
            return replace(self, text=f"not {self.text}", predicate="never")
        across = rng.randint(0, distance)
        dx, dy = across * rng.choice((-1, 1)), (distance - across) * rng.choice((-1, 1))
        place = f"{int(found[1]) + dx} {int(found[2]) + dy}"
        old = self.predicate or ""
        moved = f"{old[: found.start()]}{place}{old[found.end() :]}"
        return replace(self, text=self.text.replace(old, moved), predicate=moved)


def goals_of(answer: str) -> list[Goal]:
    """The goals that an answer names: a JSON list of texts or objects (`predicate`, `text`,
    `kind`), or lines that begin with a dash. Empty for anything else; what is no goal is left
    out."""
    text = answer[-LONGEST:].strip()
    if text.startswith("["):
        try:
            held = json.loads(text)
        except (ValueError, RecursionError):
            return []
        found = [_goal(one) for one in held[:MOST]] if isinstance(held, list) else []
        return [goal for goal in found if goal is not None]
    return [Goal(text=item[:WORDS]) for item in (parse_list(text) or [])[:MOST] if item]


def written(goals: Sequence[Goal]) -> str:
    """The goals as a JSON list that `goals_of` reads."""
    return json.dumps(
        [
            {"text": g.text, "kind": g.kind}
            | ({} if g.predicate is None else {"predicate": g.predicate})
            | ({} if g.cell is None else {"cell": g.cell})
            | ({} if g.budget is None else {"budget": g.budget})
            | ({"proposer": g.proposer} if g.proposer else {})
            for g in goals
        ]
    )


def _goal(one: object) -> Goal | None:
    if isinstance(one, str):
        return Goal(text=one[:WORDS]) if one.strip() else None
    if not isinstance(one, Mapping):
        return None
    predicate, cell, kind = one.get("predicate"), one.get("cell"), one.get("kind", "language")
    text, budget = one.get("text", predicate), one.get("budget")
    if not isinstance(text, str) or not text.strip() or kind not in KINDS:
        return None
    proposer = one.get("proposer", "")
    is_count = isinstance(budget, int) and not isinstance(budget, bool) and budget > 0
    return Goal(
        text=text[:WORDS],
        predicate=predicate[:WORDS] if isinstance(predicate, str) else None,
        kind=cast("Kind", kind),
        cell=cell if isinstance(cell, str) else None,
        budget=budget if is_count else None,
        proposer=proposer[:WORDS] if isinstance(proposer, str) else "",
    )
