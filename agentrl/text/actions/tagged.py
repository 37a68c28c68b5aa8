"""The action stands between tags, so that the model may reason before it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Action


@register("actions", "tagged")
@dataclass(frozen=True, kw_only=True)
class TaggedAction:
    """The last `<action>...</action>` of the message is the action; what stands before is free."""

    tag: str = "action"
    """Name of the tag (letters, digits, underscores)."""
    instruction: str = "Think, then give your action as <{tag}>...</{tag}>."
    """A system message that opens every episode (`{tag}` is filled in); empty for none."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.tag):
            raise ConfigError(f"tag: expected letters, digits or underscores, got {self.tag!r}")

    @property
    def system(self) -> str:
        """The instruction with the tag's name."""
        return self.instruction.replace("{tag}", self.tag)

    def parse(self, text: str) -> Action | None:
        """The trimmed inside of the last closed tag."""
        found = re.findall(rf"<{self.tag}>((?:(?!<{self.tag}>).)*?)</{self.tag}>", text, re.DOTALL)
        return (found[-1].strip() or None) if found else None

    def write(self, action: Action) -> str:
        """The action between its tags."""
        inside = action if isinstance(action, str) else "\n".join(action)
        return f"<{self.tag}>{inside}</{self.tag}>"

    def hint(self) -> str:
        """What a reply must hold."""
        return f"Your reply held no <{self.tag}>...</{self.tag}>. Give one action in these tags."
