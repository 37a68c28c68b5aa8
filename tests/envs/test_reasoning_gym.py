"""Reasoning Gym's questions, splits and scores; no answer of a model is evaluated as a program."""

import pickle
import random
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError, MissingExtraError
from agentrl.core.protocols import abilities
from agentrl.core.types import Split, Task
from agentrl.envs.reasoning_gym import NO_GOLD, UNUSABLE, ReasoningGym, Source, entry, is_safe
from agentrl.evaluate.check_env import Status, check_env
from support.extras import has, needs

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
needs_package = needs("reasoning_gym")
SHORT = ("chain_sum", "countdown", "mini_sudoku", "n_queens", "word_ladder", "gsm_symbolic")


def asked(dataset: str, seed: int = 3, **fields: object) -> ReasoningGym:
    env = ReasoningGym(dataset=dataset, **fields)  # type: ignore[arg-type]
    env.reset(Task(id="t", seed=seed))
    return env


def names() -> list[str]:
    return sorted(set(import_module("reasoning_gym.factory").DATASETS) - set(UNUSABLE))


# --- without the package --------------------------------------------------------------------------


@pytest.mark.skipif(has("reasoning_gym"), reason="reasoning-gym is installed")
def test_the_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[reasoning\]'"):
        ReasoningGym().tasks("train")


def test_seeds_belong_to_the_tasks() -> None:
    with pytest.raises(ConfigError, match=r"env\.config: seed must be left out"):
        ReasoningGym(config={"seed": 3})


def test_a_dataset_without_answers_has_no_expert() -> None:
    assert "expert_action" in abilities(ReasoningGym())
    for dataset in NO_GOLD:
        assert "expert_action" not in abilities(ReasoningGym(dataset=dataset))


def test_what_may_take_forever_runs_where_it_can_be_killed() -> None:
    assert ReasoningGym(dataset="simple_integration").runs_in == "process"
    assert ReasoningGym().runs_in == "thread"


EVIL = (
    "__import__('os').system('true')",
    "open('/etc/passwd').read()",
    "().__class__.__bases__[0]",
    "[x for x in [1]]",
    "exec('1')",
    "lambda: 0",
    "f'{1}'",
    "9**9**9**9",
    "(" * 600,
    "-" * 400 + "x",
    "x.func",
    "S('1')",
)


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize(
    "dataset",
    ["n_queens", "spiral_matrix", "binary_matrix", "string_insertion", "countdown", "puzzle24"],
)
def test_no_program_reaches_a_scorer_that_would_run_it(dataset: str, text: str) -> None:
    if text[0] == "-" and dataset in ("countdown", "puzzle24"):
        text = text.replace("x", "y")
    assert not is_safe(dataset, text, "gold")


@pytest.mark.parametrize("text", [*EVIL[:7], *EVIL[8:9], *EVIL[10:]])
@pytest.mark.parametrize("dataset", ["simple_integration", "polynomial_multiplication"])
def test_nor_does_it_reach_one_that_lets_sympy_read_it(dataset: str, text: str) -> None:
    assert not is_safe(dataset, text, "gold")


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("n_queens", "_ _ Q _\nQ _ _ _"),
        ("n_queens", "[['_', 'Q'], ['Q', '_']]"),
        ("spiral_matrix", "1 2 3"),
        ("spiral_matrix", "[1, -2, 3]"),
        ("string_insertion", "['A', 'B']"),
        ("string_insertion", "ABCDE"),
        ("countdown", "(25 - 3) * 4 / 2 + 1"),
        ("simple_integration", "x**2/2 + 3*sin(2*x) - exp(-x) + C"),
        ("polynomial_multiplication", "3*x**3 - 2*y + 10"),
        ("chain_sum", "__import__('os')"),
    ],
)
def test_ordinary_answers_are_scored(dataset: str, text: str) -> None:
    assert is_safe(dataset, text, "gold")


@given(st.text(max_size=60))
def test_any_text_can_be_judged_for_safety(text: str) -> None:
    for dataset in ("n_queens", "countdown", "simple_integration", "chain_sum"):
        assert is_safe(dataset, text, "gold") in (True, False)


# --- with it --------------------------------------------------------------------------------------


@needs_package
def test_the_right_answer_is_worth_one_and_ends_the_episode() -> None:
    env = asked("chain_sum")
    assert "final answer" in env.reset(Task(id="t", seed=3))
    step = env.step(env.expert_action())
    assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("1")


@needs_package
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_gold_answers_of_every_dataset_score_one_and_garbage_does_not() -> None:
    seen = set()
    for dataset in names():
        env = asked(dataset, seed=1)
        here = env.snapshot()
        gold = entry(Source(dataset, "{}", 0), 1)["answer"]
        assert (gold is None) is (dataset in NO_GOLD), dataset
        if gold is not None:
            assert env.step(env.expert_action()).info["success"] is True, dataset
        for text in ("", "garbage", "🙂 [", "(((", "\x00", "x" * 1_000_000, "[" * 10_000):
            env.restore(here)
            step = env.step(text)
            assert 0 <= step.reward < 1, (dataset, text[:20])
            assert step.info["success"] is False, (dataset, text[:20])
        seen.add(dataset)
    assert len(seen) >= 104


@needs_package
def test_the_scorer_that_takes_anything_still_does() -> None:
    made = import_module("reasoning_gym.factory").create_dataset("game_of_life_halting", seed=1)
    assert made.score_answer("garbage", made[0]) == 1.0, "mended: take it out of UNUSABLE"


@needs_package
@pytest.mark.parametrize("dataset", SHORT)
def test_gold_answers_score_one(dataset: str) -> None:
    for seed in (0, 1, 2_500):
        env = asked(dataset, seed)
        assert env.step(env.expert_action()).reward == 1.0


@needs_package
def test_splits_share_no_question_and_no_seed() -> None:
    env = ReasoningGym(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    tasks = [task for split in SPLITS for task in env.tasks(split)[:40]]
    assert len({task.seed for task in tasks}) == len(tasks) == 120
    assert len({env.reset(task) for task in tasks}) == 120
    assert len({str(task.data["question"]) for task in tasks}) == 120


@needs_package
def test_levels_are_the_package_s_own_and_get_harder() -> None:
    env = ReasoningGym(levels=3, train_tasks=300)
    lengths: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for task in env.tasks("train")[:60]:
        level = cast("int", task.data["level"])
        assert level == task.seed % 3
        lengths[level].append(len(env.reset(task)))
    means = [sum(found) / len(found) for found in lengths.values()]
    assert means == sorted(means)
    assert means[2] > means[0] + 3


@needs_package
def test_a_score_below_success_is_paid_or_not_as_the_settings_say() -> None:
    for reward, paid in (("score", 0.05), ("success", 0.0)):
        step = asked("countdown", reward=reward).step("1 + 1")
        assert (step.reward, step.info["success"]) == (paid, False)
        assert step.info["metrics"] == {"score": 0.05}


@needs_package
@pytest.mark.parametrize("action", [["1", "2"], "9" * 30_000])
def test_what_cannot_be_scored_is_an_invalid_answer(action: object) -> None:
    step = asked("chain_sum").step(action)  # type: ignore[arg-type]
    assert (step.reward, step.terminated, step.info["invalid_action"]) == (0.0, True, True)


@needs_package
def test_generators_that_draw_from_global_numbers_leave_them_alone_and_repeat_themselves() -> None:
    random.seed(5)
    expected = random.random()
    for dataset in ("pool_matrix", "coin_flip", "family_relationships"):
        random.seed(5)
        first = entry(Source(dataset, "{}", 0), 11)["question"]
        assert random.random() == expected
        entry.cache_clear()
        assert entry(Source(dataset, "{}", 0), 11)["question"] == first


@needs_package
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "chain_sun"}, "no dataset 'chain_sun'; did you mean 'chain_sum'"),
        ({"dataset": "composite"}, "composite cannot be used: it is made of others"),
        (
            {"dataset": "game_of_life_halting"},
            "its scorer takes any text for right",
        ),
        ({"config": {"terms": 3}}, "chain_sum does not take .*it has the fields min_terms"),
        ({"config": {"min_terms": 5, "max_terms": 2}}, "chain_sum does not take"),
        ({"levels": 50}, "chain_sum has 11 levels"),
        ({"dataset": "gsm_symbolic", "levels": 2}, "gsm_symbolic has no curriculum"),
    ],
)
def test_what_the_package_refuses_is_a_config_error(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ReasoningGym(**fields).tasks("train")  # type: ignore[arg-type]


@needs_package
def test_a_snapshot_can_be_answered_in_another_copy() -> None:
    env = asked("chain_sum")
    other = ReasoningGym()
    other.restore(pickle.loads(pickle.dumps(env.snapshot())))
    assert other.state_key() == env.state_key()
    assert other.step(env.expert_action()).reward == 1.0


@needs_package
@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["countdown", "rush_hour", "simple_integration"])
def test_datasets_with_a_scorer_of_their_own_keep_the_promises(dataset: str) -> None:
    report = check_env(ReasoningGym(dataset=dataset), tasks=3)
    assert not report.of(Status.FAIL)


def test_the_package_is_imported_in_one_module_only() -> None:
    root = Path(__file__).parents[2]
    importing = [
        path.relative_to(root)
        for folder in ("agentrl", "envs", "rewards")
        for path in (root / folder).rglob("*.py")
        if '"reasoning_gym.' in path.read_text() or "import reasoning_gym" in path.read_text()
    ]
    assert set(map(str, importing)) == {"envs/reasoning_gym.py"}
