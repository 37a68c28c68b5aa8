"""What the model is shown of its episode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.types import Message
from agentrl.text.context import Full, Window

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
