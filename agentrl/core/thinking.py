"""The settings of replies that reason before they act (`rollout/thinking.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """Replies that reason before they act; the action is looked for behind the reasoning."""

    budget: Annotated[int, Ge(1)] = 256
    """Tokens of one reply after which reasoning that still goes on is ended (1 or more). The tokens
    that end it are not sampled and not trained."""
    opening: str = "<think>"
    """The text that begins the reasoning; the chat template may have written it already."""
    closing: str = "</think>"
    """The text that ends it."""
    ending: str = "\n</think>\n\n"
    """What is written where the budget ends it; holds `closing`."""

    def __post_init__(self) -> None:
        if not self.opening or not self.closing or self.closing not in self.ending:
            raise ConfigError(
                "thinking: expected an opening, a closing, and an ending that holds the closing "
                f"(got {self.opening!r}, {self.closing!r}, {self.ending!r})"
            )
