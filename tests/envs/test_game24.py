"""Game 24 is the restricted game of Intelligent Go-Explore; searches cost exactly what they did."""

import json
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations_with_replacement, permutations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.types import Split, Step, Task
from agentrl.envs.game24 import Game24, exact, moves, solve

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
CUSTOMARY = Path(__file__).parents[3] / "shared" / "data" / "game24.json"
"""The public list, where it lies beside the repository; it is no part of it."""


def dealt(*numbers: int, **settings: object) -> Game24:
    env = Game24(**settings)  # type: ignore[arg-type]
    env.reset(Task(id="t", seed=0, data={"numbers": list(numbers)}))
    return env


def follow_expert(env: Game24) -> tuple[Step, int]:
    step, turns = env.step(env.expert_action()), 1
    while not (step.terminated or step.truncated):
        step, turns = env.step(env.expert_action()), turns + 1
    return step, turns


# --- searches, over nothing but the env -----------------------------------------------------------


def actions(env: Game24) -> list[str]:
    """All 24, 12 or 4 actions of the state, illegal divisions included."""
    return [str(move) for move in moves(env.snapshot().numbers, "restricted")]


def depth_first(env: Game24) -> int:
    """Steps until success; a state that was seen is not entered again."""
    seen, count = {env.state_key()}, 0

    def enter() -> bool:
        nonlocal count
        here = env.snapshot()
        for action in actions(env):
            env.restore(here)
            step, count = env.step(action), count + 1
            if step.info.get("success"):
                return True
            if not step.terminated and env.state_key() not in seen:
                seen.add(env.state_key())
                if enter():
                    return True
        return False

    assert enter()
    return count


def breadth_first(env: Game24) -> int:
    """Steps until success; a state that was seen is not queued again."""
    seen, count, queue = {env.state_key()}, 0, deque([env.snapshot()])
    while queue:
        here = queue.popleft()
        env.restore(here)
        for action in actions(env):
            env.restore(here)
            step, count = env.step(action), count + 1
            if step.info.get("success"):
                return count
            if not step.terminated and env.state_key() not in seen:
                seen.add(env.state_key())
                queue.append(env.snapshot())
    raise AssertionError("no solution")


def test_depth_first_search_of_the_known_puzzle_takes_223_operations() -> None:
    assert depth_first(dealt(4, 4, 6, 8)) == 223


@pytest.mark.skipif(not CUSTOMARY.exists(), reason=f"{CUSTOMARY} is not there")
@pytest.mark.parametrize(
    ("search", "within", "last"),
    [(depth_first, [33, 65, 91, 100], 550), (breadth_first, [0, 1, 52, 100], 613)],
)
def test_searches_of_the_customary_test_set_take_what_they_took(
    search: Callable[[Game24], int], within: list[int], last: int
) -> None:
    puzzles = json.loads(CUSTOMARY.read_text())["puzzles"][900:1000]
    counts = [search(dealt(*puzzle)) for puzzle in puzzles]
    assert [sum(c <= budget for c in counts) for budget in (50, 150, 300, 700)] == within
    assert max(counts) == last


@pytest.mark.skipif(not CUSTOMARY.exists(), reason=f"{CUSTOMARY} is not there")
def test_the_customary_list_can_be_the_test_split_and_is_kept_out_of_the_others() -> None:
    env = Game24(puzzles=CUSTOMARY)
    assert len(env.tasks("test")) == 1362
    with pytest.raises(ConfigError, match="only 0 distinct starts for the train split"):
        env.tasks("train")[0]


# --- the game -------------------------------------------------------------------------------------


def test_an_episode_reads_as_the_documentation_shows() -> None:
    env = Game24()
    shown = [env.reset(Task(id="t", seed=0, data={"numbers": [8, 4, 6, 4]}))]
    shown += [str(env.step(action).observation) for action in ("calc 8 - 4", "calc 6 + 4")]
    assert shown == ["make 24 from 4 4 6 8", "make 24 from 4 4 6", "make 24 from 4 10"]
    last = env.step("4 * 10")
    assert (last.observation, last.reward, last.terminated) == ("make 24 from 40", 0.0, True)
    assert last.info == {"metrics": {"steps": 3.0}, "success": False}


@pytest.mark.parametrize(("count", "expected"), [(4, 24), (3, 12), (2, 4)])
def test_there_are_four_actions_for_each_pair_of_places(count: int, expected: int) -> None:
    assert len(list(moves(exact([1, 5, 5, 9][:count]), "restricted"))) == expected


@pytest.mark.parametrize("action", ["calc 4 / 8", "8 / 4", "8/4", "calc 4/8", "  8 / 4\n"])
def test_the_order_of_a_pair_does_not_matter_under_restricted_rules(action: str) -> None:
    env = dealt(4, 4, 6, 8)
    assert env.step(action).observation == "make 24 from 2 4 6"


@pytest.mark.parametrize(
    ("numbers", "action"),
    [((4, 4, 6, 8), "6 / 4"), ((5, 5, 3, 8), "0 / 3"), ((5, 5, 3, 8), "3 / 0")],
)
def test_an_illegal_division_ends_the_episode_as_a_failure(
    numbers: tuple[int, ...], action: str
) -> None:
    env = dealt(*numbers)
    if 5 in numbers:
        env.step("5 - 5")
    assert f"calc {action}" not in env.legal_actions()
    key, step = env.state_key(), env.step(action)
    assert (step.reward, step.terminated, step.truncated) == (0.0, True, False)
    assert (step.info["success"], step.info["invalid_action"]) == (False, True)
    assert env.state_key() == key
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("4 + 4")


def test_24_with_numbers_to_spare_is_no_success() -> None:
    env = dealt(4, 6, 1, 1)
    step = env.step("4 * 6")
    assert (step.reward, step.terminated) == (0.0, False)
    env.step("24 * 1")
    assert env.step("24 / 1").info["success"] is True


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("", "say a calculation such as calc 8 - 4"),
        ("8 - 4 = 4", "say a calculation such as calc 8 - 4"),
        ("8 ** 4", "say a calculation such as calc 8 - 4"),
        ("8 - 4/0", "say a calculation such as calc 8 - 4"),
        ("٨ - ٤", "say a calculation such as calc 8 - 4"),
        ("__import__('os')", "say a calculation such as calc 8 - 4"),
        ("9" * 1_000_000, "say a calculation such as calc 8 - 4"),
        ("\x00🙂\u202e<|im_end|>", "say a calculation such as calc 8 - 4"),
        (["8 - 4"], "say a calculation such as calc 8 - 4"),
        ("9 - 4", "there is no 9"),
        ("8 + 8", "there is no other 8"),
    ],
)
def test_what_is_not_understood_costs_a_turn_says_why_and_changes_nothing(
    action: str | list[str], reason: str
) -> None:
    env = dealt(4, 4, 6, 8)
    step = env.step(action)
    assert step.observation == f"{reason}\nmake 24 from 4 4 6 8"
    assert step.info == {"metrics": {"steps": 1.0}, "invalid_action": True}
    assert env.state_key() == "24=4,4,6,8"


@given(st.lists(st.text(max_size=40), min_size=6, max_size=6))
def test_whatever_is_said_an_episode_ends_within_its_turns(said: list[str]) -> None:
    env = dealt(4, 4, 6, 8)
    steps: list[Step] = []
    while not (steps and (steps[-1].terminated or steps[-1].truncated)):
        steps.append(env.step(said[len(steps)]))
    assert steps[-1].info["success"] in (True, False)


def test_full_rules_divide_both_ways_in_exact_fractions() -> None:
    env = dealt(1, 3, 4, 6, rules="full")
    shown = [env.step(action).observation for action in ("3 / 4", "1 - 3/4", "6 / 1/4")]
    assert shown == ["make 24 from 3/4 1 6", "make 24 from 1/4 6", "make 24 from 24"]
    assert solve(exact([1, 3, 4, 6]), 24, "restricted") is None
    assert dealt(1, 3, 4, 6, rules="full").check("solvable") is True


def test_the_solver_knows_how_many_puzzles_there_are() -> None:
    """1,362 of the 1,820 hands can be played: the length of the public list."""
    hands = [exact(hand) for hand in combinations_with_replacement(range(1, 14), 4)]
    assert len(hands) == 1820
    assert sum(solve(hand, 24, "full") is not None for hand in hands) == 1362
    assert sum(solve(hand, 24, "restricted") is not None for hand in hands) == 1346


def by_hand(numbers: tuple[int, ...]) -> bool:
    """Whether 24 can be made, by trying every order of every pair: slow, and written apart."""
    if len(numbers) == 1:
        return numbers == (24,)
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        results = [a + b, a * b, *([a - b] if a >= b else [])]
        if b and a % b == 0 and a >= b:
            results.append(a // b)
        if any(by_hand((*rest, result)) for result in results):
            return True
    return False


@given(st.lists(st.integers(1, 13), min_size=2, max_size=3))
def test_the_solver_agrees_with_trying_everything(numbers: list[int]) -> None:
    assert (solve(exact(numbers), 24, "restricted") is not None) == by_hand(tuple(numbers))


@pytest.mark.parametrize("settings", [{}, {"rules": "full"}, {"numbers": 3}, {"numbers": 5}])
def test_the_expert_solves_every_task_and_a_random_player_few(settings: dict[str, object]) -> None:
    env, rng = Game24(train_tasks=40, **settings), Random(0)  # type: ignore[arg-type]
    lucky = 0
    for task in env.tasks("train"):
        env.reset(task)
        step, turns = follow_expert(env)
        assert (step.reward, step.info["success"], turns) == (1.0, True, env.numbers - 1)
        env.reset(task)
        while not step.terminated or env.snapshot().turn == 0:
            step = env.step(rng.choice(env.legal_actions()))
        lucky += bool(step.info["success"])
    assert lucky <= 12


def test_the_expert_goes_on_in_a_dead_end() -> None:
    env = dealt(1, 1, 1, 1)
    assert env.check("solvable") is False
    assert env.expert_action() in env.legal_actions()
    assert follow_expert(env)[0].info["success"] is False


def test_check_knows_numbers_and_whether_there_is_a_way() -> None:
    env = dealt(4, 4, 6, 8)
    goals = ("have 8", "have 12", "solvable", "have 1/0", "have fun", "win")
    assert [env.check(goal) for goal in goals] == [True, False, True, None, None, None]
    env.step("8 + 4")
    assert [env.check(goal) for goal in goals[:2]] == [False, True]


def test_a_snapshot_goes_on_in_another_copy() -> None:
    env = dealt(4, 4, 6, 8)
    env.step("8 - 4")
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    expected = [env.step("4 + 4"), env.step("8 * 6")]
    other = Game24()
    other.restore(saved)
    assert other.state_key() == "24=4,4,6"
    assert [other.step("4 + 4"), other.step("8 * 6")] == expected


# --- tasks ----------------------------------------------------------------------------------------


def test_splits_share_no_start_and_every_start_can_be_solved() -> None:
    env, keys = Game24(), []
    for split in SPLITS:
        for task in env.tasks(split)[:80]:
            env.reset(task)
            keys.append(env.state_key())
            assert env.check("solvable") is True
    assert len(set(keys)) == len(keys) == 240


def write(path: Path, held: object) -> Path:
    path.write_text(json.dumps(held))
    return path


def test_a_list_of_ones_own_is_the_test_split_and_no_other_has_its_puzzles(tmp_path: Path) -> None:
    first = [task.data["numbers"] for task in Game24().tasks("train")[:3]]
    env = Game24(puzzles=write(tmp_path / "mine.json", [*first, first[0][::-1], [1, 1, 1, 1]]))  # type: ignore[index]
    assert [task.data["numbers"] for task in env.tasks("test")] == [*first, [1, 1, 1, 1]]
    fourth = Game24().tasks("train")[3]
    assert env.tasks("train")[0] == replace(fourth, id="game24/train/000000")


def test_a_file_may_name_each_split(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", {"train": [[4, 4, 6, 8]], "dev": [[1, 2, 3, 4]]})
    env = Game24(puzzles=path)
    assert [task.id for task in env.tasks("train")] == ["game24/train/000000"]
    assert env.reset(env.tasks("dev")[0]) == "make 24 from 1 2 3 4"
    assert len(env.tasks("test")) == 200


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"train": [[4, 4, 6, 8]], "dev": [[8, 6, 4, 4]]}, r"\[4, 4, 6, 8\] stands under both"),
        ({"valid": [[4, 4, 6, 8]]}, "expected a list of puzzles or"),
        (7, "expected a list of puzzles or"),
        ([[4, 4, "6", 8]], "expected two to six whole numbers above 0"),
        ([4, 4, 6, 8], "expected two to six whole numbers above 0"),
    ],
)
def test_a_file_that_cannot_be_played_is_a_config_error(
    tmp_path: Path, held: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Game24(puzzles=write(tmp_path / "mine.json", held))


def test_a_missing_file_and_too_few_turns_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json as JSON"):
        Game24(puzzles=tmp_path / "none.json")
    with pytest.raises(ConfigError, match="a solution takes 3 turns, got 2"):
        Game24(turns=2)


@pytest.mark.parametrize("numbers", [None, [4], [4, 0], "4468", [4, 4.5], [True, 3]])
def test_a_task_without_numbers_is_an_env_error(numbers: object) -> None:
    with pytest.raises(EnvError, match="a task's data needs two to six whole numbers"):
        Game24().reset(Task(id="mine", seed=0, data={"numbers": numbers}))  # type: ignore[dict-item]


def test_stepping_before_a_reset_is_a_runtime_error() -> None:
    env = Game24()
    for act in (lambda: env.step("8 - 4"), env.legal_actions, env.expert_action):
        with pytest.raises(RuntimeError, match="call reset"):
            act()
    env.close()
    env.close()
