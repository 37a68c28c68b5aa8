"""A person in the model's seat."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image as Picture
from rich.console import Console

from agentrl.core.config import Alone
from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import ActionFormat, Env
from agentrl.core.types import Action, Image, Message, Observation, Split, Spot, Step, Task
from agentrl.evaluate.play import Played, play
from agentrl.text.actions.tagged import TaggedAction
from support import AsyncEchoEnv, BadEnv, EchoEnv, PlainEnv, ProcessEchoEnv, ThreadEchoEnv
from support.runs import png


def typing(lines: Sequence[str]) -> Callable[[str], str]:
    """Someone who types these lines and then closes the input."""
    left = iter(lines)

    def read(prompt: str) -> str:
        for line in left:
            return line
        raise EOFError

    return read


def played(
    env: Env, *lines: str, actions: ActionFormat | None = None, split: Split = "train"
) -> tuple[Played, str]:
    shown = io.StringIO()
    console = Console(file=shown, width=600, highlight=False)
    alone = Alone(env=env, actions=actions)
    return play(alone, split=split, read=typing(lines), console=console), shown.getvalue()


def test_the_right_words_win() -> None:
    result, shown = played(EchoEnv(), "ant", "ant")
    assert result == Played(turns=2, total=1.0, success=True, is_over=True)
    assert "say ant" in shown
    assert "Reply with one action and nothing else." in shown
    assert "actions: ant, bee, cat, dog, elk, fox" in shown
    assert "reward 0.5, terminated" in shown
    assert shown.splitlines()[-1] == "the end: success, return 1 in 2 turns"


@pytest.mark.parametrize("env", [ThreadEchoEnv(), ProcessEchoEnv(), AsyncEchoEnv()])
def test_every_kind_of_env_can_be_played(env: Env) -> None:
    assert played(env, "!", "bee")[0] == Played(turns=2, total=0.5, success=False, is_over=True)


def test_the_expert_wins_by_itself() -> None:
    result, shown = played(EchoEnv(length=3), "!", "!", "!", split="test")
    assert (result.turns, result.success) == (3, True)
    assert result.total == pytest.approx(1.0)
    assert "the expert says: ant" in shown


@pytest.mark.parametrize("lines", [[], ["quit"], ["", "  ", "quit"], ["?"]])
def test_leaving_costs_nothing(lines: list[str]) -> None:
    result, shown = played(EchoEnv(), *lines)
    assert result == Played(turns=0, total=0.0, success=None, is_over=False)
    assert shown.splitlines()[-1] == "left before the end: success unknown, return 0 in 0 turns"


def test_a_question_lists_the_legal_actions() -> None:
    _, shown = played(EchoEnv(), "?")
    assert "\nant, bee, cat, dog, elk, fox\n" in shown


def test_an_env_without_abilities_says_so() -> None:
    result, shown = played(PlainEnv("yes"), "?", "!", "yes")
    assert "this env does not tell them" in shown
    assert "this env has no expert" in shown
    assert "actions:" not in shown
    assert result.success


def test_an_invalid_action_is_told() -> None:
    result, shown = played(EchoEnv(), "zebra")
    assert "reward 0, invalid action" in shown
    assert result.turns == 1


def test_a_truncated_episode_ends() -> None:
    result, shown = played(EchoEnv(cap=2), "zebra", "zebra", "ant")
    assert (result.turns, result.success, result.is_over) == (2, False, True)
    assert "truncated" in shown


def test_a_reply_must_hold_an_action_in_the_format_but_a_legal_one_is_put_there() -> None:
    result, shown = played(
        EchoEnv(), "just talk", "<action>ant</action>", "ant", actions=TaggedAction()
    )
    assert result == Played(turns=3, total=1.0, success=True, is_over=True)
    assert "no action in it. Your reply held no <action>...</action>." in shown
    assert "Think, then give your action as <action>...</action>." in shown
    assert "a reply, for example: <action>ant</action>" in shown


def test_the_expert_speaks_the_format() -> None:
    result, shown = played(EchoEnv(), "!", "!", actions=TaggedAction())
    assert result.success
    assert "the expert says: <action>ant</action>" in shown


@dataclass(kw_only=True)
class Pictures(EchoEnv):
    """Shows a picture, and speaks in two roles; what it says looks like markup."""

    def reset(self, task: Task) -> Observation:
        super().reset(task)
        system = Message(role="system", text="[bold]rules[/bold]")
        return Observation("", messages=(system, Message(role="user", text="go", images=(DOT,))))

    def step(self, action: Action) -> Step:
        return super().step(action)


DOT = Image(b"not really a png")


def test_messages_and_pictures_are_shown_as_they_are() -> None:
    _, shown = played(Pictures())
    assert "system: [bold]rules[/bold]" in shown
    assert "user: go" in shown
    path = Path(shown.partition("[picture: ")[2].partition("]")[0])
    assert path.read_bytes() == DOT.png
    path.unlink()


@dataclass(kw_only=True)
class Screens(EchoEnv):
    """Shows a white picture, and says that each action pointed into it."""

    def reset(self, task: Task) -> Observation:
        return Observation(str(super().reset(task)), images=(Image(png(100, 50)),))

    def step(self, action: Action) -> Step:
        return replace(super().step(action), info={"success": False, "spots": [Spot(500, 500)]})


def test_where_an_action_pointed_is_drawn_into_the_picture_that_was_shown() -> None:
    _, shown = played(Screens(), "ant")
    [path] = [line.split(": ")[1] for line in shown.splitlines() if line.startswith("where that")]
    with Picture.open(path) as picture, Picture.open(io.BytesIO(png(100, 50))) as plain:
        same = [picture.getpixel(at) == plain.getpixel(at) for at in ((50, 25), (90, 25))]
        assert (same, picture.getpixel((57, 25))) == ([True, True], (214, 0, 108))
    Path(path).unlink()


def test_many_legal_actions_are_cut_short() -> None:
    class Many(EchoEnv):
        def legal_actions(self) -> list[str]:
            return [f"word{i}" for i in range(40)]

    _, shown = played(Many(), "?")
    assert "word23, ... (40: ? lists them)" in shown
    assert "word39" in shown


def test_a_task_beyond_the_split_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--task: the dev split has tasks 0 to 8 \(got 9\)$"):
        play(Alone(env=EchoEnv()), split="dev", number=9, read=typing([]))


def test_an_env_that_breaks_is_named() -> None:
    with pytest.raises(EnvError, match="the dog ate the world"):
        played(BadEnv(), "ant")
