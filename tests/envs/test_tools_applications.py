"""The applications of the env `tools`: what each tool tells, changes and refuses."""

import pytest

from agentrl.core.types import Json
from agentrl.envs.tools.apps import APPS, facts, perform, toolbox
from agentrl.envs.tools.toolbox import RefusedError, Tool, WrongCallError
from agentrl.text.calls import Call
from support.applications import world

TOOLS = toolbox(tuple(APPS), can_finish=True)


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("files_ls", {}, "a.txt b.txt"),
        ("files_find", {"text": "bread"}, "b.txt"),
        ("files_read", {"path": "a.txt"}, "milk"),
        ("calendar_show", {"day": "mon"}, "e31 yoga at 9"),
        ("calendar_show", {"day": "tue"}, "no events"),
        ("mail_people", {}, "ann bob"),
        ("mail_inbox", {}, "m12 bob about rent"),
        ("mail_read", {"mail": "m12"}, "soon"),
        ("shop_goods", {}, "cup 7 (2 left), pen 3 (4 left); you have 20"),
        ("shop_orders", {}, "o77 1 cup"),
    ],
)
def test_a_lookup_tells_and_changes_nothing(
    name: str, arguments: dict[str, Json], answer: str
) -> None:
    state = world()
    assert perform(state, Call(name, arguments), TOOLS) == answer
    assert state == world()


@pytest.mark.parametrize(
    ("name", "arguments", "lost", "made"),
    [
        ("files_delete", {"path": "a.txt"}, ["files a.txt text=milk"], []),
        ("files_write", {"path": "c", "text": "x y"}, [], ["files c text=x y"]),
        (
            "files_move",
            {"path": "a.txt", "to": "c"},
            ["files a.txt text=milk"],
            ["files c text=milk"],
        ),
        (
            "calendar_add",
            {"title": "tea", "day": "fri", "hour": 17},
            [],
            ["events day=fri hour=17 title=tea"],
        ),
        (
            "calendar_move",
            {"event": "e31", "day": "tue", "hour": 8},
            ["events day=mon hour=9 title=yoga"],
            ["events day=tue hour=8 title=yoga"],
        ),
        ("calendar_cancel", {"event": "e31"}, ["events day=mon hour=9 title=yoga"], []),
        ("mail_send", {"to": "ann", "text": "hi"}, [], ["sent about= text=hi to=ann"]),
        (
            "mail_answer",
            {"mail": "m12", "text": "hi"},
            [],
            ["sent about=rent text=hi to=bob"],
        ),
        (
            "mail_forward",
            {"mail": "m12", "to": "ann"},
            [],
            ["sent about=rent text=soon to=ann"],
        ),
        ("mail_delete", {"mail": "m12"}, ["inbox sender=bob subject=rent text=soon"], []),
        ("shop_put", {"item": "pen", "count": 2}, [], ["cart pen count=2"]),
        (
            "shop_send_back",
            {"order": "o77"},
            ["orders count=1 item=cup paid=7", "purse purse money=20"],
            ["purse purse money=27"],
        ),
    ],
)
def test_a_change_changes_just_this(
    name: str, arguments: dict[str, Json], lost: list[str], made: list[str]
) -> None:
    state = world()
    before = facts(state)
    perform(state, Call(name, arguments), TOOLS)
    after = facts(state)
    assert sorted((before - after).elements()) == lost
    assert sorted((after - before).elements()) == made


def test_buying_empties_the_cart_pays_and_lowers_the_stock() -> None:
    state = world()
    for item, count in (("pen", 3), ("cup", 1)):
        perform(state, Call("shop_put", {"item": item, "count": count}), TOOLS)
    assert perform(state, Call("shop_buy", {}), TOOLS) == "bought for 16"
    assert state["cart"] == {}
    assert state["purse"] == {"purse": {"money": 4}}
    assert state["goods"]["pen"]["stock"] == 1
    assert facts(state)["orders count=3 item=pen paid=9"] == 1
    assert facts(state)["orders count=1 item=cup paid=7"] == 2


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("files_read", {"path": "c"}, "expected one of 2 files"),
        ("files_move", {"path": "a.txt", "to": "b.txt"}, "expected a free name"),
        ("calendar_cancel", {"event": "e1"}, "expected one of 1 events"),
        ("calendar_add", {"title": "x", "day": "mon", "hour": 9}, "expected a free hour"),
        ("calendar_add", {"title": "x", "day": "mon", "hour": 7}, "expected an hour from 8 to 17"),
        ("mail_send", {"to": "zoe", "text": "hi"}, "expected one of 2 people"),
        ("mail_read", {"mail": "m1"}, "expected one of 1 inbox"),
        ("shop_put", {"item": "pen", "count": 5}, "expected 1 to 4 pieces"),
        ("shop_put", {"item": "pen", "count": -1}, "expected 1 to 4 pieces"),
        ("shop_put", {"item": "hat", "count": 1}, "expected one of 2 goods"),
        ("shop_buy", {}, "expected a cart"),
        ("shop_send_back", {"order": "o1"}, "expected one of 1 orders"),
    ],
)
def test_what_cannot_be_done_says_what_was_expected_and_changes_nothing(
    name: str, arguments: dict[str, Json], expected: str
) -> None:
    state = world()
    with pytest.raises(RefusedError, match=expected) as caught:
        perform(state, Call(name, arguments), TOOLS)
    assert not isinstance(caught.value, WrongCallError)
    assert state == world()


def test_a_cart_that_is_too_dear_is_not_bought() -> None:
    state = world() | {"purse": {"purse": {"money": 2}}}
    perform(state, Call("shop_put", {"item": "pen", "count": 1}), TOOLS)
    with pytest.raises(RefusedError, match=r"expected a cart .* of 1 to 2, got one of 3"):
        perform(state, Call("shop_buy", {}), TOOLS)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("files_remove", {}, "expected one of the tools .* did you mean 'files_move'"),
        ("files_read", {}, "expected path as well"),
        ("files_read", {"paht": "a"}, "expected path, got 'paht'; did you mean 'path'"),
        ("files_ls", {"x": 1}, "expected no arguments, got 'x'"),
        ("files_read", {"path": 3}, "path: expected a text, got 3"),
        ("files_read", {"path": None}, "path: expected a text, got None"),
        ("files_read", {"path": [["a"]]}, "path: expected a text, got several"),
        ("files_read", {"path": " "}, "path: expected a text, got ' '"),
        (
            "files_read",
            {"path": "x" * 1_000_000},
            "expected at most 2000 printable characters, got .x+.\\.\\.\\.",
        ),
        ("files_read", {"path": "\ud800"}, "printable"),
        ("calendar_show", {"day": "sun"}, "expected one of mon, tue, wed, thu, fri, got 'sun'"),
        ("calendar_show", {"day": ["mon"]}, "expected one of mon, .* got several"),
        ("shop_put", {"item": "pen", "count": True}, "count: expected a whole number, got True"),
        ("shop_put", {"item": "pen", "count": 1.0}, "count: expected a whole number, got 1.0"),
        ("shop_put", {"item": "pen", "count": 10**300}, "count: expected a whole number"),
    ],
)
def test_a_call_that_no_tool_takes_says_what_was_expected(
    name: str, arguments: dict[str, Json], expected: str
) -> None:
    state = world()
    with pytest.raises(WrongCallError, match=expected) as caught:
        perform(state, Call(name, arguments), TOOLS)
    assert len(str(caught.value)) < 700
    assert state == world()


def test_a_signature_is_its_schema() -> None:
    schema = TOOLS["calendar_add"].schema
    assert schema["description"] == "Add an event at an hour that is free."
    parameters = schema["parameters"]
    assert isinstance(parameters, dict)
    assert parameters["required"] == ["title", "day", "hour"]
    assert parameters["properties"]["day"]["enum"] == ["mon", "tue", "wed", "thu", "fri"]
    assert parameters["properties"]["hour"] == {
        "type": "integer",
        "description": "When it begins, 8 to 17.",
    }
    assert isinstance(TOOLS["finish"], Tool)
