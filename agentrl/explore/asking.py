"""Asking a proposer: how a choice is read from an answer, what an answer that is none becomes, and
what all of it cost."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from agentrl.core.errors import BudgetError, ProposerError
from agentrl.core.exploring import Proposer, Question
from agentrl.core.types import Message, Task

logger = logging.getLogger(__name__)
OBJECT = re.compile(r"\{[^{}]*\}")
BARE = re.compile(r"\W*(\d{1,9})\W*")
LONGEST = 20_000
"""Characters of an answer that are looked at, from its end."""


def parse_choice(text: str, n: int) -> int | None:
    """The choice that an answer makes among `n`, counted from 0: the last JSON object with a whole
    number as its `choice`, or an answer that is nothing but a number. None if it makes none, or one
    that is out of range."""
    found = _chosen(text[-LONGEST:])
    return found - 1 if found is not None and 1 <= found <= n else None


def _chosen(text: str) -> int | None:
    for written in reversed(OBJECT.findall(text)):
        try:
            choice = json.loads(written).get("choice")
        except ValueError:
            continue
        if isinstance(choice, int) and not isinstance(choice, bool):
            return choice
    bare = BARE.fullmatch(text.strip())
    return int(bare[1]) if bare else None


def parse_list(text: str) -> list[str] | None:
    """The items of an answer whose lines all begin with a dash; None where another line stands
    among them (ELLM, Du et al. 2023, arXiv 2302.06692). Lower case, stripped, each once."""
    lines = [line.strip() for line in text[-LONGEST:].splitlines() if line.strip()]
    if any(not line.startswith("-") for line in lines):
        return None
    return list(dict.fromkeys(line.lstrip("- ").strip().lower() for line in lines if line != "-"))


def as_choice(said: str, options: Sequence[str]) -> str:
    """The number of the option that this is the text of, as JSON; else what was said."""
    place = next((i for i, option in enumerate(options, 1) if option == said.strip()), None)
    return said if place is None else json.dumps({"choice": place})


@dataclass(kw_only=True)
class Asking:
    """A proposer who is asked about one task: it remembers the last questions and counts."""

    proposer: Proposer
    task: Task
    rng: Random
    system: str = ""
    remembers: int = 0
    """Questions and answers that the next one is shown."""
    counts: Counter[str] = field(default_factory=Counter)
    """`asked`, and of those `failed` (no answer came), `unread` (one that makes no choice) and
    `unpaid` (the budget was spent); `random` choices were made in their place."""
    _history: list[Message] = field(default_factory=list)

    async def choice(
        self, kind: str, key: str, text: str, options: Sequence[str], shown: str = ""
    ) -> int | None:
        """The chosen option's index; None if the answer makes no choice, or none came."""
        said = await self.answer(kind, key, text, options, shown)
        if said is None:
            return None
        index = parse_choice(said, len(options))
        if index is None:
            self.counts["unread"] += 1
            logger.debug("proposer: %r chooses none of %d", said[:200], len(options))
        return index

    async def choose(
        self, kind: str, key: str, text: str, options: Sequence[str], shown: str = ""
    ) -> int:
        """The chosen option's index, any of them where none was chosen."""
        if len(options) == 1:
            return 0
        index = await self.choice(kind, key, text, options, shown)
        if index is None:
            self.counts["random"] += 1
            return self.rng.randrange(len(options))
        return index

    async def answer(
        self, kind: str, key: str, text: str, options: Sequence[str] = (), shown: str = ""
    ) -> str | None:
        """In words; None where there is no answer."""
        question = Question(
            kind=kind,
            task=self.task,
            key=key,
            text=text,
            system=self.system,
            options=tuple(options),
            history=tuple(self._history),
            shown=shown,
        )
        self.counts["asked"] += 1
        try:
            said = await self.proposer.answer(question, self.rng.getrandbits(31))
        except BudgetError:
            self.counts["unpaid"] += 1
            return None
        except ProposerError as error:
            self.counts["failed"] += 1
            logger.info("proposer: %s", error)
            return None
        if self.remembers:
            self._history += [Message(role="user", text=text), Message(role="assistant", text=said)]
            del self._history[: -2 * self.remembers]
        return said

    def metrics(self) -> dict[str, float]:
        """The counts."""
        return {f"proposer/{name}": float(count) for name, count in sorted(self.counts.items())}
