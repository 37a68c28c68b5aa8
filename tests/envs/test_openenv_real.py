"""OpenEnv's own client plays our environments, and we play a server of OpenEnv's own classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from agentrl.adapters.serve_env import served
from agentrl.core.config import load_alone
from agentrl.core.errors import ConfigError, DeadlineError, EnvError
from agentrl.core.types import Step, Stop, Task
from agentrl.envs.babyai import BabyAI
from agentrl.envs.openenv import OpenEnv
from support import real_openenv
from support.play import collect, play_one, says, table, worker

pytestmark = [pytest.mark.adapters, pytest.mark.slow]
THREE = Task(id="t", seed=3, data={"row": {"seed": 3}})
AMOUNT = {"field": "amount", "show": ("now", "target")}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = real_openenv.free_port()
    with real_openenv.served(port):
        yield f"http://127.0.0.1:{port}"


def text(step: Step) -> str:
    shown = step.observation
    return shown if isinstance(shown, str) else shown.text


# --- theirs, played by us -------------------------------------------------------------------------


def test_a_server_of_theirs_is_played_to_its_end(url: str) -> None:
    env = OpenEnv(url=url, **AMOUNT)  # type: ignore[arg-type]
    assert env.reset(THREE).text == "now: 3\ntarget: 13"
    first, last = env.step("4"), env.step("6")
    assert (text(first), first.reward, first.terminated) == ("now: 7\ntarget: 13", 0.0, False)
    assert (text(last), last.reward, last.terminated) == ("now: 13\ntarget: 13", 1.0, True)
    assert last.info["success"] is True
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("1")
    env.reset(THREE)
    assert env.step("11").info["success"] is False
    env.close()


def test_the_only_field_that_must_be_given_takes_the_reply(url: str) -> None:
    env = OpenEnv(url=url, fixed={"note": "hi"})
    env.reset(THREE)
    assert text(env.step(" 2 ")) == 'now: 5\ntarget: 13\nnotes: ["hi"]'
    env.close()


def test_the_whole_action_may_be_json_or_a_call(url: str) -> None:
    env = OpenEnv(url=url, field="*")
    env.reset(THREE)
    [tool] = env.tools(THREE)
    assert tool["function"]["parameters"]["required"] == ["amount"]  # type: ignore[index,call-overload]
    call = json.dumps({"name": "act", "arguments": {"amount": 1, "note": "b"}})
    env.step('{"amount": 2, "note": "a"}')
    assert text(env.step(call)) == 'now: 6\ntarget: 13\nnotes: ["a", "b"]'
    env.close()


@pytest.mark.parametrize(
    ("field", "reply", "words"),
    [
        ("amount", "two", "expected integer, got 'two'"),
        ("amount", "1.5", "expected integer, got '1.5'"),
        ("*", "no json", "expected a JSON object"),
        ("*", '{"amount": "two"}', "amount: Input should be a valid integer"),
        ("*", '{"amount": 2, "how": 1}', "how: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_action_is_told_and_the_episode_goes_on(
    url: str, field: str, reply: str, words: str
) -> None:
    env = OpenEnv(url=url, field=field)
    env.reset(THREE)
    step = env.step(reply)
    assert step.info["invalid_action"] is True
    assert words in text(step)
    assert not step.terminated
    assert "now: 4" in text(env.step("1" if field == "amount" else '{"amount": 1}'))
    env.close()


def test_an_error_of_the_game_fails_the_episode_or_is_told(url: str) -> None:
    env = OpenEnv(url=url)
    env.reset(THREE)
    with pytest.raises(EnvError, match="13 is unlucky"):
        env.step("13")
    lenient = replace(env, errors="tell")
    lenient.reset(THREE)
    assert lenient.step("13").info["invalid_action"] is True
    assert "now: 4" in text(lenient.step("1"))
    env.close()
    lenient.close()


def test_settings_that_do_not_fit_the_schemas_are_refused_before_anything_is_played(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match=r"env\.field: .*'amuont'; did you mean 'amount'"):
        OpenEnv(url=url, field="amuont").tasks("train")
    with pytest.raises(ConfigError, match=r"env\.show: .*no field 'nwo'; did you mean 'now'"):
        OpenEnv(url=url, show=("nwo",)).tasks("train")
    with pytest.raises(ConfigError, match=r"env\.fixed: .*no field 'nite'; did you mean 'note'"):
        OpenEnv(url=url, fixed={"nite": 1}).tasks("train")


def test_a_hanging_step_is_cut_and_its_late_answer_is_never_taken_for_the_next(url: str) -> None:
    env = OpenEnv(url=url, patience_s=1.0)
    env.reset(THREE)
    with pytest.raises(DeadlineError, match=r"did not answer within 1 s \(env\.patience_s\)"):
        env.step("14")
    assert "now: 5" in env.reset(Task(id="u", seed=5, data={"row": {"seed": 5}})).text
    env.close()


def test_a_full_server_is_waited_for(url: str) -> None:
    with ExitStack() as stack:
        others = [OpenEnv(url=url) for _ in range(real_openenv.SESSIONS)]
        last = OpenEnv(url=url, patience_s=1.0)
        for env in (*others, last):
            stack.callback(env.close)
        for env in others:
            env.reset(THREE)
        with pytest.raises(EnvError, match="capacity"):
            last.reset(THREE)
        others[0].close()
        patient = replace(last, patience_s=20.0)
        stack.callback(patient.close)
        assert "now: 3" in patient.reset(THREE).text


def test_a_server_that_dies_fails_the_episode_and_its_successor_is_found() -> None:
    port = real_openenv.free_port()
    env = OpenEnv(url=f"http://127.0.0.1:{port}", patience_s=5.0)
    with real_openenv.served(port):
        failed = play_one(env, [says("1"), says("15")], THREE)
        assert (failed.stop, failed.success, failed.score) == (Stop.ERROR, None, None)
        assert failed.failure is not None
        assert failed.failure.where == "env"
        assert "the connection was lost" in failed.failure.error
    failed = play_one(env, [says("10")], THREE)
    assert failed.failure is not None
    assert f"no OpenEnv server answers at {env.url}" in failed.failure.error
    with real_openenv.served(port):
        assert play_one(env, [says("10")], THREE).success


def test_groups_are_played_side_by_side(url: str) -> None:
    tasks = OpenEnv(url=url).tasks("train")[:2]
    groups = collect(
        worker(OpenEnv(url=url), at=table(max_turns=3)), {-1: [says("10")]}, tasks, group_size=2
    )
    assert [t.success for group in groups for t in group.trajectories] == [True] * 4


# --- ours, played by their client -----------------------------------------------------------------


def test_their_client_sees_our_episodes_in_many_sessions_at_once() -> None:
    native = BabyAI()
    episodes, expected = [], []
    for number in range(8):
        task = native.tasks("dev")[number]
        seen: list[Any] = [native.reset(task).text]
        actions: list[dict[str, str]] = []
        while True:
            actions.append({"message": native.expert_action()})
            step = native.step(actions[-1]["message"])
            seen.append([text(step), step.reward, step.terminated or step.truncated])
            if seen[-1][2]:
                break
        episodes.append({"reset": {"task": number, "episode_id": str(number)}, "actions": actions})
        expected.append(seen)
    with served(load_alone("babyai"), name="babyai", split="dev") as server:
        found = real_openenv.played(server.url, episodes)
        assert server.sessions == 0, "each was closed"
    for number, (seen, shown) in enumerate(zip(expected, found, strict=True)):
        first, *steps, state = shown
        assert first[0]["text"] == seen[0]
        assert [[one[0]["text"], *one[1:]] for one in steps] == seen[1:]
        assert steps[-1][0]["success"] is True
        assert state == {"episode_id": str(number), "step_count": len(steps)}


def test_their_client_is_told_what_went_wrong() -> None:
    with served(load_alone("babyai"), name="babyai", sessions=3) as server:
        episodes = [
            {"reset": {"seed": 1}, "actions": [{"message": "dance"}]},
            {"reset": {"seed": 1}, "actions": [{"massage": "left"}]},
            {"reset": {"seed": 1}, "actions": [{"message": 3}]},
        ]
        odd, unknown, wrong = real_openenv.played(server.url, episodes)
    assert odd[1][0]["invalid_action"] is True
    assert "VALIDATION_ERROR" in unknown[1]
    assert "massage" in unknown[1]
    assert "VALIDATION_ERROR" in wrong[1]
