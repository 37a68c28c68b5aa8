"""Which episodes a report shows, and how they fit on its page.

Half come from the last training step (siblings of one group where some succeeded and some did not:
their advantages differ), half from the final evaluation; successes and failures take turns, and
what is rare (an episode of several rows, a broken one) is shown if there is any. Long episodes lose
tokens from the middle of their spans, never silently: each cut carries its size.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from agentrl.core.types import Json
from agentrl.track.jsonl import finite
from agentrl.track.trajectories import EpisodeRecord, Head, TurnRecord, read_episodes, read_heads

TOKENS_PER_EPISODE = 4000
TURNS_PER_EPISODE = 60
TEXT_LENGTH = 600
IMAGE_BYTES = 450_000
"""All pictures together, before base64."""
IMAGE_SIDE = 480
SMALL_IMAGE_BYTES = 12_000
ROOM_FOR_RARE = 8
"""Fewest episodes among which a rare one takes a place."""
SPARE = 40
"""Episodes that are read beside the chosen ones, to find what is rare."""


class Place(NamedTuple):
    """An episode, not yet read: its file, its number there, its head."""

    path: Path
    number: int
    head: Head


def find_episodes(folder: Path) -> Iterator[Place]:
    """Every episode of a run, those of all its processes, in the order of the files' names.

    Raises:
        DataError: a file in `folder/trajectories` is of an unknown schema.
    """
    where = folder / "trajectories"
    for path in sorted([*where.glob("*.parquet"), *where.glob("*.jsonl")]):
        for number, head in enumerate(read_heads(path)):
            yield Place(path, number, head)


def choose_episodes(places: Sequence[Place], count: int = 10) -> list[EpisodeRecord]:
    """A mix of a run's episodes."""
    final = [p for p in places if p.head.phase == "eval" and p.head.label == "final"]
    played = final or [p for p in places if p.head.phase == "eval"]
    trained = [p for p in places if p.head.phase == "train"]
    pools = [_mixed(_group_with_both(_last(trained))), _mixed(_last(played))]
    if not any(pools):
        pools = [_mixed(places)]
    chosen = _fill(pools, count)
    spare = [place for place in _fill(pools, count + SPARE) if place not in chosen]
    return _with_rare(_read(chosen), _read(spare))


def pack_episodes(episodes: Sequence[EpisodeRecord]) -> dict[str, Json]:
    """Episodes as compact JSON: `pieces` are said once and referred to by index."""
    pieces: dict[str, int] = {}
    images, left_out = _images(episodes)
    packed = [_pack(episode, pieces) for episode in episodes]
    return {
        "episodes": packed,
        "pieces": list(pieces),
        "images": images,
        "images_left_out": left_out,
    }


def _last(places: Sequence[Place]) -> list[Place]:
    last = max((place.head.step for place in places), default=0)
    return [place for place in places if place.head.step == last]


def _group_with_both(places: Sequence[Place]) -> list[Place]:
    """The same places, those of the group nearest to half success first."""
    played = Counter(place.head.group for place in places)
    won = Counter(place.head.group for place in places if place.head.success)
    return sorted(places, key=lambda p: abs(won[p.head.group] / played[p.head.group] - 0.5))


def _mixed(places: Sequence[Place]) -> list[Place]:
    """Successes and failures in turn, then what is left of the longer kind."""
    won = [place for place in places if place.head.success]
    lost = [place for place in places if not place.head.success]
    return [place for pair in zip_longest(won, lost) for place in pair if place is not None]


def _fill(pools: Sequence[Sequence[Place]], count: int) -> list[Place]:
    """`count` places in equal shares, a short pool's share going to the others."""
    in_turn = (place for row in zip_longest(*pools) for place in row if place is not None)
    taken = set(islice(in_turn, count))
    return [place for pool in pools for place in pool if place in taken]


def _with_rare(
    chosen: Sequence[EpisodeRecord], spare: Sequence[EpisodeRecord]
) -> list[EpisodeRecord]:
    """The chosen ones; of enough of them, the last failure makes room for each rare kind."""
    episodes = list(chosen)
    if len(episodes) < ROOM_FOR_RARE:
        return episodes
    for is_rare in (_has_rows, _is_broken):
        found = next((one for one in spare if is_rare(one)), None)
        if found is None or any(is_rare(one) for one in episodes):
            continue
        alike = [
            i
            for i, one in enumerate(episodes)
            if one.phase == found.phase and not one.success and not _has_rows(one)
        ]
        if len(alike) > 1:
            episodes[alike[-1]] = found
    return episodes


def _has_rows(episode: EpisodeRecord) -> bool:
    return any(turn.row for turn in episode.turns)


def _is_broken(episode: EpisodeRecord) -> bool:
    return episode.failure is not None


def _read(chosen: Sequence[Place]) -> list[EpisodeRecord]:
    read: dict[tuple[Path, int], EpisodeRecord] = {}
    for path in dict.fromkeys(place.path for place in chosen):
        at = [place.number for place in chosen if place.path == path]
        read |= {(path, number): e for number, e in zip(at, read_episodes(path, at), strict=True)}
    return [read[place.path, place.number] for place in chosen]


def _pack(episode: EpisodeRecord, pieces: dict[str, int]) -> dict[str, Json]:
    numbered = list(enumerate(episode.turns))
    if len(numbered) > TURNS_PER_EPISODE:
        numbered = numbered[: TURNS_PER_EPISODE // 2] + numbered[-TURNS_PER_EPISODE // 2 :]
    tokens = sum(len(turn.ids) for _, turn in numbered)
    longest = tokens if tokens <= TOKENS_PER_EPISODE else TOKENS_PER_EPISODE // (2 * len(numbered))
    return {
        "phase": episode.phase,
        "label": episode.label,
        "step": episode.step,
        "group": episode.group,
        "sibling": episode.sibling,
        "task": _cut(episode.task_id),
        "seed": episode.task_seed,
        "instruction": _cut(episode.instruction),
        "stop": episode.stop,
        "success": episode.success,
        "reward": _short(episode.reward),
        "parts": {_cut(name): _short(value) for name, value in episode.parts.items()},
        "env_return": _short(episode.env_return),
        "failure": _cut(episode.failure) if episode.failure else None,
        "seconds": _short(episode.seconds),
        "n_turns": episode.n_turns,
        "turns": [_pack_turn(number, turn, longest, pieces) for number, turn in numbered],
    }


def _pack_turn(
    number: int, turn: TurnRecord, longest: int, pieces: dict[str, int]
) -> dict[str, Json]:
    return {
        "number": number,
        "row": turn.row,
        "new_row": turn.new_row,
        "action": None if turn.action is None else _cut(turn.action),
        "reward": _short(turn.reward),
        "invalid": turn.invalid,
        "finish": turn.finish,
        "state_key": _cut(turn.state_key) if turn.state_key else None,
        "images": list(turn.images),
        "spots": [list(spot) for spot in turn.spots],
        "spans": list(_spans(turn, longest, pieces)),
    }


def _spans(turn: TurnRecord, longest: int, pieces: dict[str, int]) -> Iterator[dict[str, Json]]:
    """Runs of prompt or sampled tokens; `cut` says where tokens are left out, and how many."""
    for sampled, run in groupby(range(len(turn.ids)), key=lambda at: turn.mask[at]):
        kept = list(run)
        missing = max(0, len(kept) - longest)
        head = (longest + 1) // 2
        if missing:
            kept = kept[:head] + kept[head + missing :]
        span: dict[str, Json] = {
            "sampled": sampled,
            "pieces": [pieces.setdefault(_cut(turn.pieces[at]), len(pieces)) for at in kept],
            "ids": [turn.ids[at] for at in kept],
        }
        if sampled:
            span["logprobs"] = [_short(turn.logprobs[at]) for at in kept]
            advantages = [_short(turn.advantages[at]) for at in kept]
            if any(value is not None for value in advantages):
                span["advantages"] = advantages
        if missing:
            span["cut"] = {"at": head, "tokens": missing}
        yield span


def _images(episodes: Sequence[EpisodeRecord]) -> tuple[dict[str, Json], int]:
    """Data URIs by hash, first turns of every episode first, and how many did not fit."""
    rows = zip_longest(*([(e, name) for turn in e.turns for name in turn.images] for e in episodes))
    wanted = [entry for row in rows for entry in row if entry is not None]
    images: dict[str, Json] = {}
    left_out = set()
    room = IMAGE_BYTES
    for episode, name in wanted:
        if name in images or name in left_out:
            continue
        kind, data = _small(episode.pixels[name]) if name in episode.pixels else ("", b"")
        if not data or len(data) > room:
            left_out.add(name)
            continue
        room -= len(data)
        images[name] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return images, len(left_out)


def _small(png: bytes) -> tuple[str, bytes]:
    """The picture as it is if it is small, else a WebP of at most `IMAGE_SIDE` pixels a side."""
    if len(png) <= SMALL_IMAGE_BYTES:
        return "png", png
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        picture.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
        shrunk = io.BytesIO()
        picture.convert("RGB").save(shrunk, "WEBP", quality=75)
    return "webp", shrunk.getvalue()


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}..."


def _short(value: float | None) -> float | None:
    """Five significant digits: what a reader sees, at half the size."""
    number = finite(value)
    return None if number is None else float(f"{number:.5g}")
