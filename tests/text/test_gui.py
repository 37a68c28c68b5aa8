"""Actions on a screen: typed, as canonical JSON, and in the few words of the format `gui`."""

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.core.registry import find
from agentrl.text.actions.gui import VERBS, GuiWords
from agentrl.text.gui import (
    KINDS,
    Click,
    Done,
    Drag,
    GuiAction,
    Infeasible,
    Label,
    MalformedError,
    Point,
    Press,
    Scroll,
    Type,
    canonical,
    read,
)
from support.screen_actions import one

GUI = GuiWords()
actions = st.sampled_from(list(KINDS.values())).flatmap(one)
pieces = st.sampled_from(
    [*VERBS, "5", "a12", "@500,300", "@1,2", '"milk"', '"a', '"', "by", "300", "down", "Enter"]
)
noise = st.text() | st.lists(pieces, max_size=5).map(" ".join)


@given(actions)
def test_an_action_and_its_json_are_each_other(action: GuiAction) -> None:
    text = canonical(action)
    assert read(text) == action
    assert canonical(read(text)) == text
    assert json.loads(text)["action"] in KINDS


@given(actions)
def test_an_action_in_words_reads_back(action: GuiAction) -> None:
    text = GUI.write(canonical(action))
    assert "\n" not in text
    assert GUI.parse(text) == canonical(action)
    assert GUI.why(text) == ""


@given(noise)
def test_any_message_is_an_action_that_can_be_written_or_has_a_reason(text: str) -> None:
    action = GUI.parse(text)
    assert (action is None) == (GUI.why(text) != "")
    if action is not None:
        assert GUI.parse(GUI.write(action)) == action


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_json_that_is_no_action_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(MalformedError, match="expected"):
        read(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click 12", Click("12")),
        ("  click   @500,300\n", Click(Point(500, 300))),
        ('type 5 "a \\"b\\" c"', Type('a "b" c', "5")),
        ('type "milk\\n"', Type("milk\n")),
        ('click "12"', Click(Label("12"))),
        ('type "Name" "milk"', Type("milk", Label("Name"))),
        ('press "Name" Enter', Press("Enter", Label("Name"))),
        ('drag "a b" @1,2', Drag(Label("a b"), Point(1, 2))),
        ('scroll up "List" by 300', Scroll("up", Label("List"), 300)),
        ("press Control+a", Press("Control+a")),
        ("press 5 Enter", Press("Enter", "5")),
        ("press 5", Press("5")),
        ("scroll down", Scroll("down")),
        ("scroll up by 300", Scroll("up", None, 300)),
        ("scroll up @1,2 by 300", Scroll("up", Point(1, 2), 300)),
        ("drag @1,2 7", Drag(Point(1, 2), "7")),
        ('infeasible "sold out"', Infeasible("sold out")),
        ("<think>click 3</think>done", Done()),
    ],
)
def test_words_say_actions(text: str, expected: GuiAction) -> None:
    assert GUI.parse(text) == canonical(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected one of click"),
        ("clik 3", "did you mean 'click'"),
        ("Click 3", "did you mean 'click'"),
        ("click", "expected target, got nothing"),
        ("click 3 4", "click ends before '4'"),
        ("click 3\nclick 4", "expected one line"),
        ('click " "', "expected some text"),
        ('goto "12"', "expected url, got the quoted '12'"),
        ("click button", "expected an element such as 12, got 'button'"),
        ("click @500", "expected an element"),
        ("click @500,1001", "expected a whole number from 0 to 1000, got 1001"),
        ("click @-1,5", "expected an element"),
        ("click ١٢", "expected an element"),
        ("type 5 milk", "expected a text in quotes, got 'milk'"),
        ("type 5", "expected a text in quotes, got '5'"),
        ('type 5 "milk', "does not end"),
        ('type "\\ud800"', "control characters"),
        ('type "\\u0000"', "control characters"),
        ('answer " "', "expected some text"),
        ("press Entr", "did you mean 'Enter'"),
        ("press Enter+Enter", "expected each of Control"),
        ("scroll dwn", "did you mean 'down'"),
        ("scroll down by", "expected an amount such as by 300"),
        ("scroll down by 0", "expected a whole number from 1 to 10000, got 0"),
        ("scroll down by 3.5", "expected an amount"),
        ("done now", "done ends before 'now'"),
        ('"click" 3', "expected one of click"),
    ],
)
def test_a_message_that_is_no_action_has_a_reason(text: str, reason: str) -> None:
    assert GUI.parse(text) is None
    assert reason in GUI.why(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"action":"clik","target":"3"}', "did you mean 'click'"),
        ('{"action":"click"}', "click needs target"),
        ('{"action":"click","target":"3","button":"left"}', "click takes target, got 'button'"),
        ('{"action":"click","target":3}', "expected an element or a point"),
        ('{"action":"click","target":null}', "expected an element or a point"),
        ('{"action":"click","target":[1,2,3]}', "expected an element or a point"),
        ('{"action":"click","target":[1,2.0]}', "expected a whole number"),
        ('{"action":"click","target":[1,true]}', "expected a whole number"),
        ('{"action":"click","target":"3","target":"4"}', "expected JSON"),
        ('{"action":["click"]}', "expected one of the actions"),
        ('{"action":"type","text":7}', "expected a text, got 7"),
        ('{"action":"type","text":"' + "x" * 2001 + '"}', "at most 2000 characters, got 2001"),
        ('{"action":"goto","url":"a b"}', "expected an address"),
        ("[]", "expected JSON"),
    ],
)
def test_a_json_text_that_is_no_action_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedError, match=r".") as error:
        read(text)
    assert reason in str(error.value)


def test_defaults_are_left_out_of_the_json() -> None:
    assert canonical(Scroll("down")) == '{"action":"scroll","direction":"down"}'
    assert read('{"action":"scroll","direction":"down","amount":500}') == Scroll("down")


def test_an_action_that_cannot_be_is_not_made() -> None:
    with pytest.raises(MalformedError, match="0 to 1000"):
        Click(Point(0, 1001))
    with pytest.raises(MalformedError, match="an element"):
        Click("the button")


def test_an_action_does_not_change_and_can_be_a_key() -> None:
    action = Click("3")
    with pytest.raises(FrozenInstanceError):
        action.target = "4"  # type: ignore[misc]
    assert {action: 1}[Click("3")] == 1


def test_several_actions_are_written_one_a_line_and_no_message_of_this_format() -> None:
    text = GUI.write([canonical(Click("3")), canonical(Done())])
    assert text == "click 3\ndone"
    assert GUI.parse(text) is None


def test_what_is_no_canonical_json_cannot_be_written() -> None:
    with pytest.raises(DataError, match="expected JSON"):
        GUI.write("click 3")


def test_the_format_is_found_by_its_name() -> None:
    assert find("actions", "gui") is GuiWords
    assert GUI.parse(GUI.hint().partition("such as ")[2].partition(",")[0]) == canonical(
        Click("12")
    )


def test_long_noise_is_refused_quickly() -> None:
    assert GUI.parse('type "' + '\\"' * 50_000) is None
    assert GUI.parse("click " * 20_000) is None
    assert GUI.parse("[" * 100_000) is None
