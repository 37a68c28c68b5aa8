"""The function-calling leaderboard: what is said without its data, and with it, that the package's
own answers are right by the package's own checkers, and that others are not."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args
from zipfile import ZipFile

import pytest

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.types import Action, Json, Observation, Stop, Task
from agentrl.envs.bfcl.env import Bfcl, Category
from agentrl.envs.bfcl.gold import parsed, spelt
from agentrl.envs.bfcl.package import VARIABLE, locate, rows
from agentrl.rollout.agents import ExpertAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.text.actions.hermes_talk import HermesTalk
from agentrl.text.calls import Call, call, calls_of, canonical
from agentrl.text.context import Full
from agentrl.text.renderer import Plain
from support.models import bpe
from support.play import collect, worker

CATEGORIES = get_args(Category)
UNANSWERABLE = {
    *("bfcl/live_simple_106-63-0", "bfcl/live_simple_112-68-0"),
    *("bfcl/live_multiple_862-181-3", "bfcl/live_multiple_964-207-0"),
}
"""Tasks for which the package admits no value of an argument that it requires."""


@pytest.fixture
def wheel() -> Path:
    try:
        return locate(None)
    except ConfigError as error:
        pytest.skip(str(error))


def solved(env: Bfcl, task: Task) -> bool:
    env.reset(task)
    while True:
        step = env.step(env.expert_action())
        if step.terminated:
            return step.info["success"] is True and step.reward == 1.0


# --- without the package --------------------------------------------------------------------------


def test_without_the_wheel_the_error_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Bfcl(wheel=tmp_path / "none.whl")
    with pytest.raises(ConfigError, match=r"pip download --no-deps bfcl-eval -d ~/.cache"):
        env.tasks("test")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=f"bfcl-eval is not in {tmp_path}"):
        Bfcl().tasks("test")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_there_is_nothing_to_train_on(split: str) -> None:
    with pytest.raises(ConfigError, match=r"has a test split only, .* train on another env"):
        Bfcl().tasks(split)  # type: ignore[arg-type]


def packed(folder: Path, *, as_wheel: bool) -> Path:
    line = {"id": "x_0", "question": [[{"role": "user", "content": "Hi."}]], "function": []}
    inside, text = "bfcl_eval/data/BFCL_v4_parallel.json", f"{json.dumps(line)}\n\n"
    if as_wheel:
        with ZipFile(folder / "bfcl_eval-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(inside, text)
    else:
        (folder / inside).parent.mkdir(parents=True)
        (folder / inside).write_text(text)
    return folder


@pytest.mark.parametrize("as_wheel", [True, False])
def test_data_is_read_from_a_wheel_or_a_folder(tmp_path: Path, as_wheel: bool) -> None:
    env = Bfcl(category="parallel", wheel=packed(tmp_path, as_wheel=as_wheel))
    [task] = env.tasks("test")
    assert task.id == "bfcl/x_0"
    shown = env.reset(task)
    assert shown.text == "Hi."
    with pytest.raises(ConfigError, match="holds no bfcl_eval/data/BFCL_v4_multiple"):
        Bfcl(category="multiple", wheel=tmp_path).tasks("test")
    with pytest.raises(EnvError, match="expected a task of category parallel, got other"):
        env.reset(Task(id="other", seed=0))


FUNCTIONS = [{"name": "sort", "parameters": {"properties": {"file": {}, "deep": {}}}}]


def test_calls_are_spelt_with_known_names_and_literals_and_read_without_evaluation() -> None:
    one = Call("sort", {"file": "a'); boom('", "deep": [1, {"x": None}]})
    text = spelt(one, FUNCTIONS)
    assert text == "sort(file=\"a'); boom('\",deep=[1, {'x': None}])"
    assert parsed(text, FUNCTIONS) == one
    assert parsed("sort('a', deep=True)", FUNCTIONS) == Call("sort", {"file": "a", "deep": True})
    for wrong in (Call("exec", {}), Call("sort", {"x": 1}), Call("sort", {"file=boom(),y": 1})):
        assert spelt(wrong, FUNCTIONS) is None
    with pytest.raises(ValueError, match="malformed"):
        parsed("sort(boom())", FUNCTIONS)


# --- with it --------------------------------------------------------------------------------------


@pytest.mark.bfcl
@pytest.mark.parametrize("category", CATEGORIES)
def test_the_packages_own_answers_are_right(wheel: Path, category: Category) -> None:
    env = Bfcl(category=category, wheel=wheel)
    tasks = env.tasks("test")
    assert len(tasks) >= 16
    every = 8 if category.startswith("multi_turn") else 1
    failed = {task.id for task in tasks[::every] if not solved(env, task)}
    assert failed == {one for one in UNANSWERABLE if one.startswith(f"bfcl/{category}_")}


@pytest.mark.bfcl
@pytest.mark.slow
@pytest.mark.parametrize("category", [c for c in CATEGORIES if c.startswith("multi_turn")])
def test_all_of_the_packages_own_conversations_are_right(wheel: Path, category: Category) -> None:
    env = Bfcl(category=category, wheel=wheel)
    tasks = env.tasks("test")
    assert len(tasks) == 200
    assert all(solved(env, task) for task in tasks)


def variants(action: Action) -> Iterator[Action]:
    """Answers that are wrong, made of a right one."""
    calls = calls_of(action)
    texts = [canonical(one) for one in calls]
    yield "I would rather not."
    yield texts[:-1] or call("nothing")
    yield [*texts, call("nothing")]
    yield [*texts[:-1], canonical(Call(f"{calls[-1].name}_", calls[-1].arguments))]
    key = next(iter(calls[-1].arguments), "")
    wrong: dict[str, Json] = {**calls[-1].arguments, key: {"no": ["such", {"value": 1}]}}
    yield [*texts[:-1], canonical(Call(calls[-1].name, wrong))]
    yield [*texts[:-1], canonical(Call(calls[-1].name, {**calls[-1].arguments, "more": 1}))]


@pytest.mark.bfcl
@pytest.mark.parametrize(
    "category", ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple"]
)
def test_other_answers_are_wrong(wheel: Path, category: Category) -> None:
    env = Bfcl(category=category, wheel=wheel)
    for task in env.tasks("test")[:60]:
        env.reset(task)
        for action in variants(env.expert_action()):
            env.reset(task)
            step = env.step(action)
            assert (step.terminated, step.reward, step.info["success"]) == (True, 0.0, False)


@pytest.mark.bfcl
def test_where_no_function_fits_any_call_is_wrong(wheel: Path) -> None:
    env = Bfcl(category="irrelevance", wheel=wheel)
    [task] = env.tasks("test")[:1]
    for action, success in (("No.", True), ("<tool_call>{", True), (call("anything"), False)):
        env.reset(task)
        assert env.step(action).info["success"] is success


@pytest.mark.bfcl
def test_functions_are_json_schemas_all_the_way_down(wheel: Path) -> None:
    ours = {"string", "number", "integer", "boolean", "array", "object", "null"}

    def kinds(value: object) -> Iterator[object]:
        if isinstance(value, dict):
            if "description" in value and isinstance(value.get("type"), str):
                yield value["type"]
            for one in value.values():
                yield from kinds(one)
        elif isinstance(value, list):
            for one in value:
                yield from kinds(one)

    for category in CATEGORIES:
        env = Bfcl(category=category, wheel=wheel)
        for task in env.tasks("test")[:50]:
            assert set(kinds(env.tools(task))) <= ours


def conversation(wheel: Path) -> tuple[Bfcl, Task]:
    env = Bfcl(category="multi_turn_base", wheel=wheel)
    return env, env.tasks("test")[0]


@pytest.mark.bfcl
def test_a_message_without_a_call_ends_the_users_turn(wheel: Path) -> None:
    env, task = conversation(wheel)
    env.reset(task)
    answered = env.step(env.expert_action())
    assert isinstance(answered.observation, str)
    assert answered.observation
    asked = env.step("Done.")
    assert isinstance(asked.observation, Observation)
    assert asked.observation.messages is not None
    assert asked.observation.messages[0].role == "user"


@pytest.mark.bfcl
def test_a_conversation_fails_if_a_turn_was_left_out_or_something_else_was_changed(
    wheel: Path,
) -> None:
    env, task = conversation(wheel)
    assert solved(env, task)
    env.reset(task)
    steps = [env.step("Done.") for _ in rows(wheel, "BFCL_v4_multi_turn_base")[0]["question"]]
    assert [step.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].info["success"] is False
    env.reset(task)
    env.step(call("mkdir", dir_name="mess"))
    while not (step := env.step(env.expert_action())).terminated:
        pass
    assert step.info["success"] is False


@pytest.mark.bfcl
def test_too_many_messages_within_a_turn_fail(wheel: Path) -> None:
    env, task = conversation(wheel)
    env.reset(task)
    steps = [env.step(call("ls")) for _ in range(21)]
    assert [step.terminated for step in steps] == [False] * 20 + [True]
    assert steps[-1].info["success"] is False


@pytest.mark.bfcl
def test_what_a_model_says_is_never_evaluated(wheel: Path, tmp_path: Path) -> None:
    env, task = conversation(wheel)
    env.reset(task)
    target = tmp_path / "made"
    code = f"__import__('pathlib').Path({str(target)!r}).touch()"
    for attempt in (
        call("cd", folder=code),
        call("cd", folder=f"') or {code} or ('"),
        canonical(Call("cd", {f"folder=({code}),x": 1})),
        call("eval", text=code),
        canonical(Call("__import__", {"name": "os"})),
        canonical(Call("ls", {"a": code})),
    ):
        assert not env.step(attempt).terminated
    assert not target.exists()


@pytest.mark.bfcl
def test_envs_side_by_side_share_nothing(wheel: Path) -> None:
    (one, task), (other, _) = conversation(wheel), conversation(wheel)
    one.reset(task)
    other.reset(task)
    before = other.step(call("ls")).observation
    one.step(call("mkdir", dir_name="mess"))
    assert other.step(call("ls")).observation == before
    assert one.step(call("ls")).observation != before
    one.reset(task)
    assert one.step(call("ls")).observation == before


@pytest.mark.bfcl
@pytest.mark.parametrize("category", ["parallel", "irrelevance", "multi_turn_base"])
def test_an_episode_in_the_envs_own_action_format_succeeds(wheel: Path, category: Category) -> None:
    env = Bfcl(category=category, wheel=wheel)
    renderer, actions = Plain(bpe()), HermesTalk()
    rules = Rules(max_turns=40, max_tokens=4_000, max_context=400_000)
    table = Table(renderer=renderer, context=Full(), actions=actions, rules=rules)
    agent = ExpertAgent(renderer=renderer, actions=actions)
    tasks: Sequence[Task] = env.tasks("test")[:2]
    for group in collect(worker(env, at=table), agent, tasks, group_size=1):
        [trajectory] = group.trajectories
        assert trajectory.failure is None
        assert (trajectory.stop, trajectory.success) == (Stop.DONE, True)
