"""What ends a reply: eos, the template's end of turn, generation_config's ids.

Whichever was sampled is trained; a cut-off reply is ended by the template, untrained.
"""

from collections.abc import Sequence

import pytest

from agentrl.core.types import Message, Turn
from agentrl.rollout.fold import continues
from agentrl.text.renderer import Append, Template, build_renderer
from support.templates import STYLES, TOKENIZERS, tokenizer_of

MARKS = {
    name: int(tokenizer_of("byte_level", "appends").convert_tokens_to_ids(name))  # type: ignore[arg-type]
    for name in ("</s>", "<|im_end|>", "<|stop|>", "[INST]")
}
EOS, END, STOP = MARKS["</s>"], MARKS["<|im_end|>"], MARKS["<|stop|>"]


def renderer(style: str, *more: int, kind: str = "byte_level") -> Template:
    built = build_renderer("template", tokenizer_of(kind, style), frozenset(more))
    assert isinstance(built, Template)
    return built


def second_prompt(
    by: Template, ids: Sequence[int], *, answer: str = "b"
) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """The first prompt, the second, and whether the row goes on."""
    ids = tuple(ids)
    first = [Message(role="user", text="a")]
    prompt = by.prompt(first)
    turn = Turn(prompt_ids=prompt, action_ids=ids, sampler_logprobs=(0.0,) * len(ids))
    reply = Message(role="assistant", text=by.text(ids), ids=ids)
    after = by.prompt([*first, reply, Message(role="user", text=answer)], prompt + ids)
    return prompt, after, continues(turn, after)


@pytest.mark.parametrize(
    ("style", "end"),
    [
        ("appends", END),
        ("headers", END),
        ("trims", END),
        ("lower_cases", END),
        ("ends_with_a_line", END),
        ("model_role", END),
        ("instructions", EOS),
        ("ends_with_eos", EOS),
        ("no_end_of_turn", None),
    ],
)
def test_the_end_of_turn_is_what_the_template_writes_behind_a_reply(
    style: str, end: int | None
) -> None:
    assert renderer(style).end_of_turn == end
    assert renderer(style).stop_ids == {EOS, end} - {None}
    assert renderer(style).reply("go")[-1] == (EOS if end is None else end)


def test_the_model_s_own_ids_stop_too() -> None:
    assert renderer("appends", STOP, EOS).stop_ids == {EOS, END, STOP}


def test_a_sampled_end_of_turn_is_kept_and_not_written_again() -> None:
    by = renderer("appends")
    ids = by.reply("go")
    prompt, after, is_same = second_prompt(by, ids)
    assert is_same
    assert after[len(prompt) : len(prompt) + len(ids)] == ids
    assert after[len(prompt) + len(ids)] != END


def test_a_cut_off_reply_is_ended_by_the_template() -> None:
    by = renderer("appends")
    ids = by.reply("go")[:-1]
    prompt, after, is_same = second_prompt(by, ids)
    assert is_same
    assert after[len(prompt) + len(ids)] == END


@pytest.mark.parametrize("stop", [EOS, STOP])
def test_another_stop_id_than_the_template_s_opens_a_new_row(stop: int) -> None:
    by = renderer("appends", STOP)
    ids = (*by.reply("go")[:-1], stop)
    _, after, is_same = second_prompt(by, ids)
    assert not is_same
    assert stop not in after, "the template writes its own end of turn"
    assert by.text(ids) == "go"


def test_an_eos_that_is_the_template_s_end_of_turn_keeps_the_row() -> None:
    by = renderer("ends_with_eos", END, STOP)
    for ids, is_kept in [((EOS,), True), ((END,), False), ((STOP,), False)]:
        assert second_prompt(by, (*by.encode("go"), *ids))[2] is is_kept


def test_a_template_without_an_end_of_turn_keeps_cut_off_replies_only() -> None:
    by = renderer("no_end_of_turn")
    assert second_prompt(by, by.encode("go"))[2]
    assert not second_prompt(by, (*by.encode("go"), EOS))[2]


def test_only_the_last_id_ends_a_reply() -> None:
    by = renderer("appends", STOP)
    odd = (*by.encode("go"), STOP, *by.encode("on"), END)
    assert by.text(odd) == "go<|stop|>on"
    prompt, after, is_same = second_prompt(by, odd)
    assert is_same
    assert after[: len(prompt) + len(odd)] == prompt + odd


def test_an_appending_renderer_keeps_whatever_ended_the_reply() -> None:
    by = Append(tokenizer_of("byte_level", "forgets_reasoning"))
    by.stop_ids |= {STOP}
    for end in ((), (END,), (EOS,), (STOP,)):
        ids = (*by.encode("<think>?</think>go"), *end)
        prompt, after, is_same = second_prompt(by, ids)
        assert is_same
        assert after[: len(prompt) + len(ids)] == prompt + ids
        assert after.count(END) == 3, "two observations and the reply"


# --- pieces are encoded as they would be inside the whole prompt --------------------------------


@pytest.mark.parametrize("style", ["appends", "instructions", "dated", "merges_tools"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_row_of_ordinary_replies_is_the_whole_rendering_encoded_at_once(
    kind: str, style: str
) -> None:
    by = renderer(style, kind=kind)
    messages: list[Message] = []
    row: tuple[int, ...] = ()
    for k in range(4):
        messages.append(Message(role="user", text=f"you see {k} wall, a red ball"))
        row = by.prompt(messages, row)
        ids = by.reply("turn left")
        messages.append(Message(role="assistant", text=by.text(ids), ids=ids))
        row += ids
    row = by.prompt([*messages, Message(role="user", text="over")], row)
    chat = [
        {"role": m.role, "content": m.text} for m in [*messages, Message(role="user", text="over")]
    ]
    text = by.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert row == tuple(by.tokenizer.encode(str(text), add_special_tokens=False))


def test_there_is_a_style_for_each_rule() -> None:
    assert {"appends", "ends_with_eos", "no_end_of_turn"} <= set(STYLES)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "text", ["<|IM_END|>", "a<|im_end|>b", "[INST] x [/INST]", "\U0010f000</s>"]
)
def test_control_tokens_that_a_template_changes_the_case_of_stay_text(kind: str, text: str) -> None:
    by = renderer("lower_cases", kind=kind)
    usual = by.prompt([Message(role="user", text="x"), Message(role="user", text="y")])
    prompt = by.prompt([Message(role="user", text=text), Message(role="user", text="y")])
    for mark in (EOS, END, MARKS["[INST]"]):
        name = tokenizer_of("byte_level", "appends").convert_ids_to_tokens(mark)
        here = by.tokenizer.convert_tokens_to_ids(str(name))
        assert prompt.count(here) == usual.count(here)
