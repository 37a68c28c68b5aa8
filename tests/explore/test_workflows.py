"""Workflows: what a demonstration may have meant, and which of it turns out to be right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Found
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.types import Action, Split, Step, Task
from agentrl.explore.programs import (
    Constraint,
    Program,
    goal_of,
    programs_for,
    read_screen,
)
from agentrl.explore.workflows import Book, Lattice, Workflows
from agentrl.rollout.runners import runner_for
from agentrl.text.gui import Click, Label, Type, canonical

GOAL = 'task Enter "emile" as the name and press Login.'
TEXT = f"""{GOAL}
[1] label Name
[2] input_text = "so far" (focused)
[3] label Password
[4] input_text
[5] button Login
[6] button Cancel"""


@dataclass(kw_only=True)
class Form(Env):
    """A name into the first of two fields, whose place changes, then one of two buttons."""

    runs_in: ClassVar[RunsIn] = "inline"
    breaks_at: int = -1
    """The task that raises."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=f"form/{n}", seed=n) for n in range(60)]

    def reset(self, task: Task) -> str:
        rng = Random(task.seed)
        self.name = rng.choice(["ann", "bob", "cleo"]) + str(task.seed)
        fields = [("label Name", "input_text"), ("label City", "input_text")]
        buttons = ["button Submit", "button Help"]
        rng.shuffle(fields)
        rng.shuffle(buttons)
        lines = [line for pair in fields for line in pair] + buttons
        self.lines = [f"[{n}] {line}" for n, line in enumerate(lines, start=1)]
        self.field = str(lines.index("label Name") + 2)
        self.button = str(lines.index("button Submit") + 1)
        self.typed = ""
        if task.seed == self.breaks_at:
            raise ValueError("jammed")
        return "\n".join([f'Enter "{self.name}" and press Submit.', *self.lines])

    def step(self, action: Action) -> Step:
        if action == canonical(Type(self.name, self.field)):
            self.typed = self.name
        is_over = action == canonical(Click(self.button))
        is_success = is_over and self.typed == self.name
        return Step(
            observation="\n".join(self.lines),
            reward=float(is_success),
            terminated=is_over,
            info={"success": is_success},
        )

    def expert_action(self) -> str:
        is_typed = self.typed == self.name
        return canonical(Click(self.button) if is_typed else Type(self.name, self.field))


def explored(how: Workflows, env: Env, folder: Path) -> list[Found]:
    said: list[str] = []
    tasks = env.tasks("train")[: how.tasks]
    found = asyncio.run(how.find(tasks, env, runner_for(env), folder, seed=1, say=said.append))
    assert said[-1].startswith(f"explore: {len(tasks)} of {len(tasks)} tasks")
    return found


def test_a_screen_is_read_from_its_lines() -> None:
    screen = read_screen(TEXT, goal_of(TEXT), "2")
    assert goal_of(TEXT) == GOAL
    assert screen.fields == ("emile",)
    assert [tuple(e) for e in screen.elements[:2]] == [
        ("1", "label", "Name"),
        ("2", "input_text", ""),
    ]
    assert [e.text for e in screen.elements[4:]] == ["Login", "Cancel"]


def test_a_click_may_have_meant_tag_text_place_or_what_the_goal_says() -> None:
    screen = read_screen(TEXT, GOAL)
    programs = programs_for(canonical(Click("5")), screen)
    assert {str(p) for p in programs} == {
        "click(tag 'button')",
        "click(text 'Login')",
        "click(said)",
    }
    for program in programs:
        assert canonical(Click("5")) in program.actions(screen)
    assert len(Program('{"action":"click"}', Constraint("tag", "button")).actions(screen)) == 2


def test_a_text_may_have_been_meant_as_it_stands_or_as_what_the_goal_quotes() -> None:
    screen = read_screen(TEXT, GOAL)
    programs = {str(p) for p in programs_for(canonical(Type("emile", "2")), screen)}
    assert "type(behind 'Name', quoted 0)" in programs
    assert "type(behind 'Name', 'emile')" in programs
    other = read_screen(TEXT.replace("emile", "zoe"), GOAL.replace("emile", "zoe"))
    program = Program('{"action":"type"}', Constraint("behind", "Name"), "text", 0)
    assert program.actions(other) == [canonical(Type("zoe", "2"))]
    assert (
        Program('{"action":"type"}', Constraint("behind", "Name"), "text", 1).actions(other) == []
    )


def test_an_element_that_was_named_by_its_text_is_named_so_elsewhere() -> None:
    programs = programs_for(canonical(Click(Label("Login"))), read_screen(TEXT, GOAL))
    assert {str(p) for p in programs} == {
        "click(tag 'button')",
        "click(text 'Login')",
        "click(said)",
    }
    other = read_screen("[7] button Sign in\n[8] input_text", 'press "Sign in"')
    [by_tag] = [p for p in programs if str(p) == "click(tag 'button')"]
    assert by_tag.actions(other) == [canonical(Click(Label("Sign in")))]


def test_an_action_without_an_element_and_one_that_is_no_json_satisfy_themselves() -> None:
    screen = read_screen(TEXT, GOAL)
    for action in ('{"action":"back"}', '{"action":"press","keys":"Enter"}', "go north"):
        [program] = programs_for(action, screen)
        assert program.actions(screen) == [action]


def test_after_50_episodes_on_shuffled_pages_the_text_is_what_was_meant() -> None:
    rng = Random(3)
    buttons = ["Submit", "Cancel", "Help"]
    screen = read_screen("\n".join(f"[{n}] button {b}" for n, b in enumerate(buttons)), "send it")
    lattice = Lattice.of("send it", [(screen, canonical(Click("0")))])
    book = Book(rate=0.8, slow=0.9, lattices=[lattice])
    lattice.steps[0][0].weight = lattice.steps[0][1].weight = 0.0
    for _ in range(50):
        rng.shuffle(buttons)
        shown = "\n".join(f"[{n}] button {b}" for n, b in enumerate(buttons))
        choice = lattice.sample(0, read_screen(shown, "send it"), rng)
        right = canonical(Click(str(buttons.index("Submit"))))
        book.learn(lattice, [choice], choice.action == right)
    best = max(zip(lattice.chances(0), lattice.steps[0], strict=True), key=lambda pair: pair[0])
    assert str(best[1].program) == "click(text 'Submit')"
    assert best[0] > 0.8


def test_one_step_of_learning_is_the_rule_by_hand() -> None:
    screen = read_screen("[1] button A\n[2] button B", "go")
    lattice = Lattice.of("go", [(screen, canonical(Click("1")))])
    kinds = [str(edge.program) for edge in lattice.steps[0]]
    assert kinds == ["click(text 'A')", "click(tag 'button')"]
    assert [edge.weight for edge in lattice.steps[0]] == [1.0, 0.0]
    p = lattice.chances(0)
    assert p == pytest.approx([0.7311, 0.2689], abs=1e-4)
    choice = lattice.sample(0, screen, Random(0))._replace(action=canonical(Click("1")))
    lattice.learn(choice, 1.0, rate=0.8, slow=0.9)
    joint = [p[0] * 1.0, p[1] * 0.5]
    expected = [1 + 0.8 * (joint[0] / sum(joint) - p[0]), 0.8 * (joint[1] / sum(joint) - p[1])]
    assert [edge.weight for edge in lattice.steps[0]] == pytest.approx(expected)
    assert lattice.worth[0] == pytest.approx(0.1)


def test_a_form_is_filled_from_three_demonstrations(tmp_path: Path) -> None:
    how = Workflows(tasks=60, demos=3, tries=4)
    found = explored(how, Form(), tmp_path)
    assert [one.first for one in found[:3]] == [2, 2, 2]
    solved = [bool(one.ways) for one in found]
    assert sum(solved[-20:]) >= 18
    env = Form()
    for one in found:
        for way in one.ways:
            env.reset(one.task)
            assert [env.step(action) for action in way][-1].info["success"]
    told = json.loads((tmp_path / "workflows.json").read_text())
    assert len(told["workflows"]) == 3
    assert len(told["episodes"]) >= 57
    assert sum(told["episodes"][-20:]) >= 17
    steps = told["workflows"][0]["steps"]
    assert next(iter(steps[0])) == "type(behind 'Name', quoted 0) -> 1"
    assert found == explored(how, Form(), tmp_path / "again"), "the same seed finds the same"


def test_an_env_that_breaks_costs_its_task_and_no_other(tmp_path: Path) -> None:
    found = explored(Workflows(tasks=8, demos=2), Form(breaks_at=5), tmp_path)
    assert ["jammed" in (one.failure or "") for one in found] == [n == 5 for n in range(8)]


def test_without_a_demonstration_that_succeeds_nothing_is_tried(tmp_path: Path) -> None:
    found = explored(Workflows(tasks=6, demos=2, steps=1), Form(), tmp_path)
    assert all(not one.ways for one in found)
    assert [one.steps for one in found] == [1, 1, 0, 0, 0, 0]


def test_an_env_without_an_expert_is_refused() -> None:
    class Mute(Form):
        expert_action = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"env Mute has no expert_action\(\)"):
        Workflows().check(Mute())
