"""Strategies for actions on a screen."""

from hypothesis import strategies as st

from agentrl.text.gui import (
    MODIFIERS,
    NAMED_KEYS,
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
    Label,
    LongPress,
    Point,
    Press,
    RightClick,
    Scroll,
    Select,
    Swipe,
    Type,
    Wait,
)

grid = st.integers(0, 1000)
points = st.builds(Point, grid, grid)
elements = st.from_regex(r"[A-Za-z]{0,8}[0-9]{1,9}", fullmatch=True).filter(str.isascii)
controls = "".join(map(chr, [*range(9), *range(11, 32), 127]))
letters = st.characters(exclude_categories=["Cs"], exclude_characters=controls)
texts = st.text(letters, max_size=40)
full_texts = texts.filter(str.strip)
targets = elements | points | st.builds(Label, full_texts)
last_keys = st.sampled_from([*NAMED_KEYS, *"abzAZ09"])
held_keys = st.lists(st.sampled_from(MODIFIERS), unique=True)
keys = st.builds(lambda held, last: "+".join([*held, last]), held_keys, last_keys)
directions = st.sampled_from(["up", "down", "left", "right"])
amounts = st.integers(1, 10_000)
urls = st.from_regex(r"[a-z]{2,5}:[^\s\"]{1,40}", fullmatch=True).filter(
    lambda url: url.isprintable() and url.isascii()
)
spare = st.none() | targets


def one(
    kind: type[GuiAction], *, targets: st.SearchStrategy[object] = targets
) -> st.SearchStrategy[GuiAction]:
    """Actions of a kind, on any of `targets`."""
    maybe = st.none() | targets
    fields: dict[type[GuiAction], tuple[st.SearchStrategy[object], ...]] = {
        **dict.fromkeys((Click, DoubleClick, RightClick, LongPress, Hover), (targets,)),
        Drag: (targets, targets),
        Type: (texts, maybe),
        Press: (keys, maybe),
        Scroll: (directions, maybe, amounts),
        Swipe: (directions, maybe, amounts),
        Select: (targets, texts),
        Goto: (urls,),
        Answer: (full_texts,),
        Infeasible: (texts,),
        **dict.fromkeys((Back, Home, Wait, Done), ()),
    }
    return st.builds(kind, *fields[kind])
