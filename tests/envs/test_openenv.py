"""What is played over OpenEnv's protocol: replies to actions, observations to text, faults."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("websockets", reason="needs agentrl[openenv]")

from agentrl.core.errors import ConfigError, DeadlineError, EnvError, MissingExtraError
from agentrl.core.types import Json, Stop, Task
from agentrl.envs.openenv import OpenEnv
from agentrl.envs.openenv.fit import ActionFit, UnfitError, fit_action, pictures
from agentrl.envs.openenv.server import Card, Data, Server
from support.play import play_one, says

ONE = Task(id="t", seed=1, data={"row": {"seed": 1}})


class Told:
    """A game that does what it is told by the messages: a fake of whatever a server may be."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def reset(self, data: Data) -> Data:
        return {"observation": {"board": "start", "row": dict(data)}, "reward": None, "done": False}

    def step(self, action: Data, timeout_s: float | None = None) -> Data:
        if action["say"] == "hang":
            self._wake.wait(10)
        if action["say"] == "raise":
            raise EnvError("it broke")
        answer: Data = json.loads(str(action["say"]))
        return answer

    def state(self) -> Data:
        return {"episode_id": None, "step_count": 0}

    def close(self) -> None:
        self._wake.set()


CARD = Card(
    name="told",
    description="told",
    version="1",
    action={
        "type": "object",
        "properties": {"say": {"type": "string"}, "loud": {"type": "boolean"}},
        "required": ["say"],
    },
    observation={"type": "object", "additionalProperties": True},
)


@contextmanager
def told(**settings: Any) -> Iterator[tuple[OpenEnv, Server]]:
    wake = threading.Event()
    server = Server(lambda: Told(wake), CARD, **settings)
    env = OpenEnv(url=server.url, patience_s=5.0)
    try:
        yield env, server
    finally:
        env.close()
        wake.set()
        server.close()


def answer(reward: Json = None, done: bool = False, **observation: Json) -> str:
    return json.dumps({"observation": observation, "reward": reward, "done": done})


# --- an episode -----------------------------------------------------------------------------------


def test_the_example_is_solved_by_spelling_backwards() -> None:
    env = OpenEnv(goal="Spell.")
    shown = env.reset(env.tasks("train")[0]).text
    word = shown.split()[2]
    assert shown == f"Spell.\nspell {word} backwards"
    assert not env.step("nonsense").terminated
    step = env.step(word[::-1])
    assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
    env.close()


def test_reset_gets_the_row_and_fields_become_text_flags_and_pictures() -> None:
    with told() as (env, _):
        env.images, env.success, env.truncated, env.invalid = "frames", "won", "cut", "bad"
        assert env.reset(ONE).text == 'board: start\nrow: {"seed": 1}'
        step = env.step(answer(0.5, board="b", frames=["aGk="], bad=True, won=False, cut=False))
        assert step.observation.text == "b"  # type: ignore[union-attr]
        assert [image.png for image in step.observation.images] == [b"hi"]  # type: ignore[union-attr]
        assert (step.reward, step.info) == (0.5, {"invalid_action": True})
        last = env.step(answer(1.0, done=True, board="c", won=False, cut=True))
        assert (last.terminated, last.truncated, last.info) == (False, True, {"success": False})


def test_without_a_field_for_success_the_sum_of_the_rewards_decides() -> None:
    with told() as (env, _):
        for rewards, success in (((0.5, 0.5), True), ((1.0, -0.5), False), ((True, None), True)):
            env.reset(ONE)
            env.step(answer(rewards[0], board=""))
            assert env.step(answer(rewards[1], done=True, board="")).info["success"] is success


# --- faults ---------------------------------------------------------------------------------------


def failure(env: OpenEnv, *replies: str) -> str:
    episode = play_one(env, [says(reply) for reply in replies], ONE)
    assert episode.stop is Stop.ERROR
    assert episode.score is None
    assert episode.failure is not None
    return episode.failure.error


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("raise", "it broke"),
        ('{"reward": 1}', "expected an observation and a reward"),
        ('{"observation": {}, "reward": "much"}', "expected an observation and a reward"),
    ],
)
def test_whatever_a_server_gets_wrong_is_a_failed_episode(reply: str, words: str) -> None:
    with told() as (env, _):
        assert words in failure(env, reply)


def test_a_shown_field_that_is_absent_is_a_failed_episode() -> None:
    with told() as (env, _):
        env.show = ("bord",)
        with pytest.raises(EnvError, match="the observation has no 'bord'"):
            env.reset(ONE)


def test_a_late_answer_costs_the_episode_and_the_connection_but_not_the_next_episode() -> None:
    with told() as (env, server):
        env.tasks("train")
        env.patience_s = 3.0
        env.reset(ONE)
        with pytest.raises(DeadlineError, match=r"3 s \(env\.patience_s\)"):
            env.step("hang")
        assert "start" in env.reset(ONE).text
        assert server.sessions >= 1


def test_a_session_that_the_server_gave_up_is_opened_again_at_the_next_reset() -> None:
    with told(idle_s=0.2) as (env, server):
        env.reset(ONE)
        while server.sessions:
            threading.Event().wait(0.01)
        with pytest.raises(EnvError, match="the connection was lost"):
            env.step(answer(board=""))
        with pytest.raises(EnvError, match="the connection was closed, and the episode with it"):
            env.step(answer(board=""))
        assert "start" in env.reset(ONE).text


def test_no_server_is_a_config_error_before_anything_is_played() -> None:
    with pytest.raises(ConfigError, match=r"env\.url: no OpenEnv server answers at http://127"):
        OpenEnv(url="http://127.0.0.1:1").tasks("train")
    with pytest.raises(ConfigError, match=r"env\.url: expected http://HOST:PORT, got 'localhost'"):
        OpenEnv(url="localhost")


def test_without_websockets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    env = OpenEnv()
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[openenv\]'"):
        env.reset(ONE)
    env.close()


# --- actions --------------------------------------------------------------------------------------


def fit(field: str = "", **properties: Json) -> ActionFit:
    schema: dict[str, Json] = {
        "properties": {**properties, "metadata": {"type": "object"}},
        "$defs": {"Side": {"enum": ["left", "right"], "type": "string"}},
    }
    return fit_action(schema, field, {}, "http://here")


@pytest.mark.parametrize(
    ("schema", "reply", "value"),
    [
        ({"type": "string"}, " go left ", " go left "),
        ({"$ref": "#/$defs/Side"}, "left", "left"),
        ({"type": "integer"}, " -3 ", -3),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "number"}, "2", 2),
        ({"type": "boolean"}, "True", True),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "7", "7"),
        ({}, "7", "7"),
    ],
)
def test_a_reply_becomes_what_the_schema_asks_for(schema: Json, reply: str, value: Json) -> None:
    assert fit(x=schema).action(reply) == {"x": value}


@pytest.mark.parametrize(
    ("kind", "reply"),
    [("integer", "1.5"), ("integer", "true"), ("boolean", "1"), ("array", "{}"), ("object", "[]")],
)
def test_a_reply_of_another_kind_is_no_action(kind: str, reply: str) -> None:
    with pytest.raises(UnfitError, match=f"expected {kind}, got "):
        fit(x={"type": kind}).action(reply)


def test_several_fields_that_could_be_meant_are_a_question_to_the_config() -> None:
    with pytest.raises(ConfigError, match=r"have the fields x \(string\), y \(integer\): name"):
        fit(x={"type": "string"}, y={"type": "integer"})
    assert fit("y", x={"type": "string"}, y={"type": "integer"}).action("3") == {"y": 3}


def test_what_is_no_picture_is_an_error() -> None:
    assert pictures("data:image/png;base64,aGk=")[0].png == b"hi"
    assert pictures(None) == ()
    for wrong in ("no base64!", [3.5]):
        with pytest.raises(EnvError, match="expected PNG pictures in base64"):
            pictures(wrong)
