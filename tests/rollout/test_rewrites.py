"""A new row is laid at the turn whose words were rewritten."""

from collections.abc import Sequence

import pytest

from agentrl.core.protocols import ContextPolicy
from agentrl.core.types import Finish, Message, Stop, Task, Trajectory, Turn
from agentrl.rollout.fold import continues
from agentrl.rollout.rewrites import Rewrite, first_rewrite, rewrites
from agentrl.text.context import Full, Summary, Window
from agentrl.text.renderer import Template
from support.models import FORGETTING, TRIMMING, bpe
from support.templates import STYLES

FULL = Full()


def play(renderer: Template, replies: Sequence[str], context: ContextPolicy = FULL) -> list[Turn]:
    messages: list[Message] = []
    turns: list[Turn] = []
    for k, reply in enumerate(replies):
        messages.append(Message(role="user", text=f"see {k}"))
        last = turns[-1] if turns else None
        prompt = renderer.prompt(
            context(messages), last.prompt_ids + last.reply_ids if last else ()
        )
        ids = renderer.reply(reply)
        row = 0 if last is None else last.row + (not continues(last, prompt))
        logprobs = (0.0,) * len(ids)
        turns.append(
            Turn(
                prompt_ids=prompt,
                action_ids=ids,
                sampler_logprobs=logprobs,
                row=row,
                finish=Finish.EOS,
            )
        )
        messages.append(Message(role="assistant", text=renderer.text(ids), ids=ids))
    return turns


def found(renderer: Template, turns: Sequence[Turn]) -> list[Rewrite]:
    return list(rewrites(turns, lambda ids: str(renderer.tokenizer.decode(ids))))


def test_a_template_that_forgets_reasoning_rewrites_the_reply_that_reasoned() -> None:
    renderer = Template(bpe(FORGETTING))
    turns = play(renderer, ["go", "<think>left?</think>turn left", "go", "go"])
    [rewrite] = found(renderer, turns)
    assert (rewrite.turn, rewrite.of, rewrite.part) == (2, 1, "reply")
    assert rewrite.position == len(turns[1].prompt_ids)
    assert str(rewrite) == (
        "turn 2 opened a new row: in the reply of turn 1, '<think>left?</think>turn' "
        f"(token {rewrite.position}) became 'turn left<|im_end|>\\n<|im'"
    )


def test_white_space_that_a_template_trims_is_laid_at_its_turn() -> None:
    renderer = Template(bpe(TRIMMING))
    [rewrite] = found(renderer, play(renderer, ["go", "go", "go \n", "go"]))
    assert (rewrite.turn, rewrite.of, rewrite.part) == (3, 2, "reply")
    assert rewrite.was.startswith(" \n<|im_end|>")


def test_a_reminder_that_moves_on_is_laid_at_what_the_last_turn_was_shown() -> None:
    tokenizer = bpe(STYLES["reminds"].template)
    renderer = Template(tokenizer)
    turns = play(renderer, ["go"] * 4)
    assert [turn.row for turn in turns] == [0, 1, 2, 3]
    assert [(r.turn, r.of, r.part) for r in found(renderer, turns)] == [
        (1, 0, "prompt"),
        (2, 1, "prompt"),
        (3, 2, "prompt"),
    ]
    assert found(renderer, turns)[0].was.startswith(" Remember!<|im_end|>")


@pytest.mark.parametrize(("context", "turn"), [(Window(turns=1), 2), (Summary(turns=1), 2)])
def test_a_context_policy_rewrites_too(context: ContextPolicy, turn: int) -> None:
    renderer = Template(bpe("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"))
    rewrite = found(renderer, play(renderer, ["go", "stop", "left"], context))[0]
    assert (rewrite.turn, rewrite.of) == (turn, 0)


def test_an_episode_in_one_row_has_no_rewrites() -> None:
    renderer = Template(bpe(STYLES["appends"].template))
    assert found(renderer, play(renderer, ["go", "go ", "\n"])) == []


def test_the_same_text_by_other_tokens_is_no_rewrite() -> None:
    """The first turn's reply is cut into other tokens when the row is rendered anew; only the
    second turn's reply was rewritten."""
    renderer = Template(bpe(FORGETTING))
    odd = [*renderer.encode("g"), *renderer.encode("o")]
    turns = play(renderer, ["go", "<think>?</think>go", "go"])
    first = turns[0]
    spelt = Turn(
        prompt_ids=first.prompt_ids,
        action_ids=(*odd, *first.action_ids[-1:]),
        sampler_logprobs=(0.0,) * (len(odd) + 1),
    )
    increment = turns[1].prompt_ids[len(first.prompt_ids) + len(first.reply_ids) :]
    second = Turn(
        prompt_ids=spelt.prompt_ids + spelt.reply_ids + increment,
        action_ids=turns[1].action_ids,
        sampler_logprobs=turns[1].sampler_logprobs,
    )
    [rewrite] = found(renderer, [spelt, second, turns[2]])
    assert rewrite.of == 1


def test_pictures_alone_can_open_a_row() -> None:
    first = Turn(prompt_ids=(5,), action_ids=(6,), sampler_logprobs=(0.0,), images=("a",))
    second = Turn(
        prompt_ids=(5, 6, 7), action_ids=(6,), sampler_logprobs=(0.0,), images=("b",), row=1
    )
    [rewrite] = rewrites([first, second], lambda ids: " ".join(map(str, ids)))
    assert str(rewrite) == (
        "turn 1 opened a new row: it was shown other pictures than the row so far"
    )


def test_the_first_rewrite_says_what_to_do() -> None:
    renderer = Template(bpe(FORGETTING))
    turns = play(renderer, ["<think>left?</think>turn left", "go"])
    episode = Trajectory(task=Task(id="t/1", seed=0), turns=tuple(turns), stop=Stop.DONE)

    def decode(ids: list[int]) -> str:
        return str(renderer.tokenizer.decode(ids))

    told = first_rewrite([episode], decode, is_full=True)
    assert told is not None
    assert told.startswith("task t/1: turn 1 opened a new row: in the reply of turn 0, '<think>")
    assert "the chat template rewrote what came before (renderer=append would keep it)" in told
    assert "context policy" in str(first_rewrite([episode], decode, is_full=False))
    assert first_rewrite([], decode, is_full=True) is None
