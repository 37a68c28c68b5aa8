"""Messages to actions and back: whatever a model says, `parse` answers and never raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError
from agentrl.text.actions.plain import PlainAction
from agentrl.text.actions.tagged import TaggedAction

PLAIN, TAGGED = PlainAction(), TaggedAction()
noise = st.lists(
    st.text() | st.sampled_from(["<action>", "</action>", "<action", "\n"]), max_size=8
).map("".join)
words = st.text(min_size=1).map(str.strip).filter(lambda text: text and "<" not in text)


@given(words)
def test_a_written_action_reads_back(action: str) -> None:
    assert PLAIN.parse(PLAIN.write(action)) == action
    assert TAGGED.parse(TAGGED.write(action)) == action


@given(noise)
def test_parsing_noise_gives_a_trimmed_action_or_none(text: str) -> None:
    for format_ in (PLAIN, TAGGED):
        action = format_.parse(text)
        assert action is None or (isinstance(action, str) and action == action.strip() != "")
        assert action is None or action in text


@given(noise, words)
def test_tagged_takes_the_last_action_whatever_stands_before_it(before: str, action: str) -> None:
    assert TAGGED.parse(f"{before}<action> {action}\n</action>") == action


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go", None),
        ("<action>go", None),
        ("go</action>", None),
        ("<action>  </action>", None),
        ("<action>a</action><action>b</action>", "b"),
        ("<action>a</action><action>", "a"),
        ("<action>a <action>b</action>", "b"),
        ("<action>a</action></action>", "a"),
        ("<action>two\nlines</action>", "two\nlines"),
        ("<ACTION>go</ACTION>", None),
    ],
)
def test_tagged_reads_the_last_closed_tag(text: str, expected: str | None) -> None:
    assert TAGGED.parse(text) == expected


def test_an_empty_message_is_no_plain_action() -> None:
    assert PLAIN.parse(" \n") is None
    assert PLAIN.parse(" go forward\n") == "go forward"


def test_the_tag_is_a_setting_that_reaches_every_text() -> None:
    format_ = TaggedAction(tag="do")
    assert "<do>...</do>" in format_.system
    assert "<do>...</do>" in format_.hint()
    assert format_.parse(format_.write("go")) == "go"
    assert format_.parse("<action>go</action>") is None


def test_a_tag_that_is_no_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tag: expected letters.*'a b'"):
        TaggedAction(tag="a b")


def test_long_noise_is_parsed_in_linear_time() -> None:
    assert TAGGED.parse("<action>" * 20_000) is None
