"""`agentrl serve`: programs that speak OpenAI's API get a checkpoint's replies, token by token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from agentrl.core.errors import ConfigError
from agentrl.engines.policy import load_policy
from agentrl.envs.program.endpoint import Endpoint
from agentrl.evaluate.serve import serve
from agentrl.track.trajectories import EpisodeRecord, read_episodes
from support.models import logprobs, save_model


def served(
    folder: Path, visit: Callable[[str], None], is_patient: bool = True, idle_s: float = 20.0
) -> list[EpisodeRecord]:
    """Serve a model while `visit` talks to it; the episodes that were kept."""
    model, out = save_model(folder / "model", "qwen3"), folder / "kept"
    failed: list[BaseException] = []
    visitors: list[threading.Thread] = []

    def visiting(url: str) -> None:
        try:
            visit(url)
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failed.append(error)

    def is_done(endpoint: Endpoint) -> bool:
        if not visitors:
            visitors.append(threading.Thread(target=visiting, args=(endpoint.url,)))
            visitors[0].start()
        return not visitors[0].is_alive() and not (is_patient and endpoint.sessions)

    serve(
        model,
        overrides=["renderer=plain", "sampling.max_tokens=5"],
        host="127.0.0.1",
        port=0,
        out=out,
        idle_s=idle_s,
        say=lambda text: None,
        until=is_done,
    )
    if failed:
        raise failed[0]
    return [episode for path in sorted(out.iterdir()) for episode in read_episodes(path)]


def score(url: str, value: object) -> int:
    """The status of posting a score."""
    body = json.dumps(value).encode()
    try:
        with urlopen(Request(f"{url}/score", body), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def talk(url: str, turns: int, first: str) -> None:
    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    said: list[Any] = [{"role": "user", "content": first}]
    for _ in range(turns):
        answer = client.chat.completions.create(model="policy", messages=said)
        said.append({"role": "assistant", "content": answer.choices[0].message.content})
        said.append({"role": "user", "content": "turn left"})


def test_a_session_is_an_episode_with_the_models_own_logprobs(tmp_path: Path) -> None:
    def visit(url: str) -> None:
        talk(f"{url}/s/one/v1", 3, "go forward")
        assert score(f"{url}/s/one/v1", {"reward": "much"}) == 400
        assert score(f"{url}/s/one/v1", {"reward": 0.25, "success": True}) == 200

    [episode] = served(tmp_path, visit)
    assert (episode.task_id, episode.stop, episode.success) == ("one", "done", True)
    assert episode.env_return == 0.25
    assert [turn.row for turn in episode.turns] == [0, 0, 0]
    ids = [token for turn in episode.turns for token in turn.ids]
    told = [value for turn in episode.turns for value in turn.logprobs]
    module = load_policy(str(tmp_path / "model"), seed=0, device="cpu").module
    expected = [None, *logprobs(module, ids).tolist()]
    sampled = [i for i, value in enumerate(told) if value is not None]
    assert len(sampled) >= 3
    for i in sampled:
        assert told[i] == pytest.approx(expected[i], abs=1e-4)


def test_sessions_at_once_are_kept_apart_by_address_or_by_key(tmp_path: Path) -> None:
    def visit(url: str) -> None:
        def by_key() -> None:
            client = OpenAI(base_url=f"{url}/v1", api_key="mine", max_retries=0)
            said: Any = [{"role": "user", "content": "red ball"}]
            client.chat.completions.create(model="policy", messages=said)
            body = json.dumps({"reward": 1}).encode()
            headers = {"Authorization": "Bearer mine"}
            urlopen(Request(f"{url}/v1/score", body, headers), timeout=20).close()

        threads = [
            threading.Thread(target=by_key),
            *(
                threading.Thread(target=talk, args=(f"{url}/s/{name}/v1", 2, name))
                for name in ("a", "b")
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in ("a", "b"):
            assert score(f"{url}/s/{name}/v1", {"reward": 0}) == 200

    episodes = served(tmp_path, visit)
    assert sorted(e.task_id for e in episodes) == ["a", "b", "mine"]
    assert sorted(len(e.turns) for e in episodes) == [1, 2, 2]


def test_after_its_end_a_session_answers_no_more(tmp_path: Path) -> None:
    def visit(url: str) -> None:
        talk(f"{url}/s/one/v1", 1, "go forward")
        assert score(f"{url}/s/one/v1", {"reward": 1}) == 200
        assert score(f"{url}/s/nobody/v1", {"reward": 1}) == 404

    [episode] = served(tmp_path, visit)
    assert episode.success


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files already"):
        served(tmp_path, lambda url: None)


def test_a_session_that_is_open_when_the_server_stops_is_cut_off_and_kept(tmp_path: Path) -> None:
    def visit(url: str) -> None:
        talk(f"{url}/s/open/v1", 2, "go forward")

    [episode] = served(tmp_path, visit, is_patient=False)
    assert (episode.stop, episode.success) == ("max_turns", False)
    assert len(episode.turns) == 2


def test_a_session_that_nobody_ends_is_over_when_it_was_idle_for_long(tmp_path: Path) -> None:
    def visit(url: str) -> None:
        talk(f"{url}/s/idle/v1", 1, "go forward")

    [episode] = served(tmp_path, visit, idle_s=0.5)
    assert (episode.stop, len(episode.turns)) == ("max_turns", 1)
