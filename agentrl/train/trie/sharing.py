"""Says when rows stop sharing what they began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentrl.core.types import Sum

KEY = "trie/real_per_unique"


@dataclass(kw_only=True)
class Sharing:
    """The running level of tokens computed for rows over distinct ones, within a run."""

    level: float = 0.0
    steps: int = 0
    settled: int = 5
    """Steps before a drop means something."""
    kept: float = 0.6
    """Share of the saving (level less 1) that must be left."""

    def drop(self, metrics: Mapping[str, Sum]) -> str:
        """What to tell if sharing has clearly fallen below its level, else nothing.

        The level is a mean that forgets with the rate 1/10; a step that fell below leaves it.
        """
        if KEY not in metrics:
            return ""
        ratio = metrics[KEY].mean
        if self.steps >= self.settled and ratio - 1 < self.kept * (self.level - 1) - 0.02:
            return (
                f"rows share fewer tokens than before: {ratio:.2f} tokens for each distinct one, "
                f"against {self.level:.2f} in earlier steps; look for prompts that are encoded "
                "anew, or that begin with what differs between siblings"
            )
        self.steps += 1
        self.level += (ratio - self.level) / min(self.steps, 10)
        return ""
