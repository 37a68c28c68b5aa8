"""A few episodes of a step as rows of a table, for sinks that show tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, zip_longest

from agentrl.track.trajectories import EpisodeRecord, TurnRecord

COLUMNS = ("step", "task", "instruction", "turns", "reward", "success", "stop", "text")
TEXT_LENGTH = 20_000
"""Longest text of an episode; a longer one loses its middle, and says how much."""

Cell = str | float | bool | None


def is_due(step: int, every: int) -> bool:
    """Whether a step's episodes are shown: the first step's, and every so many (0: never)."""
    return every > 0 and (step == 1 or step % every == 0)


def sample(episodes: Sequence[EpisodeRecord], count: int) -> list[EpisodeRecord]:
    """Successes and failures in turn, as they come, then what is left of the longer kind."""
    won = [episode for episode in episodes if episode.success]
    lost = [episode for episode in episodes if not episode.success]
    return [one for pair in zip_longest(won, lost) for one in pair if one is not None][:count]


def rows(episodes: Sequence[EpisodeRecord]) -> list[list[Cell]]:
    """One row of `COLUMNS` for each episode."""
    return [
        [
            episode.step,
            episode.task_id,
            episode.instruction,
            episode.n_turns,
            episode.reward,
            episode.success,
            episode.stop if episode.failure is None else f"{episode.stop} ({episode.failure})",
            transcript(episode),
        ]
        for episode in episodes
    ]


def transcript(episode: EpisodeRecord) -> str:
    """The episode's tokens as text, turn by turn; `>>> ` begins what the model sampled."""
    text = "\n".join(
        f"--- turn {number}{_remarks(turn, number)}\n{_text(turn)}"
        for number, turn in enumerate(episode.turns, start=1)
    )
    missing = len(text) - TEXT_LENGTH
    if missing <= 0:
        return text
    half = TEXT_LENGTH // 2
    return f"{text[:half]}\n[{missing} characters left out]\n{text[-half:]}"


def _remarks(turn: TurnRecord, number: int) -> str:
    remarks = [
        f"new row {turn.row}" if turn.new_row and number > 1 else "",
        "invalid action" if turn.invalid else "",
        f"reward {turn.reward:.4g}" if turn.reward else "",
    ]
    return "".join(f", {remark}" for remark in remarks if remark)


def _text(turn: TurnRecord) -> str:
    spans = [
        (sampled, "".join(turn.pieces[at] for at in run))
        for sampled, run in groupby(range(len(turn.ids)), key=lambda at: turn.mask[at])
    ]
    return "\n".join(f">>> {text}" if sampled else text for sampled, text in spans)
