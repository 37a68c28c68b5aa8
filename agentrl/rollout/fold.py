"""Turns into rows: what the model saw is what is trained on.

A turn whose prompt extends the row so far exactly is folded into it; any other prompt opened a new
row. A rewritten or shortened history is therefore never trained on tokens that were not seen.
`rewrites.py` says where that happened, and to whose words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from agentrl.core.errors import DataError
from agentrl.core.types import Group, Row, Trajectory, Turn


def continues(last: Turn | None, prompt_ids: Sequence[int]) -> bool:
    """Whether `prompt_ids` begins with the last turn's prompt and reply."""
    if last is None:
        return False
    seen, reply = len(last.prompt_ids), last.reply_ids
    end = seen + len(reply)
    return (
        len(prompt_ids) >= end
        and tuple(prompt_ids[:seen]) == last.prompt_ids
        and tuple(prompt_ids[seen:end]) == reply
    )


def fold(group: Group, *, index: int, temperature: float = 1.0) -> list[Row]:
    """The rows of a group's scored trajectories; `index` is the group's place in the step.

    A group that another process sampled has none here: that process trains them.
    """
    if group.is_remote:
        return []
    return [
        row
        for i in group.scored
        for row in _rows(group.trajectories[i], trajectory=i, group=index, temperature=temperature)
    ]


def _rows(episode: Trajectory, *, trajectory: int, group: int, temperature: float) -> list[Row]:
    numbered = list(enumerate(episode.turns))
    inherited = episode.parent.turn if episode.parent else 0
    return [
        _row(list(turns), inherited, trajectory, group, temperature)
        for _, turns in groupby(numbered, key=lambda pair: pair[1].row)
    ]


def _row(
    turns: list[tuple[int, Turn]], inherited: int, trajectory: int, group: int, temperature: float
) -> Row:
    last = turns[-1][1]
    ids = last.prompt_ids + last.reply_ids
    length = len(ids)
    mask = [False] * length
    shared = [False] * length
    logprobs = [0.0] * length
    turn_of = [-1] * length
    versions = [-1] * length
    previous: Turn | None = None
    for k, turn in turns:
        if previous is not None and not continues(previous, turn.prompt_ids):
            raise DataError(
                f"turn {k} says that it lies in row {turn.row}, but its prompt does not begin with "
                "the row so far; a prompt that rewrites history must open a new row"
            )
        first = len(turn.prompt_ids)
        sampled_by = [version for version, count in turn.versions for _ in range(count)]
        for a, place in enumerate(turn.places):
            mask[first + place] = True
            shared[first + place] = k < inherited
            logprobs[first + place] = turn.sampler_logprobs[a]
            turn_of[first + place] = k
            versions[first + place] = sampled_by[a] if sampled_by else -1
        previous = turn
    return Row(
        ids=ids,
        mask=tuple(mask),
        inherited=tuple(shared),
        sampler_logprobs=tuple(logprobs),
        turn_of=tuple(turn_of),
        versions=tuple(versions),
        trajectory=trajectory,
        group=group,
        temperature=temperature,
        images=tuple(image for _, turn in turns for image in turn.images),
    )
