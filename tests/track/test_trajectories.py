import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.core.types import Image, Score, Spot, Stop, Trajectory, Turn
from agentrl.track import trajectories
from agentrl.track.trajectories import (
    EpisodeRecord,
    Head,
    TurnRecord,
    read_episodes,
    read_heads,
    record,
    write_episodes,
)
from support.runs import Words, broken, episode, png, task

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBER = st.floats(allow_nan=False)


def piece(token: int) -> str:
    return f"<{token}>"


def turn(prompt: tuple[int, ...], ids: tuple[int, ...], row: int = 0, **about: object) -> Turn:
    logprobs = tuple(-0.5 * (i + 1) for i in range(len(ids)))
    return Turn(prompt_ids=prompt, action_ids=ids, sampler_logprobs=logprobs, row=row, **about)  # type: ignore[arg-type]


def two_rows() -> Trajectory:
    """Turn 1 continues turn 0; turn 2 forgets the history and opens row 1."""
    return Trajectory(
        task=task(5),
        turns=(
            turn((1, 2), (10, 11), reward=0.25, action="go", images=("aa",)),
            turn((1, 2, 10, 11, 3), (12,), action=["left", "right"], state_key="s1"),
            turn((7, 8, 9), (13, 14), row=1, invalid=True),
        ),
        stop=Stop.DONE,
        score=Score(value=0.25, parts={"env": 0.25}),
        success=True,
        seconds=1.5,
        pixels={"aa": Image(png(2, 2))},
    )


def recorded(trajectory: Trajectory, **about: object) -> EpisodeRecord:
    where = {"phase": "train", "label": "step", "step": 4, "group": 2, "sibling": 1}
    return record(trajectory, piece=piece, **where | about)  # type: ignore[arg-type]


@st.composite
def turn_records(draw: st.DrawFn) -> TurnRecord:
    size = draw(st.integers(0, 5))

    def some(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=size, max_size=size))

    return TurnRecord(
        row=draw(st.integers(0, 9)),
        new_row=draw(st.booleans()),
        pieces=some(TEXT),  # type: ignore[arg-type]
        ids=some(st.integers(0, 2**31 - 1)),  # type: ignore[arg-type]
        mask=some(st.booleans()),  # type: ignore[arg-type]
        logprobs=some(st.none() | NUMBER),  # type: ignore[arg-type]
        advantages=some(st.none() | NUMBER),  # type: ignore[arg-type]
        action=draw(st.none() | TEXT),
        reward=draw(NUMBER),
        invalid=draw(st.booleans()),
        finish=draw(st.sampled_from(["eos", "stop", "length"])),
        images=draw(st.lists(TEXT, max_size=2)),
        state_key=draw(st.none() | TEXT),
        spots=draw(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), max_size=2)),
    )


EPISODES = st.builds(
    EpisodeRecord,
    phase=st.sampled_from(["train", "eval", "demo"]),
    label=TEXT,
    step=st.integers(0, 10**9),
    group=st.integers(0, 999),
    sibling=st.integers(0, 99),
    task_id=TEXT,
    task_seed=st.integers(-(2**63), 2**63 - 1),
    instruction=TEXT,
    stop=st.sampled_from([stop.value for stop in Stop]),
    success=st.none() | st.booleans(),
    reward=st.none() | NUMBER,
    parts=st.dictionaries(TEXT, NUMBER, max_size=3),
    env_return=NUMBER,
    failure=st.none() | TEXT,
    seconds=NUMBER,
    turns=st.lists(turn_records(), max_size=3),
    pixels=st.dictionaries(TEXT, st.binary(max_size=8), max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(episodes=st.lists(EPISODES, max_size=4), suffix=st.sampled_from(["parquet", "jsonl"]))
def test_episodes_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, episodes: list[EpisodeRecord], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("episodes") / f"some.{suffix}"
    assert write_episodes(path, episodes) == path
    assert read_episodes(path) == episodes
    assert read_heads(path) == [
        Head(e.phase, e.label, e.step, e.group, e.success, e.failure) for e in episodes
    ]
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_single_episodes_can_be_read(tmp_path: Path, name: str) -> None:
    kept = [replace(recorded(two_rows()), sibling=number) for number in range(4)]
    path = write_episodes(tmp_path / name, kept)
    assert read_episodes(path, [3, 1]) == [kept[3], kept[1]]


def test_where_an_action_pointed_is_kept_and_older_files_do_not_say(tmp_path: Path) -> None:
    kept = recorded(Trajectory(task=task(1), stop=Stop.DONE, turns=(
        replace(turn((1, 2), (10,)), spots=(Spot(3, 4), Spot(5, 6, is_end=True))),)))  # fmt: skip
    path = write_episodes(tmp_path / "a.parquet", [kept])
    [[one]] = [found.turns for found in read_episodes(path)]
    assert one.spots == [[3, 4, 0], [5, 6, 1]]
    plain, schema = parquet.read_table(path).to_pylist(), parquet.read_schema(path)
    at = schema.get_field_index("turns")
    fields = [field for field in schema.field("turns").type.value_type if field.name != "spots"]
    older = schema.set(at, pa.field("turns", pa.list_(pa.struct(fields))))
    parquet.write_table(pa.Table.from_pylist(plain, schema=older), path)
    [[one]] = [found.turns for found in read_episodes(path)]
    assert one == replace(kept.turns[0], spots=[])


def test_a_turn_keeps_the_tokens_that_are_new_in_it() -> None:
    first, second, third = recorded(two_rows()).turns
    assert (first.ids, first.mask) == ([1, 2, 10, 11], [False, False, True, True])
    assert (second.ids, second.mask) == ([3, 12], [False, True])
    assert (third.ids, third.mask) == ([7, 8, 9, 13, 14], [False] * 3 + [True] * 2)
    assert [t.new_row for t in (first, second, third)] == [True, False, True]
    assert second.pieces == ["<3>", "<12>"]
    assert first.logprobs == [None, None, -0.5, -1.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_turns=st.integers(1, 6), rewrites_at=st.integers(0, 6))
def test_joined_turns_give_each_row_whole(seed: int, n_turns: int, rewrites_at: int) -> None:
    played = episode(Words(), task(1), seed=seed, n_turns=n_turns, rewrites_at=rewrites_at)
    rows: dict[int, list[int]] = {}
    masks: dict[int, list[bool]] = {}
    for one in recorded(played).turns:
        rows[one.row] = ([] if one.new_row else rows[one.row]) + one.ids
        masks[one.row] = ([] if one.new_row else masks[one.row]) + one.mask
    for number, ids in rows.items():
        last = [one for one in played.turns if one.row == number][-1]
        assert tuple(ids) == last.prompt_ids + last.action_ids
    assert sum(map(sum, masks.values())) == played.n_tokens


def test_advantages_lie_on_the_sampled_tokens_alone() -> None:
    kept = recorded(two_rows(), advantages=[[1.0, 2.0], [3.0], [4.0, 5.0]])
    assert [t.advantages for t in kept.turns] == [
        [None, None, 1.0, 2.0],
        [None, 3.0],
        [None, None, None, 4.0, 5.0],
    ]
    assert all(t.advantages == [None] * len(t.ids) for t in recorded(two_rows()).turns)


def test_the_rest_of_an_episode_is_copied() -> None:
    kept = recorded(two_rows())
    assert (kept.stop, kept.success, kept.reward, kept.env_return) == ("done", True, 0.25, 0.25)
    assert (kept.task_id, kept.task_seed, kept.n_turns) == ("GoToObj-5", 5, 3)
    assert [t.action for t in kept.turns] == ["go", '["left", "right"]', None]
    assert [t.invalid for t in kept.turns] == [False, False, True]
    assert kept.turns[1].state_key == "s1"
    assert kept.pixels == {"aa": png(2, 2)}


def test_a_failed_episode_says_where_it_broke() -> None:
    kept = recorded(broken(task(1)))
    assert kept.failure == "env: step did not answer within 30.0 s"
    assert (kept.reward, kept.success, kept.turns) == (None, None, [])


def test_advantages_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 1, 1\] do not fit the sampled tokens \[2, 1, 2\]"):
        recorded(two_rows(), advantages=[[1.0, 2.0], [3.0], [4.0]])


def test_a_rewritten_history_that_claims_its_old_row_is_refused() -> None:
    turns = (turn((1, 2), (10,)), turn((2, 10, 3), (11,)))
    with pytest.raises(DataError, match=r"turn 1 says it continues row 0.* must open a new row"):
        recorded(Trajectory(task=task(1), turns=turns, stop=Stop.DONE))


def test_an_unknown_schema_version_is_a_clear_error(tmp_path: Path) -> None:
    path = write_episodes(tmp_path / "a.parquet", [recorded(two_rows())])
    table = parquet.read_table(path)
    parquet.write_table(table.replace_schema_metadata({"agentrl.trajectories": "99"}), path)
    for read in (read_episodes, read_heads):
        with pytest.raises(DataError, match="schema version 99, and this agentrl reads 1"):
            read(path)
    parquet.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(DataError, match="does not hold episodes"):
        read_episodes(path)
    lines = tmp_path / "b.jsonl"
    lines.write_text('{"agentrl.trajectories": 2}\n')
    with pytest.raises(DataError, match="schema version 2"):
        read_episodes(lines)


def test_without_pyarrow_json_lines_are_written_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    trajectories._warn_of_json.cache_clear()
    kept = [recorded(two_rows())]
    with caplog.at_level(logging.WARNING):
        paths = [write_episodes(tmp_path / f"{name}.parquet", kept) for name in "ab"]
    assert [path.name for path in paths] == ["a.jsonl", "b.jsonl"]
    assert [r.message for r in caplog.records if "pyarrow" in r.message] == [
        "pyarrow is not installed: episodes are written as JSON lines (pip install pyarrow)"
    ]
    assert read_episodes(paths[0]) == kept
    assert json.loads(paths[0].read_text().splitlines()[0]) == {"agentrl.trajectories": 1}


@pytest.mark.parametrize(
    ("name", "error"), [("a.parquet", pa.ArrowInvalid), ("a.jsonl", TypeError)]
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    kept = recorded(two_rows())
    path = write_episodes(tmp_path / name, [kept])
    with pytest.raises(error):
        write_episodes(path, [kept, replace(kept, reward=object())])  # type: ignore[arg-type]
    assert read_episodes(path) == [kept]
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_importing_the_records_does_not_import_pyarrow() -> None:
    code = "import sys, agentrl.track.trajectories as t; assert 'pyarrow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
