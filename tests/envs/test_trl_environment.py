"""A class written for TRL plays here: its tools, its answers to bad calls, its rewards and rows."""

import asyncio
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.loading import to_yaml
from agentrl.core.types import Action, Observation, Step, Task
from agentrl.envs.trl_environment.env import TrlEnvironment
from agentrl.envs.trl_environment.example import Ladder
from agentrl.rollout.process import Recipe
from support.foreign import Judged, Shelf

LADDER = Task(id="t", seed=0, data={"row": {"seed": 3}})  # 1 to 5
SHELF = Task(id="s", seed=0, data={"row": {"item": "cup"}})


def call(name: str, **arguments: object) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def shelf() -> TrlEnvironment:
    return TrlEnvironment(factory="support.foreign:Shelf", reward="reward", done="is_done")


def play(env: TrlEnvironment, task: Task, *actions: Action) -> tuple[Observation, list[Step]]:
    async def episode() -> tuple[Observation, list[Step]]:
        return await env.reset(task), [await env.step(action) for action in actions]

    return asyncio.run(episode())


def told(step: Step) -> list[str]:
    """The tool messages of a step."""
    messages = cast("Observation", step.observation).messages
    assert all(message.role == "tool" for message in messages or ())
    return [message.text for message in messages or ()]


def test_tools_are_called_and_the_reward_is_what_a_turn_adds() -> None:
    env = TrlEnvironment(done="done")
    first, steps = play(env, LADDER, call("double"), call("double"), call("add", amount=1))
    assert first.text == "You are at 1. Reach 5."
    assert [told(step) for step in steps] == [[f"You are at {n}. Reach 5."] for n in (2, 4, 5)]
    assert [step.reward for step in steps] == [0.0, 0.0, 1.0]
    assert [step.terminated for step in steps] == [False, False, True]
    assert steps[-1].info["success"] is True
    with pytest.raises(RuntimeError, match="the episode is over"):
        asyncio.run(env.step(call("double")))


def test_a_message_without_a_call_is_the_last_word() -> None:
    _, steps = play(TrlEnvironment(), LADDER, call("double"), "I give up")
    assert (steps[1].terminated, steps[1].info["success"], steps[1].reward) == (True, False, 0.0)


def test_several_calls_in_one_message_are_answered_one_by_one() -> None:
    _, [step] = play(TrlEnvironment(), LADDER, [call("double"), call("add", amount=3)])
    assert told(step) == ["You are at 2. Reach 5.", "You are at 5. Reach 5."]
    assert step.info["metrics"] == {"tool_calls": 2.0, "bad_calls": 0.0}


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (call("dubble"), "no tool is called 'dubble'; did you mean 'double'? (known: add, double)"),
        (call("add"), "add: missing amount"),
        (call("add", amuont=1), "no argument is called 'amuont'; did you mean 'amount'?"),
        (call("add", amount="1"), "add: amount must be integer, not '1'"),
        (call("add", amount=True), "add: amount must be integer, not True"),
        (call("add", amount=7), "amount must be 1, 2 or 3, not 7"),
        ('{"name": "add", "arguments": [1]}', "add: arguments must be an object, not [1]"),
        ('{"name": "add", ', "not valid JSON"),
        ('{"tool": "add"}', "expected {"),
        ("[1, 2]", "expected {"),
        (call("reset"), "no tool is called 'reset'"),
        (call("_move", number=5), "no tool is called '_move'"),
        (call("__init__"), "no tool is called '__init__'"),
    ],
)
def test_a_bad_call_is_told_counted_and_changes_nothing(action: str, words: str) -> None:
    _, [step, after] = play(TrlEnvironment(), LADDER, action, call("double"))
    assert words in told(step)[0].replace("\\'", "'")
    assert told(step)[0].startswith("{'error': ")
    assert step.info["invalid_action"] is True
    assert step.info["metrics"] == {"tool_calls": 1.0, "bad_calls": 1.0}
    assert (step.terminated, step.reward) == (False, 0.0)
    assert told(after) == ["You are at 2. Reach 5."]
    assert "invalid_action" not in after.info


def test_async_tools_choices_pictures_and_rewards_that_are_attributes() -> None:
    first, steps = play(
        shelf(),
        SHELF,
        call("take", item="cup", hand="right", weights=None),
        call("look"),
        call("drop"),
        call("take", item="cup", hand="foot"),
        call("take", item="cup", count=2, weights=[1.5]),
    )
    assert first.text == ""
    assert told(steps[0]) == ["took 1 cup with the right hand"]
    messages = cast("Observation", steps[1].observation).messages or ()
    assert (messages[0].text, len(messages[0].images)) == ("a shelf", 1)
    assert messages[0].images[0].png.startswith(b"\x89PNG")
    assert told(steps[2]) == [str({"error": "nothing to drop"})]
    assert "must be one of ['left', 'right']" in told(steps[3])[0].replace("\\'", "'")
    assert [step.reward for step in steps] == [0.5, 0.0, 0.0, 0.0, 0.5]
    assert steps[-1].terminated


def test_a_factory_may_be_a_function() -> None:
    env = TrlEnvironment(factory="support.foreign:make_shelf", reward="reward")
    _, [step] = play(env, SHELF, call("take", item="cup"))
    assert step.reward == 0.5


def test_a_reward_that_cannot_tell_is_not_a_number_at_the_end() -> None:
    env = TrlEnvironment(factory=f"support.foreign:{Judged.__name__}")
    _, steps = play(env, LADDER, call("wait"), "done")
    assert steps[0].reward == 0.0
    assert math.isnan(steps[1].reward)


def test_the_prompt_of_a_row_is_continued_by_what_reset_shows() -> None:
    row = {
        "seed": 3,
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Climb. "},
        ],
    }
    first, _ = play(TrlEnvironment(), Task(id="t", seed=0, data={"row": row}))  # type: ignore[dict-item]
    assert [(m.role, m.text) for m in first.messages or ()] == [
        ("system", "Be brief."),
        ("user", "Climb. You are at 1. Reach 5."),
    ]
    text, _ = play(
        TrlEnvironment(), Task(id="t", seed=0, data={"row": {"seed": 3, "prompt": "Go. "}})
    )
    assert (text.text, text.messages) == ("Go. You are at 1. Reach 5.", None)


def test_rows_of_a_file_are_split_by_what_they_say(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"seed": n % 40}) for n in range(80)]
    rows.write_text("\n".join([*lines, ""]), encoding="utf-8")
    env = TrlEnvironment(rows=rows)
    seeds = [
        {cast("dict[str, int]", t.data["row"])["seed"] for t in env.tasks(split)}
        for split in ("train", "dev", "test")
    ]
    assert sum(map(len, seeds)) == len(set.union(*seeds)) == 40
    assert len(seeds[0]) > len(seeds[1]) > 0


@pytest.mark.parametrize(
    ("text", "problem"), [("{", "rows.jsonl:1 is not JSON"), ("[]", "expected an object")]
)
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        TrlEnvironment(rows=rows).tasks("train")
    with pytest.raises(ConfigError, match="rows: no file"):
        TrlEnvironment(rows=tmp_path / "none").tasks("train")


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        ("Ladder", "expected module:NAME"),
        ("no_such_module:Ladder", "cannot import 'no_such_module' .* PYTHONPATH"),
        ("support.foreign:Shelv", "no class 'Shelv'; did you mean 'Shelf'"),
        ("support.foreign:NoReset", r"has no reset\(\)"),
        ("support.foreign:NoTools", "no public method that could be a tool"),
        ("support.foreign:NoDocs", "no description for the argument 'seconds'.*Args section"),
        ("support.foreign:Shelf", "has no 'get_reward'; .*reward=ATTRIBUTE"),
    ],
)
def test_a_class_that_cannot_play_is_refused_when_the_config_is_read(
    factory: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        TrlEnvironment(factory=factory)


def test_an_attribute_that_is_not_there_is_named_at_the_first_reset() -> None:
    env = TrlEnvironment(factory="support.foreign:Shelf", reward="rewrad")
    with pytest.raises(EnvError, match="has no 'rewrad'; did you mean 'reward'"):
        play(env, SHELF)


def test_a_process_that_gets_the_env_needs_no_transformers() -> None:
    """They take seconds to import, and every env of a process runner has a process of its own."""
    code = (
        "import pickle, sys; env = pickle.loads(sys.stdin.buffer.read()); "
        "print(env.reward, *(t['function']['name'] for t in env.tools(None)), "
        "'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(Recipe.of(shelf()).make()),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=50,
    )
    assert done.stdout.decode().split() == ["reward", "drop", "look", "take", "False"], done.stderr


def test_settings_survive_the_config() -> None:
    text = to_yaml(shelf())
    assert "factory: support.foreign:Shelf" in text


@pytest.mark.trl
@pytest.mark.parametrize("world", [Ladder, Shelf])
def test_tools_are_those_that_trl_shows(world: type) -> None:
    """TRL renders the bound methods of an instance, in `inspect.getmembers` order."""
    from transformers.utils import get_json_schema

    path = f"{world.__module__}:{world.__name__}"
    env = TrlEnvironment(factory=path, reward="get_reward" if world is Ladder else "reward")
    tools = ["add", "double"] if world is Ladder else ["drop", "look", "take"]
    assert env.tools(LADDER) == [get_json_schema(getattr(world(), name)) for name in tools]
