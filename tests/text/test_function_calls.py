"""Calls as models write them, read by a grammar and never evaluated."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.text.function_calls import FunctionCall, quoted, read_call
from agentrl.text.gui import MalformedError

SIGNATURES = {"click": "bid, button?", "noop": ""}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_text_reads_back(text: str) -> None:
    assert read_call(f"f({quoted(text)})") == FunctionCall("f", (text,), {})


@given(
    st.lists(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])), max_size=3)
)
def test_python_literals_say_the_same_as_python(texts: list[str]) -> None:
    written = f"f({', '.join(map(ascii, texts))})"
    assert read_call(written).values == tuple(
        ast.literal_eval(f"({written[2:-1]},)") if texts else ()
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f()", FunctionCall("f", (), {})),
        (" f( ) \n", FunctionCall("f", (), {})),
        ("f('a', \"b\", 3, -2.5)", FunctionCall("f", ("a", "b", 3, -2.5), {})),
        ("f('a', k = [1, 'x'] )", FunctionCall("f", ("a",), {"k": [1, "x"]})),
        ("f([])", FunctionCall("f", ([],), {})),
        ("f('it\\'s \\x41\\u00e9')", FunctionCall("f", ("it's Aé",), {})),
        ("f('two\nlines')", FunctionCall("f", ("two\nlines",), {})),
    ],
)
def test_calls_are_read(text: str, expected: FunctionCall) -> None:
    assert read_call(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a call"),
        ("f", "expected a call"),
        ("f ()", "expected a call"),
        ("a.f()", "expected a call"),
        ("f('a'", "expected ',' or an end"),
        ("f('a)", "does not end"),
        ("f('a' 'b')", "expected ',' or an end"),
        ("f('a',)", "expected a text in quotes or a number"),
        ("f(g())", "expected a text in quotes or a number"),
        ("f(__import__('os').system('ls'))", "expected a text in quotes or a number"),
        ("f(1e9)", "expected ',' or an end"),
        ("f([[1]])", "expected a text in quotes or a number"),
        ("f(k='a', 'b')", "values, then names=values"),
        ("f(k='a', k='b')", "values, then names=values"),
        ("f('\\q')", "expected an escape"),
        ("f() g()", "expected one call, got ' g()' behind it"),
        ("f(1)\nf(2)", "expected one call"),
    ],
)
def test_what_is_no_call_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedError) as error:
        read_call(text)
    assert reason in str(error.value)


@given(
    st.text()
    | st.lists(st.sampled_from(["f", "(", ")", "'a'", ",", "[", "]", "k=", "1"])).map("".join)
)
def test_noise_is_a_call_or_is_refused(text: str) -> None:
    try:
        found = read_call(text)
    except MalformedError:
        return
    assert found.name in text


def test_values_are_bound_to_parameters() -> None:
    assert read_call("click('3')").bound(SIGNATURES) == {"bid": "3"}
    assert read_call("click(button='left', bid='3')").bound(SIGNATURES) == {
        "bid": "3",
        "button": "left",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("clik('3')", "did you mean 'click'"),
        ("click()", "click needs bid"),
        ("click('3', 'left', 1)", "too many values"),
        ("click('3', bid='4')", "got 'bid'"),
        ("noop(1)", "too many values"),
        ("click('3', buton='left')", "got 'buton'"),
    ],
)
def test_what_no_function_takes_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedError) as error:
        read_call(text).bound(SIGNATURES)
    assert reason in str(error.value)


def test_deep_or_long_noise_is_refused_quickly() -> None:
    for text in ("f(" * 50_000, "f([" + "1," * 100_000, "f('" + "\\\\" * 100_000):
        with pytest.raises(MalformedError):
            read_call(text)
