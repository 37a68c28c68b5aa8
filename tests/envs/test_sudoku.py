"""Sudoku: puzzles have one solution, what does not fit is told, and backtracking finds the way."""

import pickle
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.types import Split, Step, Task
from agentrl.envs.sudoku.env import Sudoku, starts
from agentrl.envs.sudoku.grids import conflict, deal, is_sound, solutions, solve

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
PUZZLE = "1..4..2..1..4..."
"""1 . . 4 / . . 2 . / . 1 . . / 4 . . ."""


def dealt(grid: str = PUZZLE, **fields: object) -> Sudoku:
    env = Sudoku(**fields)  # type: ignore[arg-type]
    env.reset(Task(id="t", seed=0, data={"grid": grid}))
    return env


def play(env: Sudoku, *actions: str) -> list[Step]:
    return [env.step(action) for action in actions]


def follow_expert(env: Sudoku) -> tuple[Step, int]:
    step, turns = env.step(env.expert_action()), 1
    while not (step.terminated or step.truncated):
        step, turns = env.step(env.expert_action()), turns + 1
    return step, turns


def by_hand(grid: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Completions of a 4x4 grid, cell by cell in order: slow, and written apart."""
    if 0 not in grid:
        yield grid
        return
    cell = grid.index(0)
    row, column = divmod(cell, 4)
    for digit in range(1, 5):
        houses = [
            grid[4 * row : 4 * row + 4],
            grid[column::4],
            [grid[4 * (row // 2 * 2 + r) + column // 2 * 2 + c] for r in (0, 1) for c in (0, 1)],
        ]
        if all(digit not in house for house in houses):
            yield from by_hand((*grid[:cell], digit, *grid[cell + 1 :]))


def test_an_episode_reads_as_the_documentation_shows() -> None:
    env = Sudoku()
    first = env.reset(Task(id="t", seed=0, data={"grid": PUZZLE}))
    goal = "fill rows , columns and boxes with 1 to 4"
    assert first == f"{goal}\n1 . . 4\n. . 2 .\n. 1 . .\n4 . . ."
    placed, undone = play(env, "place 1 2 3", "undo")
    assert placed.observation == "1 3 . 4\n. . 2 .\n. 1 . .\n4 . . ."
    assert undone.observation == "1 . . 4\n. . 2 .\n. 1 . .\n4 . . ."
    assert (undone.reward, undone.terminated, undone.truncated) == (0.0, False, False)
    assert undone.info == {"metrics": {"steps": 2.0, "filled": 0.0}}


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("place 1 2 4", "its row has a 4"),
        ("place 1 2 1", "its row has a 1"),
        ("place 3 3 2", "its column has a 2"),
        ("place 2 2 1", "its column has a 1"),
        ("place 2 1 1", "its column has a 1"),
        ("place 2 4 4", "its column has a 4"),
        ("place 4 2 1", "its column has a 1"),
        ("place 3 1 1", "its row has a 1"),
        ("place 4 4 2", ""),
        ("place 1 3 2", "its column has a 2"),
        ("place 1 1 2", "1 1 is given"),
        ("undo", "there is nothing to undo"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(action: str, reason: str) -> None:
    env = dealt()
    key, step = env.state_key(), env.step(action)
    assert step.info.get("invalid_action", False) is bool(reason)
    assert str(step.observation).startswith(f"{reason}\n" if reason else "1 . . 4\n")
    assert (env.state_key() == key) is bool(reason)


def test_a_box_is_a_house_of_its_own() -> None:
    step = dealt("1...............", givens=4).step("place 2 2 1")
    assert str(step.observation).startswith("its box has a 1\n")


def test_a_filled_cell_must_be_taken_back_before_it_is_filled_anew() -> None:
    env = dealt()
    steps = play(env, "2 1 3", "2 1 2", "undo", "2 2 4")
    assert str(steps[1].observation).startswith("2 1 is filled\n")
    assert [step.info.get("invalid_action", False) for step in steps] == [False, True, False, False]
    assert env.state_key() == "1..4.d2..1..4..."


NOT_UNDERSTOOD = "say place ROW COLUMN DIGIT , each 1 to 4 , or undo"


@pytest.mark.parametrize(
    "action",
    [
        "",
        "place 0 1 1",
        "place 1 5 1",
        "place 1 2 9",
        "place 1 2",
        "place 1 2 3 4",
        "place ١ ٢ ٣",
        "undo undo",
        "x" * 1_000_000,
        "1 " * 500_000,
        "\x00🙂\u202e<|im_end|>",
        ["place 1 2 3"],
    ],
)
def test_what_is_not_understood_costs_a_turn_and_changes_nothing(action: str | list[str]) -> None:
    env = dealt()
    step = env.step(action)
    assert str(step.observation).startswith(NOT_UNDERSTOOD)
    assert step.info["invalid_action"] is True
    assert env.state_key() == PUZZLE


@settings(max_examples=25)
@given(st.lists(st.text(max_size=40), min_size=33, max_size=33))
def test_whatever_is_said_an_episode_ends_within_its_turns(said: list[str]) -> None:
    env, steps = dealt(), list[Step]()
    while not (steps and (steps[-1].terminated or steps[-1].truncated)):
        steps.append(env.step(said[len(steps)]))
    assert steps[-1].info["success"] in (True, False)


def test_the_limit_of_turns_truncates() -> None:
    env = dealt(turns=11, givens=6)
    last = [env.step("nonsense") for _ in range(11)][-1]
    assert (last.terminated, last.truncated, last.info["success"]) == (False, True, False)
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("undo")


def test_there_are_288_full_grids_of_size_4() -> None:
    found = list(solutions((0,) * 16, 4))
    assert len(set(found)) == len(found) == 288
    assert all(is_sound(grid, 4) for grid in found)
    assert set(found) == set(by_hand((0,) * 16))


@given(st.integers(0, 10_000), st.integers(4, 12))
def test_a_dealt_puzzle_has_its_givens_and_exactly_one_solution(seed: int, givens: int) -> None:
    grid = deal(4, givens, Random(seed))
    if grid is None:
        assert givens < 6
        return
    assert sum(map(bool, grid)) == givens
    assert list(by_hand(grid)) == [solve(grid, 4)]


@pytest.mark.parametrize("givens", [24, 30, 36])
def test_big_puzzles_have_exactly_one_solution(givens: int) -> None:
    grids = [grid for seed in range(4) if (grid := deal(9, givens, Random(seed))) is not None]
    assert len(grids) >= 2
    for grid in grids:
        assert sum(map(bool, grid)) == givens
        [solution] = solutions(grid, 9)
        assert is_sound(solution, 9)
        assert all(given in (0, digit) for given, digit in zip(grid, solution, strict=True))


@pytest.mark.parametrize("fields", [{}, {"givens": 4}, {"givens": 10}, {"size": 9}])
def test_the_expert_solves_every_task_in_as_many_turns_as_cells_are_empty(
    fields: dict[str, object],
) -> None:
    env = Sudoku(train_tasks=20, **fields)  # type: ignore[arg-type]
    for task in env.tasks("train")[: 20 if env.size == 4 else 4]:
        env.reset(task)
        step, turns = follow_expert(env)
        assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
        assert turns == str(task.data["grid"]).count(".")


def test_the_expert_takes_back_what_leads_nowhere() -> None:
    env = Sudoku()
    wandered = 0
    for task in env.tasks("dev")[:30]:
        env.reset(task)
        rng = Random(task.id)
        for _ in range(3):
            env.step(rng.choice(env.legal_actions()[:-1]))
        wandered += env.check("solvable") is False
        assert follow_expert(env)[0].info["success"] is True
    assert wandered > 10


def searched(grid: tuple[int, ...], now: list[int], at: int = 0) -> Iterator[str]:
    """What a depth-first search of a 4x4 grid says until it is solved: written apart."""
    if 0 not in now:
        return
    if grid[at]:
        yield from searched(grid, now, at + 1)
        return
    for digit in (1, 2, 3, 4):
        if conflict(tuple(now), at, digit, 4):
            continue
        now[at] = digit
        yield f"place {at // 4 + 1} {at % 4 + 1} {digit}"
        yield from searched(grid, now, at + 1)
        if 0 not in now:
            return
        now[at] = 0
        yield "undo"


def test_the_expert_that_searches_goes_depth_first_and_in_order() -> None:
    env = Sudoku(expert="search", turns=200)
    lengths = []
    for task in env.tasks("dev")[:40]:
        env.reset(task)
        grid = tuple(int(c) if c != "." else 0 for c in str(task.data["grid"]))
        said = list(searched(grid, list(grid)))
        for words in said[:-1]:
            assert env.expert_action() == words
            assert "invalid_action" not in env.step(words).info
        assert env.step(env.expert_action()).info["success"] is True
        lengths.append(len(said))
    assert min(lengths) == 10
    assert sum(length > 10 for length in lengths) > 15, "most dealt puzzles ask to take back"


def test_the_expert_that_searches_finds_the_way_whoever_played_before() -> None:
    env = Sudoku(expert="search", turns=400)
    for task in env.tasks("dev")[:30]:
        env.reset(task)
        rng = Random(task.id)
        for _ in range(8):
            env.step(rng.choice(env.legal_actions()))
        assert follow_expert(env)[0].info["success"] is True


def test_the_expert_in_order_fills_the_first_empty_cell_rightly() -> None:
    env = dealt(expert="in_order")
    said = []
    for _ in range(4):
        said.append(env.expert_action())
        env.step(said[-1])
    assert said == ["place 1 2 2", "place 1 3 3", "place 2 1 3", "place 2 2 4"]
    play(env, "undo", "undo", "place 2 2 3")
    assert env.expert_action() == "undo"


def test_a_random_player_solves_little() -> None:
    env, rng, lucky = Sudoku(), Random(0), 0
    for task in env.tasks("dev")[:60]:
        env.reset(task)
        step = env.step(rng.choice(env.legal_actions()))
        while not (step.terminated or step.truncated):
            step = env.step(rng.choice(env.legal_actions()))
        lucky += bool(step.info["success"])
    assert lucky < 30


def test_legal_actions_are_exactly_what_is_not_refused() -> None:
    env = dealt()
    play(env, "place 1 2 3")
    here, legal = env.snapshot(), env.legal_actions()
    every = [f"place {r} {c} {d}" for r in range(1, 5) for c in range(1, 5) for d in range(1, 5)]
    for action in [*every, "undo"]:
        assert (action in legal) is ("invalid_action" not in env.step(action).info)
        env.restore(here)


def test_check_knows_cells_and_whether_there_is_a_way() -> None:
    env = dealt()
    goals = ("have 1 1 1", "have 1 2 3", "solvable", "have 5 1 1", "have fun")
    assert [env.check(goal) for goal in goals] == [True, False, True, None, None]
    play(env, "place 1 2 3")
    assert env.check("have 1 2 3") is True


def test_a_snapshot_goes_on_in_another_copy_and_knows_what_to_take_back() -> None:
    env = dealt()
    play(env, "place 1 2 3", "place 2 2 4")
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    expected = play(env, "undo", "place 4 4 2")
    other = Sudoku()
    other.restore(saved)
    assert other.state_key() == "1c.4.d2..1..4..."
    assert play(other, "undo", "place 4 4 2") == expected


def test_splits_share_no_start() -> None:
    env = Sudoku()
    grids = [task.data["grid"] for split in SPLITS for task in env.tasks(split)[:100]]
    assert len(set(grids)) == len(grids) == 300


def test_dealing_is_lazy() -> None:
    env = Sudoku(size=9, givens=40)
    assert len(env.tasks("train")) == 2000
    assert env.tasks("train")[0].id == "sudoku/train/000000"
    assert starts(9, 40).walked < 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"givens": 16}, "with env.size=4 expected 4 to 15, got 16"),
        ({"givens": 17, "size": 9}, "with env.size=9 expected 24 to 80, got 17"),
        ({"turns": 9}, "10 cells are empty and each takes a turn, got 9"),
    ],
)
def test_settings_that_make_no_sense_are_config_errors(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Sudoku(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "grid", [None, "", "1" * 16, "11" + "." * 14, "5" + "." * 15, "1..4", "1234341221434321"]
)
def test_a_task_without_a_grid_to_solve_is_an_env_error(grid: object) -> None:
    with pytest.raises(EnvError, match="needs a solvable grid of 16 digits"):
        Sudoku().reset(Task(id="mine", seed=0, data={"grid": grid}))  # type: ignore[dict-item]


def test_a_grid_without_a_solution_is_an_env_error() -> None:
    grid = "123." + "...4" + "." * 8
    assert conflict([int(c) if c != "." else 0 for c in grid], 3, 4, 4) == "column"
    with pytest.raises(EnvError, match="needs a solvable grid"):
        dealt(grid)


def test_stepping_before_a_reset_is_a_runtime_error() -> None:
    env = Sudoku()
    for act in (lambda: env.step("undo"), env.legal_actions, env.expert_action):
        with pytest.raises(RuntimeError, match="call reset"):
            act()
    env.close()
    env.close()
