"""`agentrl serve-env`: what is played through the server is what is played natively."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import cast

import httpx
import pytest

pytest.importorskip("websockets", reason="needs agentrl[openenv]")

from agentrl.adapters.serve_env import served
from agentrl.core.config import Alone, load_alone
from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env
from agentrl.core.types import Json, Task, Trajectory
from agentrl.envs.babyai import BabyAI
from agentrl.envs.openenv import OpenEnv
from agentrl.envs.openenv.remote import RefusedError, Remote
from support import EchoEnv, ThreadBadEnv
from support.interrupts import heed_ctrl_c
from support.play import play_one, says, table
from support.tools import Box

OURS = {"show": ("text",), "success": "success", "truncated": "truncated"}


def over(url: str) -> OpenEnv:
    """Our own server, with all that it tells."""
    return OpenEnv(url=url, invalid="invalid_action", **OURS)  # type: ignore[arg-type]


def numbered(number: int) -> Task:
    return Task(id="t", seed=0, data={"row": {"task": number}})


def expert(env: BabyAI, task: Task) -> list[str]:
    env.reset(task)
    said = []
    while True:
        said.append(env.expert_action())
        if env.step(said[-1]).terminated:
            return said


def same(one: Trajectory, other: Trajectory) -> None:
    """Ids, logprobs, rewards, rows and the end; the state keys are the native env's own."""
    assert [
        (t.prompt_ids, t.action_ids, t.sampler_logprobs, t.reward, t.row, t.action, t.invalid)
        for t in one.turns
    ] == [
        (t.prompt_ids, t.action_ids, t.sampler_logprobs, t.reward, t.row, t.action, t.invalid)
        for t in other.turns
    ]
    assert (one.stop, one.success, one.env_return) == (other.stop, other.success, other.env_return)


@pytest.mark.parametrize("number", [0, 5])
def test_an_episode_through_the_server_is_the_native_one_token_for_token(number: int) -> None:
    native = BabyAI()
    task = native.tasks("dev")[number]
    replies = ["dance", *expert(native, task)]
    at = table(max_turns=99, max_context=9999)
    with served(load_alone("babyai"), name="babyai", split="dev") as server:
        one = play_one(native, [says(reply) for reply in replies], task, at=at)
        other = play_one(
            over(server.url), [says(reply) for reply in replies], numbered(number), at=at
        )
    assert one.success is True
    assert one.turns[0].invalid
    same(one, other)


def alone(env: Env) -> Alone:
    return Alone(env=env)


def test_many_sessions_are_kept_apart() -> None:
    native = BabyAI()
    tasks = native.tasks("train")
    players = 24
    starts: list[str] = [""] * players
    with served(load_alone("babyai"), name="babyai", sessions=players) as server:
        ready = threading.Barrier(players)

        def play(number: int) -> None:
            remote = Remote(server.url, 20.0)
            remote.reset({"task": number})
            ready.wait(20)  # all are open at once
            for _ in range(5):
                assert not remote.step({"message": "left"}).observation["invalid_action"]
            starts[number] = str(remote.reset({"task": number}).observation["text"])
            remote.close()

        threads = [threading.Thread(target=play, args=(number,)) for number in range(players)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert starts == [native.reset(tasks[number]).text for number in range(players)]


def test_one_session_too_many_is_refused_and_a_closed_one_makes_room() -> None:
    with served(alone(EchoEnv()), name="echo", sessions=1) as server:
        first, second = Remote(server.url, 5.0), Remote(server.url, 1.5)
        first.reset({})
        with pytest.raises(
            RefusedError, match=r"all 1 sessions are in use.*set rollout\.in_flight"
        ) as caught:
            second.reset({})
        assert caught.value.code == "CAPACITY_REACHED"
        first.close()
        assert second.reset({}).observation["text"]
        second.close()


def test_tasks_come_by_number_by_seed_or_in_their_order() -> None:
    env = EchoEnv()
    ids = [task.id for task in env.tasks("train")]
    with served(alone(env), name="echo") as server:
        remote = Remote(server.url, 5.0)
        asked: tuple[dict[str, Json], ...] = ({"task": 3}, {"seed": len(ids) + 4}, {}, {})
        found = [remote.reset(data).observation["task"] for data in asked]
        assert found == [ids[3], ids[4], ids[0], ids[1]]
        for wrong in ({"task": -1}, {"task": len(ids)}, {"task": "a"}, {"seed": True}):
            with pytest.raises(RefusedError, match="expected a seed, or a task from 0") as caught:
                remote.reset(wrong)
            assert caught.value.code == "VALIDATION_ERROR"
        remote.close()


def test_an_env_that_fails_is_an_error_and_the_next_reset_opens_another() -> None:
    with served(alone(ThreadBadEnv(fault="raise")), name="bad") as server:
        remote = Remote(server.url, 5.0)
        for _ in range(2):
            remote.reset({})
            with pytest.raises(RefusedError, match="step raised") as caught:
                remote.step({"message": "x"})
            assert caught.value.code == "EXECUTION_ERROR"
            with pytest.raises(RefusedError, match="the episode is over"):
                remote.step({"message": "x"})
        remote.close()


def test_tools_are_listed_and_called() -> None:
    with served(alone(Box()), name="box") as server:
        remote = Remote(server.url, 5.0)
        shown = remote.reset({"task": 2}).observation
        tools = cast("list[dict[str, dict[str, str]]]", shown["tools"])
        assert [tool["function"]["name"] for tool in tools] == ["look", "open"]
        calls: list[Json] = [
            {"name": "look", "arguments": {}},
            {"name": "open", "arguments": {"number": 3}},
        ]
        last = remote.step({"calls": calls})
        assert (last.reward, last.done, last.observation["success"]) == (1.0, True, True)
        for wrong in ([], [{"name": "look"}], "look"):
            remote.reset({"task": 2})
            with pytest.raises(RefusedError, match="calls: expected a list"):
                remote.step({"calls": wrong})
        remote.close()


def test_http_alone_can_play_too() -> None:
    with (
        served(load_alone("babyai"), name="babyai") as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        assert http.get("/health").json() == {"status": "healthy"}
        assert http.get("/metadata").json()["name"] == "babyai"
        schemas = http.get("/schema").json()
        assert schemas["action"]["required"] == ["message"]
        assert http.post("/step", json={"action": {"message": "x"}}).status_code == 422
        first = http.post("/reset", json={"task": 0, "episode_id": "a"}).json()
        assert set(first["observation"]) <= set(schemas["observation"]["properties"])
        step = {"action": {"message": "left"}, "episode_id": "a"}
        shown = http.post("/step", json=step).json()
        assert set(shown["observation"]) <= set(schemas["observation"]["properties"])
        assert (shown["reward"], shown["done"]) == (0.0, False)
        state = http.get("/state", params={"episode_id": "a"}).json()
        assert state == {"episode_id": "a", "step_count": 1}
        assert http.post("/step", content=b"{").status_code == 422
        assert http.get("/nothing").status_code == 404
        assert http.get("/ws").status_code == 426


def test_what_cannot_be_served_is_refused() -> None:
    with served(alone(EchoEnv()), name="echo") as server:
        port = int(server.url.rpartition(":")[2])
        with (
            pytest.raises(ConfigError, match=f"--port {port}: cannot listen there"),
            served(alone(EchoEnv()), name="echo", at=("127.0.0.1", port)),
        ):
            pass


def test_the_command_serves_until_it_is_stopped() -> None:
    command = [sys.executable, "-m", "agentrl", "serve-env", "countdown", "numbers=3"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--split", "test"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("countdown, test split, speaks OpenEnv's protocol at http://")
        env = over(line.split()[-1])
        assert env.reset(numbered(0)).text
        env.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.stdout.close()
        process.wait(10)
    with pytest.raises(EnvError, match="no OpenEnv server"):
        Remote(env.url, 1.0).reset({})
