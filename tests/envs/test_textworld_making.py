"""Making TextWorld's games: once, for all processes, the package's own, and never forever."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrl.core.errors import EnvError
from agentrl.envs.textworld.games import MAKER, Source, made, story
from agentrl.envs.textworld.package import CHALLENGES, module
from support.extras import needs

needs_package = needs("textworld")


def source(folder: Path, make_s: float = 60.0, **settings: object) -> Source:
    kind = {"game": "coin", "level": 5, "objective": "last", **settings}
    return Source(str(folder), json.dumps(kind, sort_keys=True), make_s)


@pytest.fixture(autouse=True)
def no_maker_stays() -> Iterator[None]:
    yield
    MAKER.close()


def group(pid: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(place.parent.name))
    return found


def gone(pid: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while group(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not group(pid)


@needs_package
def test_a_game_is_made_and_compiled_once(tmp_path: Path) -> None:
    kind = source(tmp_path)
    first = made(kind, 3)
    place = story(kind, 3, is_compiled=True)
    files = {path: path.stat().st_mtime_ns for path in place.parent.iterdir()}
    assert {path.name for path in files} == {"3.json", "3.start", "3.z8", "lock"}
    MAKER.close()
    assert made(kind, 3) == first
    assert story(kind, 3, is_compiled=True) == place
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert MAKER._process is None, "nothing was asked of a maker"


@needs_package
@pytest.mark.parametrize("level", [5, 105])
def test_games_are_those_that_the_package_makes_itself(tmp_path: Path, level: int) -> None:
    kind = source(tmp_path, level=level)
    package = module("")
    options = package.GameOptions()
    options.seeds = 11
    options.grammar.only_last_action = True
    challenge = module(f".challenges.{CHALLENGES['coin']}")
    theirs = challenge.make({"level": level}, options)
    theirs.save(str(tmp_path / "theirs.json"))
    places = (story(kind, 11, is_compiled=False), tmp_path / "theirs.json")
    ours, expected = (json.loads(place.read_text()) for place in places)
    for one in (ours, expected):  # a set, whose order differs by process
        one["grammar"]["names_to_exclude"] = sorted(map(str, one["grammar"]["names_to_exclude"]))
    assert ours == expected


@needs_package
def test_a_game_that_takes_too_long_is_left_out_and_its_maker_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(source(tmp_path), 0)
    process = MAKER._process
    assert process is not None
    with caplog.at_level(logging.WARNING):
        assert made(source(tmp_path, 0.5, game="treasure", level=30), 0) is None
    assert "the game of seed 0 was not made within 0.5 s and is left out" in caplog.text
    assert gone(process.pid)
    caplog.clear()
    assert made(source(tmp_path, 0.5, game="treasure", level=30), 0) is None, "it is remembered"
    assert not caplog.text
    assert made(source(tmp_path), 1) is not None, "another maker goes on"
    with pytest.raises(EnvError, match="seed 0 makes no game"):
        story(source(tmp_path, 0.5, game="treasure", level=30), 0, is_compiled=True)


@needs_package
def test_a_maker_that_dies_is_started_anew(tmp_path: Path) -> None:
    assert made(source(tmp_path), 0) is not None
    process = MAKER._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert made(source(tmp_path), 1) is not None


@needs_package
def test_what_the_package_refuses_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="make failed: ValueError: Expected level to be within"):
        made(source(tmp_path, level=301), 0)
    assert made(source(tmp_path), 0) is not None


MAKING = """
import json, sys, time
from agentrl.envs.textworld.games import MAKER, Source, made, story
kind = Source(sys.argv[1], json.dumps({"game": "coin", "level": 6, "objective": "last"}), 60.0)
found = [made(kind, seed) for seed in range(4)]
story(kind, 0, is_compiled=True)
print(json.dumps(found), MAKER._process.pid if MAKER._process else 0, flush=True)
time.sleep(float(sys.argv[2]))
"""


def making(folder: Path, stays_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKING, str(folder), str(stays_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@needs_package
@pytest.mark.slow
def test_processes_that_make_the_same_games_at_once_find_the_same(tmp_path: Path) -> None:
    processes = [making(tmp_path, 0.0) for _ in range(3)]
    told = [process.communicate(timeout=120)[0].rpartition(" ")[0] for process in processes]
    assert told[0].startswith("[[")
    assert len(set(told)) == 1
    [folder] = (tmp_path / next(tmp_path.iterdir()).name).iterdir()
    names = {f"{seed}.{end}" for seed in range(4) for end in ("json", "start")}
    assert {path.name for path in folder.iterdir()} == {*names, "0.z8", "lock"}


@needs_package
@pytest.mark.slow
def test_a_maker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    process = making(tmp_path, 60.0)
    assert process.stdout is not None
    maker = int(process.stdout.readline().rpartition(" ")[2])
    assert maker
    assert group(maker)
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(maker)
