"""What the model is shown of its episode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.types import Image, Message
from agentrl.text.context import Full, LastImages, Summary, Window

SYSTEM = Message(role="system", text="system")


def episode(turns: int) -> list[Message]:
    """System, then the observation and reply of each turn, then the newest observation."""
    messages = [SYSTEM]
    for k in range(turns):
        messages += [
            Message(role="user", text=f"see {k}"),
            Message(role="assistant", text=f"do {k}"),
        ]
    return [*messages, Message(role="user", text=f"see {turns}")]


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


@given(st.integers(0, 6))
def test_full_shows_everything(turns: int) -> None:
    assert Full()(episode(turns)) == episode(turns)


@pytest.mark.parametrize(
    ("turns", "window", "expected"),
    [
        (0, 1, ["system", "see 0"]),
        (1, 1, ["system", "see 0", "do 0", "see 1"]),
        (3, 1, ["system", "see 0", "do 2", "see 3"]),
        (3, 2, ["system", "see 0", "do 1", "see 2", "do 2", "see 3"]),
    ],
)
def test_a_window_shows_the_task_and_the_latest_exchanges(
    turns: int, window: int, expected: list[str]
) -> None:
    assert texts(Window(turns=window)(episode(turns))) == expected


@given(st.integers(0, 6), st.integers(1, 8))
def test_a_window_shows_each_message_once_and_in_order(turns: int, window: int) -> None:
    messages = episode(turns)
    shown = [messages.index(message) for message in Window(turns=window)(messages)]
    assert shown == sorted(set(shown))
    assert {0, 1, len(messages) - 1} <= set(shown)
    assert len(shown) == min(2 + 2 * window, len(messages))


def test_a_window_does_without_a_system_message() -> None:
    assert texts(Window()(episode(3)[1:])) == ["see 0", "do 2", "see 3"]


# --- last_images, summary ------------------------------------------------------------------------


def seen(text: str, *names: str) -> Message:
    return Message(role="user", text=text, images=tuple(Image(n.encode()) for n in names))


def test_only_the_latest_pictures_are_shown_and_the_others_leave_a_note() -> None:
    messages = [seen("a", "1", "2"), Message(role="assistant", text="go"), seen("b", "3")]
    shown = LastImages(images=2)(messages)
    assert [[image.png for image in m.images] for m in shown] == [[b"2"], [], [b"3"]]
    assert texts(shown) == ["a\n[earlier picture]", "go", "b"]
    assert texts(LastImages(images=0, note="(gone)")(messages)) == [
        "a\n(gone)\n(gone)",
        "go",
        "b\n(gone)",
    ]
    assert LastImages(images=3)(messages) == messages


def test_a_summary_lists_what_was_done_before_the_last_turns() -> None:
    shown = Summary(turns=2, words=2, title="Done:")(episode(4))
    assert texts(shown) == [
        "system",
        "see 0\n\nDone:\n1. do 0\n2. do 1",
        "do 2",
        "see 3",
        "do 3",
        "see 4",
    ]


def test_a_summary_leaves_out_reasoning_and_cuts_long_replies() -> None:
    messages = [
        Message(role="user", text="a"),
        Message(role="assistant", text="<think>left or\nright</think>\nturn left now please"),
        Message(role="user", text="b"),
        Message(role="assistant", text="go"),
        Message(role="user", text="c"),
    ]
    first, *_ = texts(Summary(turns=1, words=2)(messages))
    assert first == "a\n\nSo far you did:\n1. turn left ..."


@given(st.integers(0, 9), st.integers(1, 3), st.integers(1, 4))
def test_a_summary_shows_every_reply_once_in_words_or_in_the_list(
    turns: int, kept: int, every: int
) -> None:
    shown = Summary(turns=kept, every=every)(episode(turns))
    listed = sum(f". do {k}" in shown[1].text for k in range(turns))
    assert listed + sum(m.role == "assistant" for m in shown) == turns
    assert listed % every == 0
    assert turns - listed >= min(turns, kept)
    assert shown[-1] == episode(turns)[-1]


def test_a_summary_of_several_turns_at_a_time_rewrites_history_that_seldom() -> None:
    heads = [Summary(turns=1, every=3)(episode(turns))[1].text for turns in range(9)]
    assert len(set(heads)) == 3


def test_without_a_user_message_there_is_nothing_to_summarise() -> None:
    alone = [Message(role="assistant", text="go")] * 4
    assert Summary(turns=1)(alone) == alone
