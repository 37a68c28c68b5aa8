"""ScienceWorld: settings and what is said to Java; with the package, that its own solutions score,
that worlds share a process and nothing else, and that a process which dies or hangs costs one."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import cast

import pytest

from agentrl.core.errors import ConfigError, EnvError, MissingDataError, MissingExtraError
from agentrl.core.types import Split, Step, Task
from agentrl.envs.scienceworld import jvm as processes
from agentrl.envs.scienceworld.env import ScienceWorld
from agentrl.envs.scienceworld.jvm import POOL, JvmError, _read, _spelt, java
from agentrl.envs.scienceworld.tasks import VARIATIONS, variations
from agentrl.evaluate.check_env import Status, check_env
from support.extras import has, needs

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
needs_package = needs("scienceworld")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solutions, each found once."""
    return tmp_path_factory.mktemp("gold")


@pytest.fixture(scope="module", autouse=True)
def no_java_stays() -> Iterator[None]:
    yield
    POOL.close()


def env_of(cache: Path, **fields: object) -> ScienceWorld:
    return ScienceWorld(cache=cache, **{"jvms": 1, "heap_mib": 256, **fields})  # type: ignore[arg-type]


def advance(env: ScienceWorld, turns: int) -> list[str]:
    """Follow the expert; what is said."""
    return [str(env.step(env.expert_action()).observation) for _ in range(turns)]


# --- without the package --------------------------------------------------------------------------


@pytest.mark.skipif(has("scienceworld"), reason="scienceworld is installed")
def test_the_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[scienceworld\]'"):
        ScienceWorld().tasks("train")


def test_a_missing_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"needs java, and there is none .* apt install"):
        java()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "boyl"}, "ScienceWorld has no task 'boyl'; did you mean 'boil'"),
        ({"simplify": "openDoors,openDors"}, "no 'openDors'; did you mean 'openDoors'"),
    ],
)
def test_unknown_names_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScienceWorld(**fields)  # type: ignore[arg-type]


def test_a_task_that_names_no_variation_is_refused() -> None:
    with pytest.raises(EnvError, match="a task's data needs a task and a variation"):
        ScienceWorld().reset(Task(id="odd", seed=0))


def test_values_are_spelt_and_read_as_the_protocol_has_them() -> None:
    assert [_spelt(v) for v in (True, 3, "a\\b\nc")] == ["btrue", "i3", "sa\\\\b\\nc"]
    texts = ("!ysa\\\\b\\nc", "!yi3", "!yd0.5", "!ybtrue", "!yv", "!yro7")
    assert [_read(text) for text in texts] == ["a\\b\nc", 3, 0.5, True, None, "o7"]
    odd = "\\n \n \\"
    assert _read(f"!y{_spelt(odd)}") == odd
    with pytest.raises(EnvError, match="its simulator raised: oops"):
        _read("!xsoops")


# --- with it --------------------------------------------------------------------------------------


@needs_package
def test_all_tasks_come_in_turn_and_no_variation_is_in_two_splits() -> None:
    env = ScienceWorld(task="all")
    found = {split: env.tasks(split) for split in SPLITS}
    assert sum(map(len, found.values())) == sum(map(sum, VARIATIONS.values())) == 7207
    ids = [task.id for tasks in found.values() for task in tasks]
    assert len(set(ids)) == len(ids)
    assert {task.data["task"] for task in found["test"][:30]} == set(VARIATIONS)
    few = ScienceWorld(task="boil", variations=3).tasks("dev")
    assert [task.data["variation"] for task in few] == [14, 15, 16]


@needs_package
def test_splits_are_the_packages_own(cache: Path) -> None:
    env = env_of(cache)
    for name in ("boil", "find-plant", "identify-life-stages-2"):
        env.reset(ScienceWorld(task=name).tasks("train")[0])
        assert env._jvm is not None
        for split, method in zip(SPLITS, ("Train", "Dev", "Test"), strict=True):
            told = env._jvm.strings(str(env._ask(f"getVariations{method}")), 30)
            assert list(map(int, told)) == list(variations(name, split))
    listed = json.loads(
        (Path(processes.classpath().split(":")[1]).parent / "tasks.json").read_text()
    )
    assert {one["task_name"] for one in listed} == set(VARIATIONS)


@needs_package
@pytest.mark.parametrize("name", ["find-living-thing", "lifespan-longest-lived"])
def test_the_simulators_own_solutions_score_one(cache: Path, name: str) -> None:
    env = env_of(cache, task=name, reward="score")
    for task in env.tasks("dev")[:2]:
        env.reset(task)
        total, steps = 0.0, list[Step]()
        while not (steps and steps[-1].terminated):
            steps.append(env.step(env.expert_action()))
            total += steps[-1].reward
            assert "invalid_action" not in steps[-1].info
        assert total == pytest.approx(1.0)
        assert steps[-1].info["success"] is True
        metrics = cast("dict[str, float]", steps[-1].info["metrics"])
        assert metrics["score"] == pytest.approx(100)
        assert 50 < metrics["jvm_mib"] < 700


@needs_package
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_simulators_own_solutions_of_all_thirty_tasks_score_one(cache: Path) -> None:
    env = env_of(cache, task="all", variations=1, turns=400, call_s=60.0)
    found: dict[str, float] = {}
    for task in env.tasks("test"):
        env.reset(task)
        step = env.step(env.expert_action())
        found[task.id] = step.reward
        while not (step.terminated or step.truncated):
            step = env.step(env.expert_action())
            found[task.id] += step.reward
    assert found == pytest.approx(dict.fromkeys(found, 1.0))
    assert len(found) == 30


@needs_package
def test_a_solution_is_found_once_and_kept(cache: Path) -> None:
    env = env_of(cache, task="find-plant")
    task = env.tasks("test")[0]
    env.reset(task)
    first = env.expert_action()
    [kept] = (cache / "full" / "find-plant").glob("*.json")
    actions = json.loads(kept.read_text())["actions"]
    assert actions[0] == first
    kept.write_text(json.dumps({"schema": 1, "actions": ["wait", *actions]}))
    fresh = env_of(cache, task="find-plant", call_s=29.0)  # another key of the memory
    fresh.reset(task)
    assert fresh.expert_action() == "wait"
    fresh.step("wait")
    fresh.step("look around")
    assert fresh.expert_action() == first, "what is no part of the solution is passed over"


@needs_package
def test_focusing_on_the_wrong_thing_is_the_end(cache: Path) -> None:
    env = env_of(cache, task="boil")
    env.reset(env.tasks("train")[0])
    step = env.step("focus on air")
    assert (step.terminated, step.reward, step.info["success"]) == (True, -1.0, False)
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("look around")


@needs_package
def test_the_simulator_may_ask_back_and_its_numbers_are_legal(cache: Path) -> None:
    env = env_of(cache, task="boil")
    env.reset(env.tasks("train")[0])
    before = env.state_key()
    said = str(env.step("open door").observation)
    assert said.startswith("Ambiguous request")
    assert env.legal_actions()[:2] == ["0", "1"]
    assert env.state_key() != before
    step = env.step("0")
    assert "invalid_action" not in step.info
    assert "The door is now open" in str(step.observation)


@needs_package
def test_what_is_shut_away_is_not_legal_until_it_is_open(cache: Path) -> None:
    env = env_of(cache)
    env.reset(env.tasks("train")[11])
    shut = {"look at tin cup", "look at metal pot", "look at orange juice", "look at sewer"}
    legal = set(env.legal_actions())
    assert {"look at oven", "look at drain", "look in inventory", "open cupboard"} <= legal
    assert not shut & legal
    assert env.step("look at tin cup").info["invalid_action"]
    for thing in ("cupboard", "fridge"):
        env.step(f"open {thing}")
    assert shut & set(env.legal_actions()) == shut - {"look at sewer"}
    assert "tin cup" in str(env.step("look at tin cup").observation)


@needs_package
def test_no_legal_action_is_refused(cache: Path) -> None:
    env, played = env_of(cache), 0
    for task in env.tasks("train")[1:3]:
        env.reset(task)
        rng, is_over = Random(1), False
        for _ in range(12):
            if not is_over:
                action = rng.choice(env.legal_actions())
                step = env.step(action)
                assert "invalid_action" not in step.info, action
                is_over, played = step.terminated, played + 1
    assert played > 12


@needs_package
def test_what_was_held_while_asking_for_legal_actions_is_let_go(cache: Path) -> None:
    env = env_of(cache)
    env.reset(env.tasks("train")[0])
    jvm, world = env._jvm, env._world
    assert jvm is not None
    first = str(jvm.call(world, "agentInterface", 30))
    env.legal_actions()
    last = str(jvm.call(world, "agentInterface", 30))
    between = [f"o{number}" for number in range(int(first[1:]) + 1, int(last[1:]))]
    assert len(between) > 5
    for name in between:
        with pytest.raises(EnvError):
            jvm.call(name, "hashCode", 30)
    assert jvm.call(last, "hashCode", 30) is not None


@needs_package
def test_worlds_of_one_process_do_not_meet(cache: Path) -> None:
    one, two, alone = (env_of(cache) for _ in range(3))
    tasks = one.tasks("train")[:2]
    expected = []
    for task in tasks:
        alone.reset(task)
        expected.append(advance(alone, 4))
    one.reset(tasks[0])
    two.reset(tasks[1])
    assert one._jvm is two._jvm
    heard: list[list[str]] = [[], []]
    for _ in range(4):
        heard[0] += advance(one, 1)
        heard[1] += advance(two, 1)
    assert heard == expected


@needs_package
def test_a_variation_looks_the_same_in_every_process_whatever_was_loaded(cache: Path) -> None:
    env = env_of(cache, task="lifespan-longest-lived", simplify="easy")
    zero, one = env.tasks("train")[:2]
    shown = [(env.reset(task), env.state_key()) for task in (one, zero, one)]
    env.close()
    POOL.close()
    shown.append((env.reset(one), env.state_key()))
    assert shown[0] == shown[2] == shown[3] != shown[1]


@needs_package
def test_a_snapshot_goes_on_in_another_copy_and_one_that_lies_is_refused(cache: Path) -> None:
    env, other = env_of(cache), env_of(cache)
    env.reset(env.tasks("train")[2])
    advance(env, 6)
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    other.restore(saved)
    assert other.state_key() == env.state_key()
    action = env.expert_action()
    ours, theirs = env.step(action), other.step(action)
    assert (ours.observation, ours.reward) == (theirs.observation, theirs.reward)
    with pytest.raises(EnvError, match=r"6 actions of find-living-thing .* lead to a score of"):
        other.restore(saved._replace(score=0.123))


@needs_package
def test_a_process_that_hangs_costs_the_episode_that_asked_and_others_go_on(cache: Path) -> None:
    hung, other = env_of(cache, call_s=2.0), env_of(cache)
    tasks = hung.tasks("train")
    hung.reset(tasks[0])
    other.reset(tasks[1])
    advance(other, 3)
    key, way, first = other.state_key(), other.expert_action(), other._jvm
    assert first is not None
    assert hung._jvm is first
    os.kill(first.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(JvmError, match="hung within 2 s, and was ended"):
        hung.step("look around")
    assert time.monotonic() - began < 4
    assert not Path(f"/proc/{first.pid}").exists()
    assert other.state_key() == key, "what was done is done again in another process"
    assert other._jvm is not first
    assert "invalid_action" not in other.step(way).info
    hung.reset(tasks[0])
    assert "door" in advance(hung, 1)[0]


@needs_package
def test_a_process_that_dies_is_replaced(cache: Path) -> None:
    env = env_of(cache)
    env.reset(env.tasks("train")[0])
    advance(env, 2)
    assert env._jvm is not None
    key, pid = env.state_key(), env._jvm.pid
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while env._jvm.is_alive and time.monotonic() < until:
        time.sleep(0.02)
    assert env.state_key() == key
    assert env._jvm.pid != pid


@needs_package
def test_processes_are_few_retire_and_leave_nobody_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    POOL.close()
    envs = [env_of(cache, jvms=2) for _ in range(5)]
    task = envs[0].tasks("train")[0]
    for env in envs:
        env.reset(task)
    pids = {env._jvm.pid for env in envs if env._jvm}
    assert len(pids) == len(POOL.jvms) == 2
    monkeypatch.setattr(processes, "RETIRE", 3)  # the first has loaded three worlds, one has two
    first, second = POOL.jvms
    envs[0].reset(task)
    assert envs[0]._jvm is not None
    assert envs[0]._jvm.pid not in pids
    for env in envs:
        env.close()
    assert not _lives(first.pid), "it is retired, and its last world was given back"
    assert second in POOL.jvms
    assert first not in POOL.jvms
    POOL.close()
    assert not any(_lives(pid) for pid in pids)


@needs_package
def test_calls_of_many_threads_come_one_after_another(cache: Path) -> None:
    envs = [env_of(cache) for _ in range(3)]
    tasks = envs[0].tasks("train")[:3]
    alone = []
    for env, task in zip(envs, tasks, strict=True):
        env.reset(task)
        alone.append(advance(env, 3))
    heard: dict[int, list[str]] = {}

    def play(number: int) -> None:
        envs[number].reset(tasks[number])
        heard[number] = advance(envs[number], 3)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [heard[number] for number in range(3)] == alone


@needs_package
@pytest.mark.parametrize(
    ("name", "turns"),
    [
        ("lifespan-longest-lived", 10),
        pytest.param("find-living-thing", 100, marks=pytest.mark.slow),
    ],
)
def test_the_env_keeps_its_promises(cache: Path, name: str, turns: int) -> None:
    report = check_env(env_of(cache, task=name, turns=turns, simplify="easy"), tasks=2)
    assert {one.name: one.reason for one in report.of(Status.FAIL)} == {}
    assert len(report.of(Status.PASS)) >= 35


@needs_package
def test_java_ends_with_whoever_started_it() -> None:
    script = (
        "from agentrl.envs.scienceworld.jvm import Jvm\n"
        "import time\n"
        "print(Jvm(64).pid, flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
