"""What a step's groups say beyond their means: which behaviour wins, what the policy itself knows.

Everything here reads what was sampled; only styles decode it, and they are off by default.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from statistics import fmean

from agentrl.core.styles import OTHER, Styles
from agentrl.core.types import Group, Sum, Trajectory


def diagnosed(
    groups: Sequence[Group], styles: Styles | None, decode: Callable[[list[int]], object]
) -> dict[str, Sum]:
    """All of it; `decode` makes a reply's tokens text."""
    return {**group_metrics(groups), **style_metrics(groups, styles, decode)}


def group_metrics(groups: Sequence[Group]) -> dict[str, Sum]:
    """`groups/pass_at_k`: share of tasks that one of the siblings solved, beside the mean success.

    `verify/pairs`: how often the policy's mean logprob of a success is above that of a failed
    sibling (ties half), and `verify/gap`: success of the sibling that it finds likeliest, less the
    siblings' mean: what it would gain by its own judgement (the generation-verification gap of Song
    et al. 2024, arXiv 2412.02674, with likelihood as the verifier).
    """
    solved, right, gap = Sum(0.0, 0.0), Sum(0.0, 0.0), Sum(0.0, 0.0)
    for group in groups:
        siblings = [group.trajectories[i] for i in group.scored]
        if len(siblings) < 2:
            continue
        success = [float(bool(t.success)) for t in siblings]
        judged = [likelihood(t) for t in siblings]
        best = [s for s, value in zip(success, judged, strict=True) if value == max(judged)]
        good = [v for s, v in zip(success, judged, strict=True) if s]
        bad = [v for s, v in zip(success, judged, strict=True) if not s]
        solved += Sum(max(success))
        gap += Sum(fmean(best) - fmean(success))
        ranked = math.fsum((a > b) + 0.5 * (a == b) for a, b in product(good, bad))
        right += Sum(ranked, float(len(good) * len(bad)))
    found = {"groups/pass_at_k": solved, "verify/gap": gap, "verify/pairs": right}
    return {key: value for key, value in found.items() if value.weight}


def likelihood(trajectory: Trajectory) -> float:
    """Mean logprob of the sampled tokens; 0 without any."""
    logprobs = [value for turn in trajectory.turns for value in turn.sampler_logprobs]
    return fmean(logprobs) if logprobs else 0.0


def style_metrics(
    groups: Sequence[Group], styles: Styles | None, decode: Callable[[list[int]], object]
) -> dict[str, Sum]:
    """`style/NAME`: share of the episodes, `style/NAME_success`: success of those, and
    `style/entropy`: of the shares, in nats. Nothing without styles."""
    if styles is None:
        return {}
    episodes = [t for group in groups for t in group.trajectories if not t.stop.is_failure]
    texts = [[str(decode([*turn.reply_ids])) for turn in t.turns] for t in episodes]
    kinds = [styles.of("\n".join(replies)) for replies in texts]
    counts, total = Counter(kinds), float(len(kinds))
    found = {}
    paired = list(zip(episodes, kinds, strict=True))
    for name in (*styles.patterns, OTHER):
        own = [float(bool(t.success)) for t, kind in paired if kind == name]
        found[f"style/{name}"] = Sum(float(len(own)), total)
        found[f"style/{name}_success"] = Sum(math.fsum(own), float(len(own)))
    shares = [n / total for n in counts.values()]
    found["style/entropy"] = Sum(-math.fsum(p * math.log(p) for p in shares))
    return found
