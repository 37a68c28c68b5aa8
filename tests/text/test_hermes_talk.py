import pytest

from agentrl.core.errors import DataError
from agentrl.core.protocols import ToolFormat
from agentrl.core.registry import find
from agentrl.core.types import Action
from agentrl.text.actions.hermes_talk import HermesTalk
from agentrl.text.calls import call

TALK = HermesTalk()
LOOK = call("look", at="x")


@pytest.mark.parametrize("action", [LOOK, [LOOK, LOOK], "Nothing fits.", "two\nlines"])
def test_calls_and_words_come_back_as_they_were_written(action: Action) -> None:
    assert TALK.parse(TALK.write(action)) == action


def test_calls_are_hermes_and_everything_else_is_words() -> None:
    assert TALK.parse('Sure. <tool_call>{"name":"look","arguments":{"at":"x"}}</tool_call>') == LOOK
    broken = "<tool_call>{broken</tool_call>"
    assert TALK.parse(broken) == broken
    assert TALK.parse("<think>hm</think> No. ") == "No."
    assert TALK.parse("  ") is None


def test_a_list_of_words_is_no_action() -> None:
    with pytest.raises(DataError):
        TALK.write(["a", "b"])


def test_it_is_a_format_of_tools_that_can_be_named() -> None:
    assert find("actions", "hermes_talk") is HermesTalk
    assert isinstance(TALK, ToolFormat)
