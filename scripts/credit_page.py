"""Write docs/credit.md: every advantage estimator against the exact advantage of small MDPs.

    python scripts/credit_page.py            # measure (minutes on one core), then write the page
    python scripts/credit_page.py --page     # only write the page from docs/credit/measured.json

A turn is one action of two tokens, each with two choices, drawn from a random table by state. The
exact advantage of a token, `Q - V` of the process over tokens with everything that is left until
the horizon, comes from enumeration. Groups are then sampled and given to the registered estimators
as they are, and every sampled token's credit is compared with its exact advantage.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from agentrl.algo.spread import spread
from agentrl.core.protocols import Advantage
from agentrl.core.registry import find
from agentrl.core.types import Group, Score, Scored, Stop, Task, Trajectory, Turn
from agentrl.rollout.fold import fold

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "credit.md"
PLOT = ROOT / "docs" / "credit" / "correlation.svg"
KEPT = ROOT / "docs" / "credit" / "measured.json"
TASK = Task(id="credit", seed=0)
SIBLINGS, POLICIES, GROUPS = 8, 3, 200
SMALL = 25
"""Groups of the sample that the tests draw again."""

Outcomes = dict[str, list[tuple[float, str | None, float]]]
"""Action (two digits) -> (probability, next state or None for an end, reward)."""


@dataclass(frozen=True)
class Mdp:
    """States with what their actions lead to; an episode ends at the horizon at the latest."""

    about: str
    horizon: int
    outcomes: dict[str, Outcomes]
    start: str = "0"


def sure(there: str | None, reward: float = 0.0) -> list[tuple[float, str | None, float]]:
    """One outcome."""
    return [(1.0, there, reward)]


def chain() -> Mdp:
    """One action leads on, the others stay or go back; the end of the chain pays."""
    states = {}
    for n in range(4):
        on = sure(None, 1.0) if n == 3 else sure(str(n + 1))
        back = sure(str(max(n - 1, 0)))
        states[str(n)] = {"00": back, "01": sure(str(n)), "10": sure(str(n)), "11": on}
    return Mdp("a chain of 4 states, 6 turns", 6, states)


def trap() -> Mdp:
    """A tree in which one way ends without anything, one pays at once a little, one later a lot."""
    states: dict[str, Outcomes] = {
        "0": {"00": sure(None), "01": sure("l"), "10": sure("r"), "11": sure("r")},
        "l": {"00": sure(None, 0.3), "01": sure(None, 0.3), "10": sure("0"), "11": sure(None)},
        "r": {"00": sure(None), "01": sure("0"), "10": sure("z"), "11": sure("z")},
        "z": {"00": sure(None, 1.0), "01": sure(None, 1.0), "10": sure("r"), "11": sure(None)},
    }
    return Mdp("a tree with a trap, 6 turns", 6, states)


def grid() -> Mdp:
    """3 x 3 fields with a hole; one move in five slips to the side."""
    moves = {"00": (0, 1), "01": (0, -1), "10": (1, 0), "11": (-1, 0)}

    def at(x: int, y: int, dx: int, dy: int) -> tuple[str | None, float]:
        x, y = min(max(x + dx, 0), 2), min(max(y + dy, 0), 2)
        if (x, y) == (2, 2):
            return None, 1.0
        return (None, 0.0) if (x, y) == (1, 1) else (f"{x}{y}", 0.0)

    states: dict[str, Outcomes] = {}
    for x in range(3):
        for y in range(3):
            if (x, y) not in ((1, 1), (2, 2)):
                states[f"{x}{y}"] = {
                    name: [
                        (share, *at(x, y, *way))
                        for share, way in ((0.8, (dx, dy)), (0.1, (dy, dx)), (0.1, (-dy, -dx)))
                    ]
                    for name, (dx, dy) in moves.items()
                }
    return Mdp("a slippery grid of 3 x 3 with a hole, 7 turns", 7, states, "00")


def paid() -> Mdp:
    """The chain with a toll for every move and a tip for every step on."""
    plain = chain()
    states = {
        state: {
            action: [
                (p, there, r + (0.2 if action == "11" else -0.1 if action == "00" else 0.0))
                for p, there, r in found
            ]
            for action, found in outcomes.items()
        }
        for state, outcomes in plain.outcomes.items()
    }
    return Mdp("the chain with rewards in every turn", 6, states)


MDPS: dict[str, Callable[[], Mdp]] = {"chain": chain, "trap": trap, "grid": grid, "paid": paid}


@dataclass
class Exact:
    """A policy on an MDP, and its exact values over tokens: a state's, and one token later."""

    mdp: Mdp
    policy: dict[tuple[str, str], float]
    """(state, tokens so far) -> probability that the next token is 1."""
    known: dict[tuple[str, int, str], float] = field(default_factory=dict)

    @classmethod
    def drawn(cls, mdp: Mdp, rng: Random) -> Exact:
        """A random table of logits."""
        chances = {
            (state, before): 1 / (1 + math.exp(-rng.gauss(0.0, 1.0)))
            for state in sorted(mdp.outcomes)
            for before in ("", "0", "1")
        }
        return cls(mdp, chances)

    def chance(self, state: str, before: str, token: str) -> float:
        """Of a token."""
        one = self.policy[state, before]
        return one if token == "1" else 1.0 - one

    def value(self, state: str | None, left: int, before: str = "") -> float:
        """What is earned from here on with `left` turns to go, by enumeration."""
        if state is None or not left:
            return 0.0
        key = (state, left, before)
        if key not in self.known:
            if len(before) == 2:
                self.known[key] = sum(
                    p * (reward + self.value(there, left - 1))
                    for p, there, reward in self.mdp.outcomes[state][before]
                )
            else:
                self.known[key] = sum(
                    self.chance(state, before, token) * self.value(state, left, before + token)
                    for token in "01"
                )
        return self.known[key]

    def advantage(self, state: str, left: int, before: str, token: str) -> float:
        """`Q - V` of a token."""
        return self.value(state, left, before + token) - self.value(state, left, before)

    def play(self, rng: Random, *, greedy: bool = False) -> tuple[Trajectory, list[Place]]:
        """One episode, and where each of its tokens was drawn."""
        state: str | None = self.mdp.start
        turns, places, left = [], [], self.mdp.horizon
        while state is not None and left:
            action = ""
            for _ in range(2):
                one = self.policy[state, action]
                token = str(int(one > 0.5 if greedy else rng.random() < one))
                places.append((state, left, action, token))
                action += token
            found = self.mdp.outcomes[state][action]
            (_, there, reward) = rng.choices(found, weights=[p for p, _, _ in found])[0]
            turns.append(
                Turn(
                    prompt_ids=(9, len(turns)),
                    action_ids=tuple(map(int, action)),
                    sampler_logprobs=(0.0, 0.0),
                    row=len(turns),
                    reward=reward,
                    state_key=state,
                )
            )
            state, left = there, left - 1
        rewards = tuple(turn.reward for turn in turns)
        total = math.fsum(rewards)
        score = Score(value=total, turns=rewards)
        return Trajectory(
            task=TASK, turns=tuple(turns), stop=Stop.DONE, score=score, success=total >= 0.9
        ), places


Place = tuple[str, int, str, str]
"""State, turns left, tokens before, token."""


@dataclass(frozen=True)
class Entry:
    """An estimator with the settings under which it is in units of the reward, if it has such."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    error: float = 0.0
    """Standard deviation of a fixed error of the critic's value of each state."""
    scaled: bool = False
    """It divides by what the step brings: only its correlation means something."""

    @property
    def title(self) -> str:
        """For the table."""
        told = ", ".join(f"{key} {value}".lower() for key, value in self.settings.items())
        told += f"; values wrong by {self.error}" if self.error else ""
        return f"`{self.name}`{f' ({told})' if told else ''}"


RAW = {"whiten": False}
ENTRIES = (
    Entry("grpo", {"scale": "none"}),
    Entry("grpo", scaled=True),
    Entry("rloo"),
    Entry("opo"),
    Entry("gpg", scaled=True),
    Entry("remax"),
    Entry("reinforce_pp", scaled=True),
    Entry("reinforce_pp_baseline", scaled=True),
    Entry("gtpo_turn", {"gamma": 1.0}, scaled=True),
    Entry("gigpo", {"gamma": 1.0}),
    Entry("hgpo", {"gamma": 1.0}),
    Entry("hgpo", {"gamma": 1.0, "history": 0}),
    Entry("graphgpo", scaled=True),
    Entry("g2po", {"gamma": 1.0}),
    Entry("token_gae", {"lam": 1.0, **RAW}),
    Entry("token_gae", {"lam": 0.0, **RAW}),
    Entry("token_gae", {"lam": 1.0, **RAW}, error=0.2),
    Entry("token_gae", {"lam": 0.0, **RAW}, error=0.2),
    Entry("turn_gae", {"lam": 0.9, **RAW}),
    Entry("turn_gae", {"lam": 0.9, **RAW}, error=0.2),
    Entry("bilevel_gae", {"gamma_turn": 1.0, "lam": 0.9, **RAW}),
    Entry("bilevel_gae", {"gamma_turn": 1.0, "lam": 0.9, **RAW}, error=0.2),
)
OTHERS = {
    "passk": "pays the best of a group alone",
    "gdpo": "weighs the parts of a reward against each other",
    "gtpo_conflict": "masks and weighs tokens",
    "gtpo_entropy": "shapes rewards by entropy",
    "mask_truncated": "masks tokens",
    "raft": "chooses what is imitated",
    "expert_iteration": "chooses what is imitated",
    "mrt": "adds what going on was worth beside an answer at once, behind a cut",
    "mrt_dense": "pays progress that probes measured",
    "tree": "compares parts of branched episodes; without branches it is twice the centred reward",
    "hbpo": "adds what a whole subgroup earned below its budget's worth",
    "sft_mix": "adds the likelihood of successes",
}
"""Estimators that do not claim to estimate an advantage, and what they do."""


def sampled(exact: Exact, rng: Random, groups: int) -> tuple[list[Group], list[list[list[Place]]]]:
    """Groups, and where their tokens were drawn."""
    made, places = [], []
    for _ in range(groups):
        played = [exact.play(rng) for _ in range(SIBLINGS)]
        greedy, _ = exact.play(rng, greedy=True)
        trajectories = tuple(t for t, _ in played)
        made.append(Group(task=TASK, trajectories=trajectories, greedy=greedy))
        places.append([own for _, own in played])
    return made, places


def credit_of(
    estimator: Advantage, groups: Sequence[Group], values: Sequence[Sequence[Sequence[float]]]
) -> list[list[list[float]]]:
    """Each sampled token's credit, as training would have it; eight groups are a step."""
    found: list[list[list[float]]] = []
    for first in range(0, len(groups), 8):
        part = groups[first : first + 8]
        step = Scored(
            groups=tuple(part),
            values=values[first : first + 8],
            end_values=[[0.0] * SIBLINGS for _ in part],
        )
        rows = [row for g, group in enumerate(part) for row in fold(group, index=g)]
        credit: list[list[list[float]]] = [[[] for _ in range(SIBLINGS)] for _ in part]
        for row, tokens in zip(rows, spread(rows, part, estimator(step)), strict=True):
            credit[row.group][row.trajectory] += [
                value
                for value, is_sampled in zip(tokens.values, row.mask, strict=True)
                if is_sampled
            ]
        found += credit
    return found


def compared(pairs: Sequence[tuple[Place, float]], exact: Exact) -> dict[str, float]:
    """Bias and deviation (in units of the reward) and correlation with the exact advantage.

    Bias is the root of the mean square, over tokens, of what is wrong on average at a token's state
    and choice, less what sampling alone would make of it.
    """
    by_place: dict[Place, list[float]] = {}
    for place, value in pairs:
        by_place.setdefault(place, []).append(value)
    total = len(pairs)
    bias = variance = 0.0
    for place, values in by_place.items():
        n, mean = len(values), math.fsum(values) / len(values)
        own = math.fsum((v - mean) ** 2 for v in values) / max(n - 1, 1)
        bias += n / total * ((mean - exact.advantage(*place)) ** 2 - own / n)
        variance += n / total * own
    xs, ys = [v for _, v in pairs], [exact.advantage(*place) for place, _ in pairs]
    mx, my = math.fsum(xs) / total, math.fsum(ys) / total
    sxx = math.fsum((x - mx) ** 2 for x in xs)
    syy = math.fsum((y - my) ** 2 for y in ys)
    sxy = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return {
        "bias": math.sqrt(max(bias, 0.0)),
        "deviation": math.sqrt(variance),
        "correlation": sxy / math.sqrt(sxx * syy) if sxx and syy else 0.0,
    }


def token_states(exact: Exact) -> list[tuple[str, int, str]]:
    """Every state in which a token may be drawn."""
    lefts = range(1, exact.mdp.horizon + 1)
    return [(s, n, b) for s in sorted(exact.mdp.outcomes) for n in lefts for b in ("", "0", "1")]


def measure(groups: int, mdps: Sequence[str], policies: int) -> list[dict[str, Any]]:
    """Each entry on each MDP: means over random policies."""
    found = []
    for name in mdps:
        parts: list[list[dict[str, float]]] = [[] for _ in ENTRIES]
        for seed in range(policies):
            rng = Random(f"{name} {seed}")
            exact = Exact.drawn(MDPS[name](), rng)
            sample, places = sampled(exact, rng, groups)
            errors = {key: rng.gauss(0.0, 1.0) for key in token_states(exact)}
            for entry, own in zip(ENTRIES, parts, strict=True):
                own.append(judged(entry, exact, sample, places, errors))
        for number, own in enumerate(parts):
            row = {key: math.fsum(p[key] for p in own) / len(own) for key in own[0]}
            found.append({"mdp": name, "entry": number, **row})
    return found


def judged(
    entry: Entry,
    exact: Exact,
    sample: Sequence[Group],
    places: Sequence[Sequence[Sequence[Place]]],
    errors: Mapping[tuple[str, int, str], float],
) -> dict[str, float]:
    """One estimator on one sample."""
    values = [
        [
            [exact.value(s, n, b) + entry.error * errors[s, n, b] for s, n, b, _ in own]
            for own in siblings
        ]
        for siblings in places
    ]
    estimator = find("advantage", entry.name)(**entry.settings)
    credit = credit_of(estimator, sample, values)
    pairs = [
        pair
        for siblings, own in zip(places, credit, strict=True)
        for where, tokens in zip(siblings, own, strict=True)
        for pair in zip(where, tokens, strict=True)
    ]
    return compared(pairs, exact)


def plot(found: Sequence[Mapping[str, Any]]) -> str:
    """Correlations as an SVG: a bar for the mean of an estimator, a dot for each MDP."""
    width, left, line = 860, 420, 22
    height = line * len(ENTRIES) + 50
    span = width - left - 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in range(6):
        x = left + span * tick / 5
        parts.append(f'<path d="M{x:.0f} 8V{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.0f}" y="{height - 16}" text-anchor="middle">{tick / 5}</text>')
    for number, entry in enumerate(ENTRIES):
        values = [row["correlation"] for row in found if row["entry"] == number]
        y, mean = 12 + line * number, math.fsum(values) / len(values)
        title = entry.title.replace("`", "")
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{title}</text>')
        bar = span * max(mean, 0.0)
        parts.append(f'<rect x="{left}" y="{y}" width="{bar:.1f}" height="15" fill="#8fb3d9"/>')
        for value in values:
            x = left + span * max(value, 0.0)
            parts.append(f'<circle cx="{x:.1f}" cy="{y + 7.5}" r="3" fill="#1f4e79"/>')
    end = "correlation with the exact advantage: mean, and one dot for each process"
    parts.append(f'<text x="{left}" y="{height - 2}">{end}</text></svg>')
    return "\n".join(parts) + "\n"


INTRO = """\
# Credit against the exact advantage

Generated by `scripts/credit_page.py`; do not edit. On four small processes, with three random
policies each, the exact advantage of every token is known by enumeration: a turn is an action of
two tokens, each with two choices, an episode ends at a horizon that the state does not show.
{groups} groups of 8 siblings are sampled from each policy, and eight groups are a step.

- *Correlation* of each sampled token's credit with the exact `Q - V` (undiscounted) of that token.
- *Bias*: the root of the mean square, over tokens, of what the credit is wrong by on average at a
  token's state and choice. *Deviation*: of single credits round that average. Both in units of the
  reward (a success is 1). An estimator that divides by what a step brings has no such units: only
  its correlation is given.
- Estimators with values get the exact ones, or exact ones plus an error of each state that stays
  (normal, deviation 0.2): what a critic that is off does to them.

What is seen, on these processes. Success is rare in three of them: the random policies reach it in
0.2 to 3 % of the episodes on the chains, in 2 to 6 % on the grid, and in 10 to 21 % on the tree, so
that most groups on the chains and the grid hold no success at all.

- Credit that is one number per episode correlates with 0.16 to 0.40, whichever baseline it has;
  returns of what follows a turn do a little better where turns are paid.
- Exact values are worth the most. With `lam 0` they are the exact advantage where nothing slips;
  with `lam 1` there is no bias, and the noise of all that follows. Two levels with `lam 0.9` do
  better than turns with 0.9 or tokens with 1. One advantage for a turn is biased: both of its
  tokens get the same.
- Values that are off by 0.2 cost about half of that, and most of it with `lam 0`: then a critic is
  no better than the mean of the siblings, but on the tree.
- Groups by state are no gain by themselves. The states do not show how much time is left, and a
  turn that is alone in its state (or has no rival with its history) gets nothing: `hgpo` correlates
  least on the chain and on the grid, `gigpo` less than `grpo` on three of four. Their units are not
  the advantage's: episode and step are added.
- The graph helps where ways meet and part: `g2po` and `graphgpo` are the best without a critic on
  the tree, `g2po` on the chain with rewards.
"""


def page(kept: Mapping[str, Any]) -> str:
    """The Markdown of docs/credit.md."""
    found = kept["rows"]
    lines = [INTRO.format(groups=kept["groups"]), "![correlations](credit/correlation.svg)", ""]
    for name, make in MDPS.items():
        lines += [
            f"## {make().about}",
            "",
            "| estimator | correlation | bias | deviation |",
            "| --- | --- | --- | --- |",
        ]
        for row in found:
            entry = ENTRIES[row["entry"]]
            if row["mdp"] == name:
                rest = (
                    "|  |  |" if entry.scaled else f"| {row['bias']:.3f} | {row['deviation']:.3f} |"
                )
                lines.append(f"| {entry.title} | {row['correlation']:.3f} {rest}")
        lines.append("")
    lines += [
        "## Estimators that claim something else",
        "",
        "They are held to their own definitions, worked by hand or by brute force, in their tests.",
        "",
        "| name | what it does | tests |",
        "| --- | --- | --- |",
    ]
    methods = runpy.run_path(str(ROOT / "scripts" / "methods_page.py"))
    for name, what in OTHERS.items():
        tests = methods["tests_of"](find("advantage", name))
        shown = ", ".join(f"[{p.stem}](../{p.relative_to(ROOT)})" for p in tests[:3])
        lines.append(f"| `{name}` | {what} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Write docs/credit.md.")
    parser.add_argument("--page", action="store_true", help="only write the page")
    if not parser.parse_args().page:
        kept = {
            "groups": GROUPS,
            "rows": measure(GROUPS, [*MDPS], POLICIES),
            "small": measure(SMALL, [*MDPS], 1),
        }
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    kept = json.loads(KEPT.read_text())
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot(kept["rows"]))
    PAGE.write_text(page(kept))
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
