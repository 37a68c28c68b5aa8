"""Evaluating a run's checkpoints, with the floor and the ceiling beside them."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.core.config import Rollout
from agentrl.core.errors import ConfigError
from agentrl.evaluate.checkpoints import resolve_checkpoint
from agentrl.evaluate.runner import (
    build_stage,
    enough_tasks,
    evaluate,
    evaluate_checkpoint,
    first_tasks,
    most_in_flight,
)
from agentrl.evaluate.statistics import EvalResult
from agentrl.rollout.runners import ProcessRunner, ThreadRunner
from agentrl.train.loop import train
from support import EchoEnv
from support.models import CHATML, save_model
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]

pytestmark = pytest.mark.usefixtures("training_envs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run with two checkpoints, of a policy that never solves anything."""
    registry.names("env")
    known = registry._parts["env"]
    registry._parts["env"] = {**known, "echo": EchoEnv}
    folder = tmp_path_factory.mktemp("runs")
    try:
        return train(tiny(folder, "env=echo", "eval.final_tasks=0", "lora.rank=4"))
    finally:
        registry._parts["env"] = known


def judged(
    checkpoint: Path,
    *overrides: str,
    env: str | None = None,
    tasks: int = 4,
    out: Path | None = None,
) -> dict[str, EvalResult]:
    results = evaluate_checkpoint(
        checkpoint,
        overrides=overrides,
        env=env,
        split="test",
        tasks=tasks,
        samples=2,
        out=out,
    )
    return {result.name: result for result in results}


def test_a_run_folder_is_evaluated_beside_random_and_expert(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "results.json"
    results = judged(run, out=out)
    assert list(results) == ["checkpoint", "random", "expert"]
    for result in results.values():
        assert (result.split, result.tasks, result.samples, result.episodes) == ("test", 4, 2, 8)
        assert result.failures == {}
    assert results["expert"].success == 1.0
    assert results["random"].success < 1.0
    assert results["checkpoint"].success == 0.0
    assert [line["name"] for line in json.loads(out.read_text())] == list(results)


def test_results_are_written_as_a_markdown_table_where_asked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    results = judged(run, tasks=1, out=out)
    rows = out.read_text().splitlines()[2:]
    assert rows == [result.markdown() for result in results.values()]
    assert "| 100.0 % |" in rows[2]


def test_a_checkpoint_folder_gives_what_its_run_gives_and_does_so_again(run: Path) -> None:
    best = resolve_checkpoint(run)
    whole, alone, again = judged(run), judged(best), judged(best)
    for name in whole:
        assert whole[name].tokens == alone[name].tokens == again[name].tokens
        assert whole[name].stops == alone[name].stops == again[name].stops


def test_a_relative_path_from_within_the_checkpoint_finds_its_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(resolve_checkpoint(run))
    assert judged(Path("."), tasks=1)["expert"].success == 1.0


def test_overrides_and_another_env_change_how_it_is_played(run: Path) -> None:
    assert judged(run, "rollout.max_turns=1", tasks=1)["expert"].success == 0.0
    other = judged(run, env="chatter", tasks=1)
    assert other["checkpoint"].stops == {"done": 2}


def test_the_env_that_is_named_takes_its_settings_and_the_runs_own_keeps_them(run: Path) -> None:
    other = judged(run, "env.level=GoToObj", "env.cap=3", env="babyai", tasks=2)
    assert other["random"].turns <= 3
    with pytest.raises(ConfigError, match=r"env\.levle: unknown key; did you mean 'level'"):
        judged(run, "env.levle=GoToObj", env="babyai")
    with pytest.raises(ConfigError, match=r"env\.level: unknown key"):
        judged(run, "env.level=GoToObj", env="echo")


def test_floor_and_ceiling_are_not_bound_by_the_models_context(run: Path) -> None:
    short = judged(run, "rollout.max_context=3", "sampling.max_tokens=1")
    assert short["checkpoint"].stops == {"max_tokens": 8}
    assert short["expert"].success == 1.0


def test_a_model_folder_without_a_run_needs_an_env(tmp_path: Path) -> None:
    model = save_model(tmp_path / "llama", "llama", CHATML)
    with pytest.raises(ConfigError, match=r"no config.yaml that names its environment: add --env"):
        judged(model)
    assert judged(model, "run.device=cpu", env="echo")["expert"].success == 1.0


def test_too_few_tasks_are_an_error_before_anything_is_played(run: Path) -> None:
    with pytest.raises(
        ConfigError, match="asked for 99 tasks of split 'test', and EchoEnv has 9: ask for fewer"
    ):
        judged(run, tasks=99)
    assert len(enough_tasks(EchoEnv(), "test", 9)) == 9
    assert len(first_tasks(EchoEnv().tasks("test"), 99)) == 9


def test_no_checkpoint_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder with config\.json, or a run"):
        judged(tmp_path)


def measure(run: Path, successes: dict[int, float | None]) -> None:
    """Rewrite the dev success of a run's checkpoints."""
    for step, success in successes.items():
        path = run / "checkpoints" / f"step-{step:06d}" / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "dev_success": success}))


def test_a_torn_checkpoint_is_never_chosen(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    measure(copy, {1: None, 2: None})
    assert resolve_checkpoint(copy).name == "step-000002"
    (copy / "checkpoints" / "step-000002" / "manifest.json").unlink()
    assert resolve_checkpoint(copy).name == "step-000001"


def test_the_best_checkpoint_is_chosen_before_the_last(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    measure(copy, {1: 0.9, 2: 0.8})
    assert resolve_checkpoint(copy).name == "step-000001"


def test_several_samples_of_a_task_differ_and_the_seed_decides_them(tmp_path: Path) -> None:
    config = tiny(tmp_path)

    async def once() -> list[list[tuple[int, ...]]]:
        stage = await build_stage(config)
        await config.engine.start(stage.policy)
        try:
            result, groups = await evaluate(
                stage, stage.engine_agent(), name="x", split="dev", tasks=3, samples=4
            )
        finally:
            await stage.worker.close()
            await config.engine.close()
        assert (result.episodes, result.samples) == (12, 4)
        assert set(result.pass_at_k) == {1, 2, 4}
        return [[t.turns[0].action_ids for t in group.trajectories] for group in groups]

    first = asyncio.run(once())
    assert all(len(set(group)) > 1 for group in first)
    assert asyncio.run(once()) == first


@pytest.mark.parametrize(
    ("settings", "in_a_process", "elsewhere"),
    [
        (Rollout(), 32, 0),
        (Rollout(in_flight=5), 5, 5),
        (Rollout(in_flight=100, env_processes=8), 8, 100),
    ],
)
def test_episodes_in_processes_are_bounded(
    settings: Rollout, in_a_process: int, elsewhere: int
) -> None:
    assert most_in_flight(settings, ProcessRunner()) == in_a_process
    assert most_in_flight(settings, ThreadRunner()) == elsewhere
