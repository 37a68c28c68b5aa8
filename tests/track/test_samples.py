from agentrl.core.types import Group
from agentrl.track.samples import COLUMNS, TEXT_LENGTH, is_due, rows, sample, transcript
from agentrl.track.trajectories import EpisodeRecord
from support.runs import Words, broken, episode, records, task


def kept(words: Words, *outcomes: bool) -> list[EpisodeRecord]:
    played = tuple(
        episode(words, task(i), seed=i, success=success, n_turns=3)
        for i, success in enumerate(outcomes)
    )
    made = [Group(task=one.task, trajectories=(one,)) for one in played]
    return records(words, made, phase="train", label="step", step=7)


def test_successes_and_failures_take_turns() -> None:
    episodes = kept(Words(), True, True, True, False)
    assert [e.task_id for e in sample(episodes, 3)] == ["GoToObj-0", "GoToObj-3", "GoToObj-1"]
    assert len(sample(episodes, 9)) == 4


def test_tables_are_due_at_the_first_step_and_every_so_many() -> None:
    assert [step for step in range(1, 25) if is_due(step, 10)] == [1, 10, 20]
    assert not any(is_due(step, 0) for step in range(1, 25))


def test_the_transcript_holds_every_piece_and_marks_what_was_sampled() -> None:
    words = Words()
    played = episode(words, task(1), seed=3, n_turns=4, invalid_turn=1, rewrites_at=2)
    made = [Group(task=task(1), trajectories=(played,))]
    (one,) = records(words, made, phase="train", label="step", step=7)
    text = transcript(one)
    pieces = "".join(piece for turn in one.turns for piece in turn.pieces)
    assert text.count(">>> ") == 4
    assert "--- turn 2, invalid action\n" in text
    assert "--- turn 3, new row 1\n" in text
    assert "--- turn 4, reward 0.775\n" in text
    only = "\n".join(line for line in text.splitlines() if not line.startswith("--- turn"))
    assert only.replace(">>> ", "").replace("\n", "") == pieces.replace("\n", "")


def test_a_long_transcript_says_what_is_left_out() -> None:
    (one,) = kept(Words(), True)
    one.turns[0].pieces[0] = "x" * 3 * TEXT_LENGTH
    text = transcript(one)
    assert len(text) < TEXT_LENGTH + 60
    assert "characters left out]" in text


def test_a_row_has_a_cell_for_each_column_and_names_what_broke() -> None:
    words = Words()
    made = [Group(task=task(1), trajectories=(broken(task(1)),))]
    (row,) = rows(records(words, made, phase="train", label="step", step=7))
    cells = dict(zip(COLUMNS, row, strict=True))
    assert cells["stop"] == "timeout (env: step did not answer within 30.0 s)"
    assert (cells["step"], cells["turns"], cells["reward"], cells["text"]) == (7, 0, None, "")
