"""Which turn's words a template or a context policy rewrote, when a prompt opened a new row.

Compared is what the ids say, not the ids: a history that is rendered anew may be cut into other
tokens and still be the same history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.core.types import Trajectory, Turn

EXCERPT = 24
"""Characters of each text that a `Rewrite` quotes."""

Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A prompt that did not continue its row, and the first place where it says something else."""

    turn: int
    """The turn whose prompt opened a new row."""
    of: int
    """The turn whose words changed: the one that brought them into the row."""
    part: Literal["prompt", "reply", "pictures"]
    """Whether they were shown to it or were its own; `pictures` if the text is the same."""
    position: int
    """The token of the old row in which the texts begin to differ."""
    was: str
    became: str

    def __str__(self) -> str:
        """One line for people."""
        head = f"turn {self.turn} opened a new row"
        if self.part == "pictures":
            return f"{head}: it was shown other pictures than the row so far"
        whose = f"{'the prompt' if self.part == 'prompt' else 'the reply'} of turn {self.of}"
        became = f"became {self.became!r}" if self.became else "is gone"
        return f"{head}: in {whose}, {self.was!r} (token {self.position}) {became}"


def first_rewrite(episodes: Iterable[Trajectory], decode: Decode, *, is_full: bool) -> str | None:
    """One line about the first new row in these episodes, and what to do; None if there is none.

    Args:
        episodes: where to look; those without their prompts (another process has them) are passed.
        decode: ids to text, control tokens included.
        is_full: whether the context policy shows everything, so that only the template rewrites.
    """
    for episode in episodes:
        for rewrite in rewrites(episode.turns, decode):
            who = (
                "the chat template rewrote what came before (renderer=append would keep it)"
                if is_full
                else "the context policy or the chat template rewrote what came before"
            )
            return f"task {episode.task.id}: {rewrite}; {who}"
    return None


def rewrites(turns: Sequence[Turn], decode: Decode) -> Iterator[Rewrite]:
    """Every prompt that opened a new row, in order.

    For the first one `of` is exact. A later row may begin with a history that was rendered as a
    whole, which counts as shown to the turn that began that row.

    Args:
        turns: an episode's turns.
        decode: ids to text, control tokens included.
    """
    for k in range(1, len(turns)):
        if turns[k].prompt_ids and turns[k].row != turns[k - 1].row:
            yield _rewrite(turns, k, decode)


def _rewrite(turns: Sequence[Turn], k: int, decode: Decode) -> Rewrite:
    row = turns[k - 1].prompt_ids + turns[k - 1].reply_ids
    before, now = decode(list(row)), decode(list(turns[k].prompt_ids))
    pairs = zip(before, now, strict=False)
    shorter = min(len(before), len(now))
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
    if at == len(before):
        return Rewrite(turn=k, of=k - 1, part="pictures", position=len(row), was="", became="")
    lengths = range(len(row) + 1)
    position = bisect_right(lengths, at, key=lambda n: len(decode(list(row[:n])))) - 1
    position = min(position, len(row) - 1)
    begin = min(at, len(decode(list(row[:position]))))  # whole tokens read better
    of = next(
        j
        for j, turn in enumerate(turns[:k])
        if turn.row == turns[k - 1].row and position < len(turn.prompt_ids) + len(turn.reply_ids)
    )
    return Rewrite(
        turn=k,
        of=of,
        part="prompt" if position < len(turns[of].prompt_ids) else "reply",
        position=position,
        was=before[begin : begin + EXCERPT],
        became=now[begin : begin + EXCERPT],
    )
