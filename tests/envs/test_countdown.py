"""Countdown computes exactly, its solver is optimal, and every task can be solved."""

import pickle
from itertools import permutations
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.types import Split, Step, Task
from agentrl.envs.countdown import Countdown, Deal, after, calculations, deal, solve, starts

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def dealt(target: int, *numbers: int, **settings: object) -> Countdown:
    env = Countdown(**settings)  # type: ignore[arg-type]
    env.reset(Task(id="t", seed=0, data={"numbers": list(numbers), "target": target}))
    return env


def follow_expert(env: Countdown) -> tuple[Step, int]:
    step, turns = env.step(env.expert_action()), 1
    while not (step.terminated or step.truncated):
        step, turns = env.step(env.expert_action()), turns + 1
    return step, turns


def shortest(numbers: tuple[int, ...], target: int, operations: str) -> int | None:
    """Fewest calculations, by trying every order of every pair: slow, and written apart."""
    found: list[int] = []
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        results = {"+": a + b, "*": a * b, "-": a - b}
        if a % b == 0:
            results["/"] = a // b
        for operation, result in results.items():
            if operation in operations and result > 0:
                if result == target:
                    return 1
                deeper = shortest((*rest, result), target, operations) if rest else None
                found += [] if deeper is None else [deeper + 1]
    return min(found, default=None)


def test_an_episode_reads_as_the_documentation_shows() -> None:
    env = Countdown()
    task = Task(id="t", seed=0, data={"numbers": [3, 8, 5], "target": 24})
    assert env.reset(task) == "make 24 from 8 5 3"
    steps = [env.step(action) for action in ("5 - 8", "5 - 3", "8 * 2")]
    assert [step.observation for step in steps] == [
        "5 - 8 is not whole and positive\nmake 24 from 8 5 3",
        "make 24 from 8 2",
        "make 24 from 16",
    ]
    assert [step.info.get("invalid_action", False) for step in steps] == [True, False, False]
    assert [(s.reward, s.terminated) for s in steps] == [(0.0, False), (0.0, False), (0.0, True)]
    assert steps[-1].info == {"metrics": {"steps": 3.0}, "success": False}


def test_reaching_the_target_ends_the_episode_with_numbers_to_spare() -> None:
    step = dealt(13, 8, 5, 3).step("8 + 5")
    assert (step.reward, step.terminated, step.truncated) == (1.0, True, False)
    assert step.info["success"] is True


@pytest.mark.parametrize("action", ["8-5", "calc 8 - 5", "  8 - 5\n", "8 -5"])
def test_a_calculation_may_be_written_in_several_ways(action: str) -> None:
    assert dealt(24, 8, 5, 3).step(action).observation == "make 24 from 3 3"


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("", "say a calculation such as calc 8 - 5"),
        ("8 - 5 = 3", "say a calculation such as calc 8 - 5"),
        ("8 ** 5", "say a calculation such as calc 8 - 5"),
        ("8 + 5 + 3", "say a calculation such as calc 8 - 5"),
        ("__import__('os')", "say a calculation such as calc 8 - 5"),
        ("9" * 5000 + " + 1", "say a calculation such as calc 8 - 5"),
        ("٨ - ٥", "say a calculation such as calc 8 - 5"),
        ("answer 8", "say a calculation such as calc 8 - 5"),
        (["8 - 5"], "say a calculation such as calc 8 - 5"),
        ("9 - 5", "there is no 9"),
        ("8 + 8", "there is no other 8"),
        ("8 / 5", "8 / 5 is not whole and positive"),
        ("3 - 8", "3 - 8 is not whole and positive"),
        ("5 * 3", "only + - / may be used"),
    ],
)
def test_what_is_refused_costs_a_turn_says_why_and_changes_nothing(
    action: str | list[str], reason: str
) -> None:
    env = dealt(24, 8, 5, 3, operations="+-/")
    key = env.state_key()
    step = env.step(action)
    assert step.observation == f"{reason}\nmake 24 from 8 5 3"
    assert step.info == {"metrics": {"steps": 1.0}, "invalid_action": True}
    assert env.state_key() == key


def test_equal_numbers_leave_no_zero_behind() -> None:
    step = dealt(7, 5, 5, operations="+-").step("5 - 5")
    assert step.info["invalid_action"] is True


def test_numbers_that_admit_no_calculation_end_the_episode() -> None:
    env = dealt(7, 5, 3, 2, operations="-")
    assert env.step("5 - 3").info["success"] is False
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("2 - 2")


def test_the_limit_of_turns_truncates() -> None:
    env = dealt(24, 8, 5, 3, turns=3)
    last = [env.step("nonsense") for _ in range(3)][-1]
    assert (last.terminated, last.truncated, last.info["success"]) == (False, True, False)


def test_an_answer_must_be_said_where_the_settings_ask_for_it() -> None:
    env = dealt(13, 8, 5, ends="answer")
    assert env.legal_actions() == [
        "calc 8 + 5",
        "calc 8 - 5",
        "calc 8 * 5",
        "answer 8",
        "answer 5",
    ]
    assert not env.step(env.expert_action()).terminated
    assert env.expert_action() == "answer 13"
    step = env.step("answer 13")
    assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
    wrong = dealt(13, 8, 5, ends="answer").step("answer 13")
    assert (wrong.reward, wrong.terminated, wrong.info["success"]) == (0.0, True, False)


def test_shaping_pays_for_coming_near_and_less_than_success() -> None:
    env = dealt(20, 8, 5, 3, shaping=0.5)
    assert env.step("8 + 5").reward == 0.0
    assert env.step("13 + 3").reward == pytest.approx(0.5 * (1 - 4 / 20))
    assert dealt(20, 100, 8, operations="*", shaping=0.5).step("100 * 8").reward == 0.0
    assert dealt(20, 5, 4, shaping=0.5).step("5 * 4").reward == 1.0


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.integers(1, 60),
    st.sampled_from(["+-*/", "+-", "*/", "-"]),
)
def test_the_solver_agrees_with_trying_everything(
    numbers: list[int], target: int, operations: str
) -> None:
    assume(target not in numbers)
    best = shortest(tuple(numbers), target, operations)
    left, count = tuple(sorted(numbers, reverse=True)), 0
    choice = solve(left, target, operations)
    assert (choice is None) == (best is None)
    while choice is not None:
        left, count = after(left, choice), count + 1
        choice = None if target in left else solve(left, target, operations)
    assert count == (best or 0)


@pytest.mark.parametrize("numbers", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("ends", ["reached", "answer"])
def test_the_expert_solves_every_task(numbers: int, ends: str) -> None:
    env = Countdown(numbers=numbers, ends=ends)  # type: ignore[arg-type]
    for task in env.tasks("train")[:25]:
        env.reset(task)
        step, turns = follow_expert(env)
        assert (step.reward, step.info["success"]) == (1.0, True)
        assert turns <= numbers - 1 + (ends == "answer")


def test_the_expert_goes_on_in_a_dead_end() -> None:
    env = dealt(24, 8, 5, 3)
    env.step("8 - 5")
    assert env.check("solvable") is False
    assert env.expert_action() in env.legal_actions()
    assert follow_expert(env)[0].info["success"] is False


def test_check_knows_numbers_and_whether_there_is_a_way() -> None:
    env = dealt(13, 8, 5, 3)
    goals = ("have 8", "have 13", "solvable", "have fun", "win")
    assert [env.check(goal) for goal in goals] == [True, False, True, None, None]
    env.step("8 + 5")
    assert [env.check(goal) for goal in goals[:3]] == [False, True, True]


def test_legal_actions_are_exactly_what_is_not_refused() -> None:
    for seed in range(30):
        numbers = [Random(seed).randint(1, 9) for _ in range(4)]
        env = dealt(1000, *numbers)
        here, keys = env.snapshot(), set()
        for action in env.legal_actions():
            assert "invalid_action" not in env.step(action).info
            keys.add(env.state_key())
            env.restore(here)
        for a, b in permutations(sorted(numbers), 2):
            for operation in "+-*/":
                if "invalid_action" not in env.step(f"{a} {operation} {b}").info:
                    assert env.state_key() in keys
                env.restore(here)


def test_a_snapshot_goes_on_in_another_copy() -> None:
    env = dealt(24, 8, 5, 3, 2)
    env.step("8 - 5")
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    expected = [env.step("3 + 3"), env.step("6 * 2")]
    other = Countdown()
    other.restore(saved)
    assert other.state_key() == "24=3,3,2"
    assert [other.step("3 + 3"), other.step("6 * 2")] == expected


def test_splits_share_no_start_whatever_the_order_of_the_numbers() -> None:
    env = Countdown(numbers=3, largest=6, target_low=1, target_high=20, train_tasks=200)
    keys = []
    for split in SPLITS:
        for task in env.tasks(split)[:80]:
            env.reset(task)
            keys.append(env.state_key())
            assert env.check("solvable") is True
            assert task.data["target"] not in task.data["numbers"]  # type: ignore[operator]
    assert len(set(keys)) == len(keys) == 240


def test_targets_lie_in_their_range_and_operations_are_kept() -> None:
    env = Countdown(numbers=3, largest=9, target_low=20, target_high=30, operations="+*")
    for task in env.tasks("dev")[:30]:
        assert 20 <= task.data["target"] <= 30  # type: ignore[operator]
        assert all(1 <= n <= 9 for n in task.data["numbers"])  # type: ignore[operator, union-attr]
        env.reset(task)
        assert not {"-", "/"} & set(" ".join(env.legal_actions()))


def test_the_order_of_operations_makes_no_other_tasks() -> None:
    one, other = Countdown(operations="+*-"), Countdown(operations="*-+")
    assert one.tasks("test")[:5] == other.tasks("test")[:5]


def test_settings_without_enough_tasks_say_so() -> None:
    tasks = Countdown(numbers=2, largest=3, target_low=1, target_high=9).tasks("train")
    with pytest.raises(
        ConfigError, match=r"env: countdown with numbers=2, .* set env.train_tasks to at most \d"
    ):
        tasks[1999]
    assert deal(Deal(2, 3, 500, 900, "+-"), Random(0)) is None


def test_dealing_is_lazy() -> None:
    env = Countdown(numbers=5, largest=77)
    assert len(env.tasks("train")) == 2000
    assert env.tasks("train")[0].id == "countdown/train/000000"
    assert starts(Deal(5, 77, 10, 100, "+-*/")).walked < 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": "+%"}, r"env.operations: expected some of \+-\*/, got '\+%'"),
        ({"operations": ""}, "env.operations: expected some of"),
        ({"target_low": 50, "target_high": 20}, "at least env.target_low=50, got 20"),
        ({"turns": 2}, "env.numbers=4 and env.ends=reached a solution may take 3 turns, got 2"),
        ({"turns": 3, "ends": "answer"}, "env.ends=answer a solution may take 4 turns, got 3"),
    ],
)
def test_settings_that_make_no_sense_are_config_errors(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Countdown(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [{}, {"numbers": [], "target": 4}, {"numbers": [8, 0], "target": 4}, {"numbers": [8, 2]}],
)
def test_a_task_without_numbers_or_target_is_an_env_error(data: dict[str, list[int]]) -> None:
    with pytest.raises(EnvError, match="a task's data needs numbers and a target"):
        Countdown().reset(Task(id="mine", seed=0, data=data))


def test_stepping_before_a_reset_is_a_runtime_error() -> None:
    env = Countdown()
    for act in (lambda: env.step("8 - 5"), env.legal_actions, env.expert_action):
        with pytest.raises(RuntimeError, match="call reset"):
            act()
    env.close()
    env.close()


def test_calculations_are_distinct() -> None:
    found = list(calculations((8, 8, 2), "+-*/"))
    assert len(found) == len(set(found)) == 7
