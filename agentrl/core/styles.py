"""Kinds of behaviour that a run counts, by the texts of replies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentrl.core.errors import ConfigError

OTHER = "other"
"""What no pattern finds."""


@dataclass(frozen=True, kw_only=True)
class Styles:
    """Which kinds of episode there are, so that a run shows which of them it amplifies (Zhao et al.
    2025, "Echo Chamber", arXiv 2504.07912)."""

    patterns: Mapping[str, str] = field(default_factory=dict)
    """Name -> a regular expression that an episode's replies, one after another on lines of their
    own, hold somewhere; the first that does names the episode, `other` is the rest."""

    def __post_init__(self) -> None:
        for name, pattern in self.patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"patterns.{name}: expected a regular expression, got {pattern!r}: {error}"
                ) from error
        if not self.patterns or OTHER in self.patterns:
            raise ConfigError(
                f"patterns: expected at least one, none of them called {OTHER!r} (got "
                f"{', '.join(self.patterns) or 'none'})"
            )

    def of(self, text: str) -> str:
        """The name for an episode's replies."""
        found = (name for name, pattern in self.patterns.items() if re.search(pattern, text))
        return next(found, OTHER)
