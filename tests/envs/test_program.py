"""Programs that were written for OpenAI's API are trained as they are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError, DataError
from agentrl.core.protocols import ActionFormat, Env
from agentrl.core.types import Group, Stop, Task, Trajectory
from agentrl.engines.generate import Generate
from agentrl.envs.program.endpoint import read_score
from agentrl.envs.program.env import Program
from agentrl.rewards.env import EnvReward
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.runners import runner_for
from agentrl.rollout.strategies.flat import Flat
from agentrl.rollout.worker import Worker
from agentrl.text.actions.hermes import HermesCalls
from agentrl.text.actions.plain import PlainAction
from agentrl.text.calls import call
from agentrl.text.context import Full
from agentrl.text.openai import read_request
from agentrl.text.renderer import Plain
from agentrl.train.loop import train
from support.chatter import ChatterEnv
from support.models import shared_policy
from support.play import collect, says, table, worker
from support.tools import Box
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]

POLICY = shared_policy()
PLAIN = Plain(POLICY.tokenizer)


def play(
    env: Env, tasks: list[Task], actions: ActionFormat | None = None, group_size: int = 2
) -> list[Group]:
    """Groups played by a real model; the same episodes draw the same random numbers."""
    rules = Rules(max_turns=6, max_tokens=6, max_context=200, on_invalid="pass", deadline_s=30)
    at = Table(renderer=PLAIN, context=Full(), actions=actions or PlainAction(), rules=rules)
    by = Worker(
        env=env,
        runner=runner_for(env),
        table=at,
        reward=EnvReward(),
        strategy=Flat(),
        seed=3,
    )

    async def whole() -> list[Group]:
        engine = Generate(max_batch=1)  # who else is in a batch decides its last bits
        await engine.start(POLICY)
        agent = EngineAgent(engine=engine, renderer=PLAIN, temperature=1.0, timeout_s=30)
        try:
            return await by.collect(tasks, agent=agent, group_size=group_size, label="train")
        finally:
            await by.close()
            await engine.close()

    return asyncio.run(whole())


def rows_of(folder: Path, tasks: list[Task]) -> tuple[Path, list[Task]]:
    """A native env's tasks as rows, and the program's tasks of them in the same order."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(asdict(task)) + "\n" for task in tasks))
    env = Program(function="support.programs:chatter", rows=path)
    found = {t.data["row"]["id"]: t for s in ("train", "dev", "test") for t in env.tasks(s)}  # type: ignore[call-overload,index]
    return path, [found[task.id] for task in tasks]


def turns_of(trajectory: Trajectory) -> list[tuple[object, ...]]:
    return [
        (turn.prompt_ids, turn.action_ids, turn.row, turn.sampler_logprobs, turn.action)
        for turn in trajectory.turns
    ]


def test_the_rows_of_a_program_are_those_of_the_native_env_token_for_token(tmp_path: Path) -> None:
    native = ChatterEnv()
    asked = list(native.tasks("train"))[:3]
    path, tasks = rows_of(tmp_path, asked)
    ours = play(native, asked)
    theirs = play(Program(function="support.programs:chatter", rows=path), tasks)
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one.trajectories, other.trajectories, strict=True):
            assert turns_of(a) == turns_of(b)
            assert (a.stop, a.success, a.score) == (b.stop, b.success, b.score)
            assert len(a.turns) > 1
            assert {turn.row for turn in b.turns} == {0}


def test_a_command_is_played_as_a_function_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tasks = rows_of(tmp_path, list(ChatterEnv().tasks("train"))[:1])
    command = f"{sys.executable} -m support.programs"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    [one] = play(Program(command=command, rows=path), tasks)
    [other] = play(Program(function="support.programs:chatter", rows=path), tasks)
    found = [[turns_of(t) for t in group.trajectories] for group in (one, other)]
    assert found[0] == found[1]
    assert [t.score for t in one.trajectories] == [t.score for t in other.trajectories]


def test_a_program_that_forgets_opens_a_row_for_each_call(tmp_path: Path) -> None:
    path, tasks = rows_of(tmp_path, list(ChatterEnv().tasks("train"))[:1])
    [group] = play(Program(function="support.programs:forgetful", rows=path), tasks)
    for trajectory in group.trajectories:
        assert [turn.row for turn in trajectory.turns] == list(range(len(trajectory.turns)))
        assert len(trajectory.turns) > 1


def test_calls_at_once_and_streams_are_answered_one_after_another(tmp_path: Path) -> None:
    env = Program(function="support.programs:streaming", seeds=8)
    [group] = play(env, env.tasks("train")[:1], group_size=1)  # type: ignore[arg-type]
    [trajectory] = group.trajectories
    assert trajectory.failure is None
    assert trajectory.env_return == 2.0
    first, second, last = trajectory.turns
    said = {PLAIN.text(turn.prompt_ids) for turn in (first, second)}
    assert len(said) == 2
    one = next(turn for turn in (first, second) if "one" in PLAIN.text(turn.prompt_ids))
    whole = one.prompt_ids + one.action_ids
    assert last.prompt_ids[: len(whole)] == whole, "its own reply is known by its tokens"


def test_tool_calls_of_the_real_client_are_actions(tmp_path: Path) -> None:
    """The model's words are scripted here, since a tiny one calls no tool."""
    tasks = list(Box().tasks("train"))[:1]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(asdict(tasks[0])) + "\n")
    env = Program(function="support.programs:tool_user", rows=path)
    mine = [t for split in ("train", "dev", "test") for t in env.tasks(split)]
    format_ = HermesCalls()
    words = [call("look"), call("open", number=tasks[0].seed)]
    lines = {-1: [says(format_.write(word)) for word in words]}
    at = table(on_invalid="pass", max_context=4000)
    by = worker(env, at=replace(at, actions=format_))
    [group] = collect(by, lines, mine, group_size=1)
    [trajectory] = group.trajectories
    assert trajectory.failure is None
    assert [turn.action for turn in trajectory.turns] == words
    assert trajectory.success
    assert trajectory.turns[1].row == 0, "what the tool answered extends the row"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("raises", "RuntimeError: the program has a bug"),
        ("text", "expected a reward, or"),
        ("silent", "ended before it called the model"),
    ],
)
def test_a_program_that_fails_is_a_failed_episode(tmp_path: Path, kind: str, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"kind": kind}) + "\n")
    env = Program(function="support.programs:breaking", rows=path)
    tasks = [t for split in ("train", "dev", "test") for t in env.tasks(split)]
    [group] = play(env, tasks)
    for trajectory in group.trajectories:
        assert trajectory.stop is Stop.ERROR
        assert trajectory.failure is not None
        assert told in trajectory.failure.error


def test_a_program_that_hangs_is_cut_and_its_calls_are_told_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"kind": "hangs"}) + "\n")
    env = Program(function="support.programs:breaking", rows=path, patience_s=0.5)
    tasks = [t for split in ("train", "dev", "test") for t in env.tasks(split)]
    [group] = play(env, tasks, group_size=1)
    [trajectory] = group.trajectories
    assert trajectory.failure is not None
    assert "neither called the model nor ended within 0.5 s" in trajectory.failure.error


def test_nothing_listens_when_the_env_is_closed(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    path, tasks = rows_of(tmp_path, list(ChatterEnv().tasks("train"))[:2])
    play(Program(function="support.programs:chatter", rows=path), tasks)
    left = {t.name for t in threading.enumerate()} - before
    assert "endpoint" not in left


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "no JSON"),
        (b"{}", "messages: expected a list"),
        (b'{"messages": []}', "at the end"),
        (b'{"messages": [{"role": "king"}]}', r"messages\[0\].role"),
        (b'{"messages": [{"role": "user", "content": "a"}], "n": 2}', "n: one choice"),
        (b'{"messages": [{"role": "user", "content": "a"}], "logprobs": true}', "logprobs: not"),
        (b'{"messages": [{"role": "user", "content": [{"type": "x"}]}]}', r"messages\[0\].content"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(body: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_request(body)


@pytest.mark.parametrize("text", ["", "much", "{}", '{"reward": "x"}', "[1]"])
def test_a_line_that_is_no_score_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected a score such as"):
        read_score(text)


def test_a_run_trains_a_program(tmp_path: Path, training_envs: None) -> None:
    path, _ = rows_of(tmp_path, list(ChatterEnv().tasks("train")))
    settings = [
        f"env={{name: program, function: 'support.programs:chatter', rows: {path}}}",
        "eval.every=0",
        "eval.final_tasks=0",
    ]
    with pytest.raises(ConfigError, match=r"rollout\.on_invalid: env Program .* use pass"):
        train(tiny(tmp_path, *settings))
    folder = train(tiny(tmp_path, *settings, "rollout.on_invalid=pass"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["episodes/failed_env"] for line in lines] == [0.0, 0.0]
    assert all(line["rollout/turns"] > 1 for line in lines)
