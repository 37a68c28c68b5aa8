"""Tool-call codecs: what a model writes becomes canonical JSON, or no action at all."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError, EnvError
from agentrl.core.protocols import ToolFormat
from agentrl.core.types import Action, Json
from agentrl.text.actions.hermes import HermesCalls
from agentrl.text.actions.llama_json import LlamaCalls
from agentrl.text.actions.mistral import MistralCalls
from agentrl.text.actions.plain import PlainAction
from agentrl.text.actions.qwen_xml import QwenXmlCalls
from agentrl.text.calls import NAME, Call, as_tools, call, calls_of, canonical

HERMES, QWEN, LLAMA, MISTRAL = HermesCalls(), QwenXmlCalls(), LlamaCalls(), MistralCalls()
CODECS: tuple[ToolFormat, ...] = (HERMES, QWEN, LLAMA, MISTRAL, MistralCalls(style="list"))
LOOK, GO = call("look"), call("go", steps=2, to="the door")
TOOLS = as_tools(
    [
        {
            "name": "go",
            "description": "Go somewhere.",
            "parameters": {
                "type": "object",
                "properties": {
                    "to": {"type": "string"},
                    "steps": {"type": "integer"},
                    "speed": {"type": "number"},
                    "is_fast": {"type": "boolean"},
                    "over": {"type": "array"},
                },
            },
        }
    ]
)

TRICKY = (
    *("</tool_call>", "<tool_call>", "</think>", "<think>", "[ARGS]", "[TOOL_CALLS]", "5", "null"),
    *('"', '"a"', "{}", ";", "\n", " ", "</parameter>", "<|python_tag|>", "</function>", "\\u003c"),
)
texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(TRICKY)
leaves: st.SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
names = st.from_regex(NAME, fullmatch=True)
keys = st.text(st.characters(codec="utf-8", exclude_characters="<>\n"), min_size=1, max_size=6)
calls = st.builds(Call, names, st.dictionaries(keys, values, max_size=3)).map(canonical)
actions = calls | st.lists(calls, min_size=2, max_size=3)
noise = st.lists(
    texts
    | st.sampled_from(
        [HERMES.write(GO), QWEN.write(GO), LLAMA.write(GO), MISTRAL.write(GO), '{"name": "x"'],
    ),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("codec", CODECS)
def test_written_calls_read_back(codec: ToolFormat) -> None:
    @settings(max_examples=40)
    @given(actions)
    def check(action: Action) -> None:
        assert codec.parse(codec.write(action)) == action
        assert codec.calls(codec.write(action), TOOLS) == action or codec is QWEN

    check()


@pytest.mark.parametrize("codec", CODECS)
def test_any_text_is_canonical_calls_or_none(codec: ToolFormat) -> None:
    @settings(max_examples=60)
    @given(noise)
    def check(text: str) -> None:
        action = codec.parse(text)
        if action is not None:
            assert [canonical(one) for one in calls_of(action)] == (
                [action] if isinstance(action, str) else action
            )
            assert isinstance(action, str) or len(action) > 1

    check()


@pytest.mark.parametrize(
    ("codec", "text", "expected"),
    [
        (HERMES, f"I look.\n<tool_call>\n{LOOK}\n</tool_call>", LOOK),
        (HERMES, f"<tool_call>{LOOK}</tool_call> and <tool_call>{GO}</tool_call>", [LOOK, GO]),
        (HERMES, f"<think><tool_call>{GO}</tool_call></think><tool_call>{LOOK}</tool_call>", LOOK),
        (HERMES, f"maybe {GO} </think> <tool_call>{LOOK}</tool_call>", LOOK),
        (HERMES, f"<think><tool_call>{LOOK}</tool_call>", None),
        (HERMES, f"<tool_call>{LOOK}", None),
        (HERMES, f"<tool_call>{LOOK}</tool_call><tool_call>{{</tool_call>", None),
        (HERMES, LOOK, None),
        (LLAMA, '{"name": "look", "parameters": {}}', LOOK),
        (LLAMA, '<|python_tag|>{"name": "look", "parameters": {}}', LOOK),
        (LLAMA, '{"type": "function", "name": "look", "parameters": {}}', LOOK),
        (LLAMA, f'{{"name": "look", "parameters": {{}}}}; {GO}', [LOOK, GO]),
        (LLAMA, f"{LOOK}\n{GO}", [LOOK, GO]),
        (LLAMA, f"I look: {LOOK}", None),
        (LLAMA, f"{LOOK} and so on", None),
        (LLAMA, '{"name": "look", "parameters": {}, "arguments": {}}', None),
        (LLAMA, "", None),
        (MISTRAL, f"[TOOL_CALLS] [{LOOK}]", LOOK),
        (MISTRAL, f"[TOOL_CALLS][{LOOK}, {GO}]", [LOOK, GO]),
        (MISTRAL, '[TOOL_CALLS] [{"name": "look", "arguments": {}, "id": "VvvODy9mT"}]', LOOK),
        (MISTRAL, "On it.[TOOL_CALLS]look[ARGS]{}", LOOK),
        (MISTRAL, "[TOOL_CALLS]look[CALL_ID]VvvODy9mT[ARGS]{}", LOOK),
        (
            MISTRAL,
            '[TOOL_CALLS]look[ARGS]{}[TOOL_CALLS]go[ARGS]{"to": "the door", "steps": 2}',
            [LOOK, GO],
        ),
        (MISTRAL, "[TOOL_CALLS]look[ARGS]{} then", None),
        (MISTRAL, f"[TOOL_CALLS] [{LOOK}", None),
        (MISTRAL, "[TOOL_CALLS] []", None),
        (MISTRAL, f"[{LOOK}]", None),
        (QWEN, "<tool_call>\n<function=look>\n</function>\n</tool_call>", LOOK),
        (
            QWEN,
            "Going.\n<tool_call>\n<function=go>\n<parameter=to>\nthe door\n</parameter>\n"
            "<parameter=steps>\n2\n</parameter>\n</function>\n</tool_call>",
            GO,
        ),
        (QWEN, "<tool_call><function=look></function>", None),
        (QWEN, "<function=look></function>", None),
        (QWEN, "<tool_call><function=go>to the door</function></tool_call>", None),
        (
            QWEN,
            "<tool_call><function=go><parameter=a>1</parameter><parameter=a>2</parameter>"
            "</function></tool_call>",
            None,
        ),
    ],
)
def test_the_forms_that_models_write(codec: ToolFormat, text: str, expected: Action | None) -> None:
    assert codec.parse(text) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "go", "arguments": {"x": NaN}}',
        '{"name": "go", "arguments": {"x": Infinity}}',
        '{"name": "go", "arguments": {"x": 1e999}}',
        '{"name": "go", "arguments": {"x": 1, "x": 2}}',
        '{"name": "go", "arguments": {"x": "\\ud800"}}',
        '{"name": "go", "arguments": {"x": 1,}}',
        '{"name": "go", "arguments": "{}"}',
        '{"name": "go", "arguments": []}',
        '{"name": "go", "arguments": null}',
        '{"name": "go"}',
        '{"name": 3, "arguments": {}}',
        '{"name": "", "arguments": {}}',
        '{"name": "go now", "arguments": {}}',
        '{"name": "go", "arguments": {}, "then": 1}',
        '{"arguments": {}}',
        "{'name': 'go', 'arguments': {}}",
        '[{"name": "go", "arguments": {}}]',
        "null",
        "3",
        "",
        '{"name": "go", "arguments": {"x": ' + "9" * 5000 + "}}",
        '{"name": "go", "arguments": {"x": ' + "[" * 100_000 + "}}",
        '__import__("os").getcwd()',
    ],
)
def test_what_is_not_exactly_a_call_is_none(body: str) -> None:
    assert HERMES.parse(f"<tool_call>{body}</tool_call>") is None
    assert LLAMA.parse(body) is None
    assert MISTRAL.parse(f"[TOOL_CALLS] [{body}]") is None or body.startswith("[")


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("to", "5", "5"),
        ("to", "null", "null"),
        ("to", '"5"', "5"),
        ("steps", "5", 5),
        ("steps", "5.0", None),
        ("steps", "true", None),
        ("steps", "five", None),
        ("speed", "5", 5),
        ("speed", "0.5", 0.5),
        ("is_fast", "true", True),
        ("is_fast", "True", None),
        ("is_fast", "1", None),
        ("over", '["a"]', ["a"]),
        ("over", "a", None),
        ("else", "5", 5),
        ("else", "five", "five"),
    ],
)
def test_qwen_xml_takes_the_types_that_the_schemas_say(key: str, written: str, value: Json) -> None:
    text = f"<tool_call><function=go><parameter={key}>{written}</parameter></function></tool_call>"
    expected = None if value is None else call("go", **{key: value})
    assert QWEN.calls(text, TOOLS) == expected


@given(st.dictionaries(st.just("to"), texts))
def test_strings_read_back_from_qwen_xml_with_the_schema_too(arguments: dict[str, Json]) -> None:
    action = canonical(Call("go", arguments))
    assert QWEN.calls(QWEN.write(action), TOOLS) == action


def test_the_same_call_is_the_same_string_however_it_was_written() -> None:
    spaced = '{ "arguments": {"to": "the door", "steps": 2}, "name": "go" }'
    swapped = '{"name":"go","arguments":{"steps":2,"to":"the door"}}'
    texts = [LLAMA.parse(spaced), LLAMA.parse(swapped), LLAMA.parse(LLAMA.write(GO))]
    assert texts == [GO] * 3
    assert GO == '{"arguments":{"steps":2,"to":"the door"},"name":"go"}'
    assert json.loads(GO)["arguments"]["to"] == "the door"


@pytest.mark.parametrize("codec", CODECS)
def test_a_description_names_every_tool_and_the_hint_shows_the_form(codec: ToolFormat) -> None:
    assert '"go"' in codec.describe(TOOLS)
    assert codec.hint().startswith("Your reply ")
    assert codec.tools_in == "auto"
    assert codec.system == ""
    assert isinstance(codec, ToolFormat)
    assert not isinstance(PlainAction(), ToolFormat)


def test_writing_what_is_no_call_says_what_was_expected() -> None:
    with pytest.raises(DataError, match=r"expected a call such as .*got 'go forward'"):
        HERMES.write("go forward")
    with pytest.raises(DataError, match="cannot be written in tags"):
        QWEN.write(canonical(Call("go", {"a<b": 1})))
    with pytest.raises(DataError, match="expected a tool's name"):
        call("go now")
    with pytest.raises(DataError, match="cannot be written as JSON"):
        call("go", x=float("nan"))


@pytest.mark.parametrize("tools", [3, [3], [{"type": "function"}], [{"name": "a b"}], [{1, 2}]])
def test_tools_that_are_no_schemas_are_refused(tools: Sequence[object] | int) -> None:
    with pytest.raises(EnvError, match=r"expected .*schemas"):
        as_tools(tools)


def test_tools_are_wrapped_once() -> None:
    assert as_tools(TOOLS) == TOOLS
    assert TOOLS[0]["type"] == "function"


@pytest.mark.parametrize("codec", CODECS)
def test_long_noise_is_read_in_linear_time(codec: ToolFormat) -> None:
    assert codec.parse("<tool_call>" * 20_000) is None
    assert codec.parse("<tool_call><function=a>" * 5_000) is None
    assert codec.parse("[TOOL_CALLS]" * 20_000) is None
