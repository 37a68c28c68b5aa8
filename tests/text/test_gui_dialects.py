"""Other projects' spellings of the same actions: each reads back what it writes, and refuses what
it cannot read with a reason."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.core.registry import find
from agentrl.text.actions.android_world import AndroidWorldJson
from agentrl.text.actions.browsergym import BrowserGymCalls
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.actions.point_2d import PointList
from agentrl.text.actions.ui_tars import UiTarsReply
from agentrl.text.gui import (
    KINDS,
    Answer,
    Back,
    Click,
    Done,
    DoubleClick,
    Drag,
    Goto,
    GuiAction,
    Home,
    Hover,
    Infeasible,
    LongPress,
    Point,
    Press,
    RightClick,
    Scroll,
    Select,
    Swipe,
    Type,
    Wait,
    canonical,
)
from support.screen_actions import one, points

BROWSERGYM = BrowserGymCalls(width=390, height=844)
UI_TARS = UiTarsReply(width=390, height=844)
UI_TARS_1 = UiTarsReply(width=390, height=844, version="1")
ANDROID_WORLD = AndroidWorldJson(width=390, height=844)
POINTS = PointList(width=390, height=844)


class Dialect(NamedTuple):
    small: GuiFormat
    """For a phone."""
    large: GuiFormat
    """For a screen on which every canonical point has a pixel of its own."""
    says: tuple[type[GuiAction], ...]
    """What it has words for beside clicks on points."""


ENDS = (Answer, Done, Infeasible)
BY_TARS = (DoubleClick, RightClick, LongPress, Drag, Type, Press, Scroll, Goto, Back, Home, Wait)
DIALECTS: Mapping[str, Dialect] = {
    "browsergym": Dialect(
        BROWSERGYM,
        BrowserGymCalls(width=1920, height=1080),
        (
            DoubleClick,
            RightClick,
            Hover,
            Drag,
            Type,
            Press,
            Scroll,
            Select,
            Goto,
            Back,
            Wait,
            *ENDS,
        ),
    ),
    "ui_tars": Dialect(UI_TARS, UiTarsReply(width=1920, height=1080), (*BY_TARS, *ENDS)),
    "ui_tars 1": Dialect(
        UI_TARS_1, UiTarsReply(width=1920, height=1080, version="1"), (*BY_TARS, *ENDS)
    ),
    "android_world": Dialect(
        ANDROID_WORLD,
        AndroidWorldJson(width=1080, height=2400),
        (DoubleClick, LongPress, Type, Press, Scroll, Swipe, Goto, Back, Home, Wait, *ENDS),
    ),
    "point_2d": Dialect(POINTS, PointList(width=1920, height=1080), ()),
}
dialects = pytest.mark.parametrize("name", DIALECTS)


def sayable(name: str) -> st.SearchStrategy[GuiAction]:
    kinds: st.SearchStrategy[type[GuiAction]] = st.sampled_from([Click, *DIALECTS[name].says])
    return kinds.flatmap(lambda kind: one(kind, targets=points) | one(kind))


def written(dialect: GuiFormat, action: GuiAction) -> str | None:
    try:
        return dialect.write(canonical(action))
    except DataError:
        return None


@dialects
@given(st.data())
def test_what_a_dialect_can_say_reads_back(name: str, data: st.DataObject) -> None:
    action = data.draw(sayable(name))
    text = written(DIALECTS[name].large, action)
    assume(text is not None)
    assert text is not None
    assert DIALECTS[name].large.parse(text) == canonical(action)


@dialects
@given(st.data())
def test_on_a_small_screen_what_reads_back_is_written_alike(name: str, data: st.DataObject) -> None:
    dialect = DIALECTS[name].small
    text = written(dialect, data.draw(sayable(name)))
    assume(text is not None)
    assert text is not None
    read = dialect.parse(text)
    assert read is not None
    assert dialect.write(read) == text


@dialects
def test_a_dialect_says_the_kinds_that_it_has_words_for(name: str) -> None:
    samples: Sequence[GuiAction] = [
        *(kind(Point(1, 2)) for kind in (Click, DoubleClick, RightClick, LongPress, Hover)),
        Drag(Point(1, 2), Point(3, 4)),
        *(Type("a"), Press("Enter"), Scroll("down"), Swipe("up"), Select("3", "x")),
        *(Goto("app:mail"), Back(), Home(), Wait(), Answer("yes"), Done(), Infeasible()),
    ]
    assert {type(action) for action in samples} == set(KINDS.values())
    able = {type(action) for action in samples if written(DIALECTS[name].large, action)}
    assert able == {Click, *DIALECTS[name].says}


@dialects
@given(st.text() | st.text(st.sampled_from("clickAtion:()[]{}'\"0123456789,._ \n")))
def test_noise_is_an_action_that_can_be_written_or_has_a_reason(name: str, text: str) -> None:
    dialect = DIALECTS[name].large
    action = dialect.parse(text)
    assert (action is None) == (dialect.why(text) != "")
    if action is not None:
        assert dialect.parse(dialect.write(action)) == action


@dialects
def test_a_dialect_is_found_by_its_name_and_its_hint_is_understood(name: str) -> None:
    dialect = DIALECTS[name].small
    assert find("actions", name.split()[0]) is type(dialect)
    assert dialect.example in dialect.hint()
    assert dialect.parse(dialect.example) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click('a51')", Click("a51")),
        ("click('b22', button=\"right\")", RightClick("b22")),
        ("fill('5', 'two\\nlines')", Type("two\nlines", "5")),
        ("clear('996')", Type("", "996")),
        ("press('88', 'Control+a')", Press("Control+a", "88")),
        ("select_option('c48', ['red'])", Select("c48", "red")),
        ("mouse_click(195, 422)", Click(Point(500, 500))),
        ("mouse_click(x=195.0, y=422.0, button='right')", RightClick(Point(500, 500))),
        ("scroll(0, 422)", Scroll("down")),
        ("scroll(-195, 0)", Scroll("left")),
        ("scroll_at(0, 0, 0, -84.4)", Scroll("up", Point(0, 0), 100)),
        ("noop(500)", Wait()),
        ("send_msg_to_user('1751')", Answer("1751")),
        ("send_msg_to_user('')", Done()),
        ("<think>click('1')</think>\ngo_back()", Back()),
    ],
)
def test_browsergym_says(text: str, expected: GuiAction) -> None:
    assert BROWSERGYM.parse(text) == canonical(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("click(12)", "expected bid as a text in quotes, got 12"),
        ("click('12', button='middle')", "expected the button left or right"),
        ("mouse_click('1', 2)", "expected x as a number"),
        ("mouse_click(391, 2)", "expected a coordinate from 0 to 390, got 391"),
        ("scroll(5, 5)", "along one axis"),
        ("scroll(0, 0)", "along one axis"),
        ("select_option('1', ['a', 'b'])", "expected options as a text"),
        ("new_tab()", "expected one of click"),
        ("click('1')\nclick('2')", "expected one call"),
        ("click(bid('1'))", "expected a text in quotes or a number"),
    ],
)
def test_browsergym_refuses(text: str, reason: str) -> None:
    assert BROWSERGYM.parse(text) is None
    assert reason in BROWSERGYM.why(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thought: the box.\nAction: click(start_box='(196,420)')", Click(Point(500, 500))),
        ("Action: click(start_box='<|box_start|>(196,420)<|box_end|>')", Click(Point(500, 500))),
        ("Action: left_double(point='<point>196 420</point>')", DoubleClick(Point(500, 500))),
        ("Action: right_single(start_box='[190, 410, 202, 430]')", RightClick(Point(500, 500))),
        (
            "Action: drag(start_point='<point>0 0</point>', end_point='<point>392 840</point>')",
            Drag(Point(0, 0), Point(1000, 1000)),
        ),
        ("Action: hotkey(key='ctrl c')", Press("Control+c")),
        ("Action: hotkey(key='v ctrl')", Press("Control+v")),
        ("Action: hotkey(key='pagedown')", Press("PageDown")),
        ("Action: type(content='it\\'s\\n')", Type("it's\n")),
        ("Action: scroll(point='<point>0 0</point>', direction='up')", Scroll("up", Point(0, 0))),
        ("Action: long_press(start_box='(0,0)', time='2')", LongPress(Point(0, 0))),
        ("Action: open_app(app_name='mail')", Goto("app:mail")),
        ("Action: finished()", Done()),
        ("Action: finished(content='42')", Answer("42")),
        ("Action: wait()\nThought: no\nAction: press_home()", Home()),
    ],
)
def test_ui_tars_says(text: str, expected: GuiAction) -> None:
    assert UI_TARS.parse(text) == canonical(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("click(start_box='(1,2)')", "expected Action:"),
        ("Action: click(start_box='1')", "expected a place such as"),
        ("Action: click(start_box='(1,2,3)')", "expected a place such as"),
        ("Action: click(start_box=(1,2))", "expected a text in quotes or a number"),
        ("Action: click(start_box='(393,2)')", "from 0 to 392, got 393"),
        ("Action: click(point='(1,2)', start_box='(1,2)')", "got a place twice"),
        ("Action: hotkey(key='hyper')", "expected a key"),
        ("Action: hotkey(key='a b')", "expected each of Control"),
        ("Action: scroll(point='(1,2)', direction='dwn')", "did you mean 'down'"),
        ("Action: type(content=5)", "takes texts in quotes"),
        ("Action: type(content='it's')", "expected ',' or an end"),
        ("Action: clik(start_box='(1,2)')", "did you mean 'click'"),
    ],
)
def test_ui_tars_refuses(text: str, reason: str) -> None:
    assert UI_TARS.parse(text) is None
    assert reason in UI_TARS.why(text)


def test_ui_tars_versions_differ_in_their_frame() -> None:
    text = "Action: click(start_box='(196,420)')"
    assert UI_TARS_1.parse(text) == canonical(Click(Point(196, 420)))
    assert UI_TARS.parse(text) == canonical(Click(Point(500, 500)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"action_type": "click", "index": 3}', Click("3")),
        ('{"action_type": "double_tap", "x": 195, "y": 422}', DoubleClick(Point(500, 500))),
        (
            'Reason: empty.\nAction: {"action_type": "input_text", "text": "a", "index": 0}',
            Type("a", "0"),
        ),
        (
            '{"action_type": "input_text", "text": "a", "clear_text": true, "index": 1}',
            Type("a", "1"),
        ),
        ('{"action_type": "scroll", "direction": "down"}', Scroll("down")),
        ('{"action_type": "swipe", "direction": "left", "index": 2}', Swipe("right", "2")),
        ('{"action_type": "swipe", "direction": "up"}', Swipe("up")),
        ('{"action_type": "keyboard_enter"}', Press("Enter")),
        ('{"action_type": "open_app", "app_name": "mail"}', Goto("app:mail")),
        ('{"action_type": "status", "goal_status": "complete"}', Done()),
        ('{"action_type": "status", "goal_status": "infeasible"}', Infeasible()),
        ('{"action_type": "answer", "text": "42"}', Answer("42")),
    ],
)
def test_android_world_says(text: str, expected: GuiAction) -> None:
    assert ANDROID_WORLD.parse(text) == canonical(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("click 3", "expected JSON"),
        ('{"action_type": "tap", "index": 3}', "expected one of click"),
        ('{"action_type": "click"}', "expected an index, or x and y, got neither"),
        ('{"action_type": "click", "index": 3, "x": 1, "y": 2}', "expected an index, or x and y"),
        ('{"action_type": "click", "x": 1}', "expected an index, or x and y"),
        ('{"action_type": "click", "index": true}', "expected an index, or x and y"),
        ('{"action_type": "click", "index": -1}', "expected an index, or x and y"),
        ('{"action_type": "click", "x": 1, "y": 845}', "from 0 to 844, got 845"),
        ('{"action_type": "click", "index": 3, "text": "a"}', "click takes no 'text'"),
        ('{"action_type": "input_text", "index": 3}', "expected text as a text"),
        ('{"action_type": "input_text", "text": "a", "clear_text": false}', "clear_text must be"),
        ('{"action_type": "scroll"}', "expected one of up"),
        ('{"action_type": "status", "goal_status": "ok"}', "expected goal_status"),
        ('{"action_type": "open_app", "app_name": "a b"}', "expected an address without spaces"),
    ],
)
def test_android_world_refuses(text: str, reason: str) -> None:
    assert ANDROID_WORLD.parse(text) is None
    assert reason in ANDROID_WORLD.why(text)


def test_points_are_clicks_in_their_order() -> None:
    clicks = [canonical(Click(Point(500, 500))), canonical(Click(Point(0, 1000)))]
    text = '[{"point_2d": [195, 422], "label": "a"}, {"point_2d": [0, 844]}]'
    assert POINTS.parse(text) == clicks
    assert POINTS.parse(f"```json\n{text}\n```") == clicks
    assert POINTS.parse('{"point_2d": [195.0, 422]}') == clicks[0]
    assert POINTS.parse(POINTS.write(clicks)) == clicks


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "expected JSON"),
        ("[195, 422]", "expected {'point_2d': [x, y]}, got 195"),
        ('[{"point_2d": [195]}]', "expected {'point_2d': [x, y]}"),
        ('[{"point_2d": [195, true]}]', "expected {'point_2d': [x, y]}"),
        ('[{"point_2d": [195, 845]}]', "from 0 to 844"),
        ('[{"point_2d": [1, 2]}, {"bbox_2d": [1, 2, 3, 4]}]', "expected {'point_2d'"),
        ("[" + ",".join(['{"point_2d": [1, 2]}'] * 65) + "]", "expected JSON"),
    ],
)
def test_what_is_no_list_of_points_is_refused(text: str, reason: str) -> None:
    assert POINTS.parse(text) is None
    assert reason in POINTS.why(text)
