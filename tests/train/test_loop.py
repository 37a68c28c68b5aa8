"""Whole runs on a tiny model, from the first demonstration to the report, and what stops them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from agentrl.core import registry
from agentrl.core.config import load_config
from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.types import AdvantageOut, Group, Scored, Stop, Trajectory
from agentrl.evaluate.statistics import read_evals
from agentrl.track.jsonl import read_metrics
from agentrl.track.trajectories import read_episodes
from agentrl.train.loop import train
from support.faulty import BadReward
from support.models import CHATML, save_model
from support.whole_runs import MODEL, column, timeless, tiny, training_envs

__all__ = ["training_envs"]

pytestmark = pytest.mark.usefixtures("training_envs")

ROOT = Path(__file__).parents[2]
BABYAI = (
    "env.name=babyai",
    "env.level=GoToObj",
    "env.cap=4",
    "env.train_tasks=8",
    "env.dev_tasks=8",
    "env.test_tasks=8",
)


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def have_moved(folder: Path, first: int, second: int) -> bool:
    before, after = weights(folder, first), weights(folder, second)
    return any(not torch.equal(before[name], after[name]) for name in before)


# --- a run and its folder -------------------------------------------------------------------------


def test_a_run_trains_and_leaves_everything_that_a_reader_needs(tmp_path: Path) -> None:
    config = tiny(tmp_path, "track=[console, jsonl]")
    folder = train(config)
    assert folder == tmp_path / "tiny"
    metrics = read_metrics(folder)
    assert [line["step"] for line in metrics] == [1, 2]
    for line in metrics:
        assert line["rollout/turns"] == 2
        assert line["groups/dropped"] == 0
        assert isinstance(norm := line["loss/grad_norm"], float)
        assert norm > 0
        assert isinstance(gap := line["mismatch/gap"], float)
        assert gap < 1e-4, "the trainer's logprobs are the sampler's"
    assert metrics[0]["loss/ratio"] == pytest.approx(1.0)
    assert have_moved(folder, 1, 2)
    assert {result.name for result in read_evals(folder)} == {
        "random",
        "expert",
        "start",
        "step",
        "final",
    }
    [summary] = json.loads((folder / "summary.json").read_text())
    assert {"success_random", "success_expert", "success_start", "success_final"} <= set(summary)
    assert (summary["seed"], summary["tasks"], summary["steps"]) == (0, 3, 2)
    assert "<html" in (folder / "report.html").read_text()
    assert load_config(folder / "config.yaml") == config
    assert json.loads((folder / "versions.json").read_text())["torch"] == torch.__version__
    episodes = read_episodes(folder / "trajectories" / "train-000001.parquet")
    assert len(episodes) == 8
    for group in (0, 1):
        siblings = [e for e in episodes if e.group == group]
        values = [{a for t in e.turns for a in t.advantages if a is not None} for e in siblings]
        assert [len(values_of_one) for values_of_one in values] == [1] * 4
        assert math.fsum(v for one in values for v in one) == pytest.approx(0.0, abs=1e-6)
    assert any(a for e in episodes for t in e.turns for a in t.advantages)


@pytest.mark.slow
def test_sft_on_the_bot_s_demonstrations_comes_before_rl_and_is_measured(tmp_path: Path) -> None:
    config = tiny(
        tmp_path,
        *BABYAI,
        "env.cap=16",
        "rollout.max_turns=16",
        "tokenizer.vocabulary=512",
        "model.max_position_embeddings=1024",
        "sft.demos=2",
        "sft.dev_demos=2",
        "sft.max_steps=6",
        "sft.eval_every=2",
        "sft.double=true",
        "run.steps=1",
    )
    folder = train(config)
    [summary] = json.loads((folder / "summary.json").read_text())
    assert {"success_sft", "success_sft_double_demos", "success_final"} <= set(summary)
    assert summary["success_expert"] == 1.0
    assert summary["sft_steps"] in (2, 4, 6)
    demos = read_episodes(folder / "trajectories" / "demos-train.parquet")
    assert len(demos) == 4
    assert {episode.success for episode in demos} == {True}
    assert (folder / "trajectories" / "demos-dev.parquet").exists()


def test_without_rl_steps_the_warm_start_itself_is_the_checkpoint(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, "run.steps=0", "eval.baselines=false"))
    assert (folder / "checkpoints" / "step-000000" / "manifest.json").exists()
    assert (folder / "report.html").exists()
    assert read_metrics(folder) == []


def test_a_second_run_of_the_same_name_moves_the_first_aside(tmp_path: Path) -> None:
    quick = ("eval.every=0", "eval.final_tasks=0", "run.steps=1")
    first = train(tiny(tmp_path, *quick))
    old = (first / "metrics.jsonl").read_text()
    second = train(tiny(tmp_path, *quick, "run.seed=7"))
    assert second == first
    assert (tmp_path / "tiny.1" / "metrics.jsonl").read_text() == old
    assert load_config(second / "config.yaml").run.seed == 7
    train(tiny(tmp_path, *quick))
    assert load_config(tmp_path / "tiny.2" / "config.yaml").run.seed == 7


@pytest.mark.parametrize("env", ["chatter", "slow-chatter"])
def test_the_same_config_gives_the_same_metrics_and_weights(tmp_path: Path, env: str) -> None:
    settings = (
        f"env={env}",
        "optim.updates_per_batch=2",
        "rollout.in_flight=5",
        "eval.baselines=false",
    )
    first = train(tiny(tmp_path / "a", *settings))
    second = train(tiny(tmp_path / "b", *settings))
    assert timeless(first) == timeless(second)
    assert timeless(first)[0] != timeless(first)[1]
    for step in (1, 2):
        one, two = weights(first, step), weights(second, step)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_where_envs_run_changes_no_bit(tmp_path: Path) -> None:
    quick = ("eval.final_tasks=0", "eval.every=0")
    inline = train(tiny(tmp_path / "a", *quick))
    thread = train(tiny(tmp_path / "b", *quick, "env=slow-chatter"))
    assert timeless(inline) == timeless(thread)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(inline, 2).values(), weights(thread, 2).values(), strict=True)
    )


# --- methods and settings -------------------------------------------------------------------------

QUICK = ("eval.every=1", "eval.tasks=1", "eval.final_tasks=1", "eval.baselines=false")


def test_a_kl_penalty_is_zero_at_first_and_then_grows(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *QUICK, "kl.name=k3", "kl.beta=0.1", "optim.lr=1e-2"))
    first, second = column(folder, "loss/kl")
    assert first == pytest.approx(0.0, abs=1e-9)
    assert isinstance(second, float)
    assert second > 1e-6


def test_several_updates_and_epochs_move_the_ratio_off_one(tmp_path: Path) -> None:
    folder = train(
        tiny(
            tmp_path,
            *QUICK,
            "optim.updates_per_batch=2",
            "optim.epochs=2",
            "optim.lr=1e-2",
            "optim.tokens_per_microbatch=64",
        )
    )
    ratio, clipped = column(folder, "loss/ratio")[0], column(folder, "loss/clip_high")[0]
    assert ratio != pytest.approx(1.0, abs=1e-4)
    assert isinstance(clipped, float)
    assert column(folder, "mismatch/gap")[0] == pytest.approx(0.0, abs=1e-4), "old is before them"


@pytest.mark.parametrize(
    "settings",
    [
        ("advantage=rloo", "aggregate=seq_mean_token_mean"),
        ("advantage.scale=none", "aggregate.name=constant", "aggregate.length=16"),
        ("mismatch=tis", "optim.schedule=cosine", "optim.warmup=1"),
        ("reward=success", "rollout.on_invalid=end"),
    ],
    ids=lambda settings: settings[0],
)
def test_methods_are_chosen_by_name(tmp_path: Path, settings: Sequence[str]) -> None:
    folder = train(tiny(tmp_path, *QUICK, *settings, "rollout.group_size=8"))
    assert [line["step"] for line in read_metrics(folder)] == [1, 2]
    assert any(column(folder, "loss/grad_norm"))


def test_a_window_trains_several_rows_of_each_trajectory(tmp_path: Path) -> None:
    folder = train(
        tiny(
            tmp_path,
            *QUICK,
            "context.name=window",
            "env.name=chatter",
            "env.length=4",
            "env.cap=9",
        )
    )
    assert column(folder, "rollout/rows") == [3.0, 3.0]
    assert have_moved(folder, 1, 2)


def test_lora_trains_adapters_and_saves_a_whole_model(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *QUICK, "lora.rank=4", "kl=k3", "optim.lr=1e-2"))
    assert have_moved(folder, 1, 2)
    assert column(folder, "loss/kl")[0] == pytest.approx(0.0, abs=1e-9)
    names = weights(folder, 2).keys()
    assert not [name for name in names if "lora" in name or "base_layer" in name]
    built = train(tiny(tmp_path / "plain", "run.steps=0", "eval.final_tasks=0"))
    assert names == weights(built, 0).keys()


def test_a_llama_folder_with_a_chat_template_trains_with_lora(tmp_path: Path) -> None:
    model = save_model(tmp_path / "llama", "llama", CHATML)
    before = load_file(model / "model.safetensors")
    config = tiny(
        tmp_path, *QUICK, "renderer=template", "lora.rank=4", "optim.lr=1e-2", model=str(model)
    )
    folder = train(config)
    assert any(column(folder, "loss/grad_norm"))
    after = weights(folder, 2)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed), "embeddings and norms are frozen"
    assert load_file(model / "model.safetensors").keys() == before.keys()
    shown = "".join(
        piece
        for turn in read_episodes(folder / "trajectories" / "train-000001.parquet")[0].turns
        for piece in turn.pieces
    )
    assert "<|im_start|>user" in shown


def test_lora_after_sft_keeps_the_warm_start_as_its_reference(tmp_path: Path) -> None:
    config = tiny(
        tmp_path,
        *QUICK,
        "env=echo",
        "sft.demos=4",
        "sft.dev_demos=2",
        "sft.max_steps=4",
        "sft.lr=1e-2",
        "lora.rank=4",
        "kl=k3",
    )
    folder = train(config)
    assert column(folder, "loss/kl")[0] == pytest.approx(0.0, abs=1e-9)


SMALLER = {
    "doorkey": ("env.level=DoorKey-5x5", "env.cap=24", "explore.tasks=4", "explore.budget=3000"),
    "results-program": ("model={model_type: qwen3}", "env=program"),
}
"""What makes a recipe small enough, or independent of what is prepared for it."""


def marks(recipe: Path) -> list[pytest.MarkDecorator]:
    needs = (
        [pytest.mark.browser] if re.search(r"name: (miniwob|webapps)", recipe.read_text()) else []
    )
    return needs if recipe.stem == "quickstart" else [pytest.mark.slow, *needs]


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, marks=marks(path)) for path in sorted((ROOT / "scripts").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_every_recipe_runs_two_steps_on_a_small_model(recipe: Path, tmp_path: Path) -> None:
    config = load_config(
        recipe,
        [
            *SMALLER.get(recipe.stem, ()),
            f"run.folder={tmp_path}",
            "run.steps=2",
            *(f"model.{key}={value}" for key, value in MODEL.items()),
            "model.max_position_embeddings=1024",
            "tokenizer.texts=20",
            "sft.max_steps=4",
            "sft.dev_demos=4",
            "sft.double=false",
            "rollout.tasks_per_step=2",
            "eval.tasks=2",
            "eval.final_tasks=2",
            "track=[jsonl]",
        ],
    )
    folder = train(config)
    assert [line["step"] for line in read_metrics(folder)] == [1, 2]
    assert (folder / "report.html").exists()


# --- what is counted and what stops a run ---------------------------------------------------------


def test_groups_whose_rewards_are_equal_teach_nothing_and_are_counted(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *QUICK, "env=echo"))
    assert column(folder, "groups/frac_zero_std") == [1.0, 1.0]
    assert column(folder, "loss/idle_steps") == [1.0, 1.0]
    assert column(folder, "loss/grad_norm") == [None, None]
    assert not have_moved(folder, 1, 2)


def test_prompts_longer_than_the_context_are_counted(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *QUICK, "rollout.max_context=3", "sampling.max_tokens=2"))
    assert column(folder, "rollout/prompt_too_long") == [8.0, 8.0]
    assert column(folder, "rollout/truncated") == [1.0, 1.0]


def test_a_run_whose_every_episode_fails_stops_and_names_the_commonest_failure(
    tmp_path: Path,
) -> None:
    # The corpus of the tokenizer meets the env first, and says so before there is a run folder.
    with pytest.raises(Exception, match="each of 10 train tasks failed; the first: env BadEnv"):
        train(tiny(tmp_path, *QUICK, "env.name=bad", "env.at=reset"))
    assert not (tmp_path / "tiny").exists()
    model = save_model(tmp_path / "llama", "llama", CHATML)
    with pytest.raises(
        TrainingError,
        match=r"step 1: every episode failed, so there is nothing to learn from; the env failed in "
        r"8 of 8 episodes: env BadEnv: step raised ValueError: the dog ate the world",
    ):
        train(tiny(tmp_path, *QUICK, "env.name=bad", "env.at=step", model=str(model)))
    episodes = read_episodes(tmp_path / "tiny" / "trajectories" / "train-000001.parquet")
    assert {episode.stop for episode in episodes} == {Stop.ERROR}
    assert read_evals(tmp_path / "tiny")[0].failures == {"env": 1}


def test_unscored_episodes_are_said_once_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._parts, "reward", {"half": Half})
    folder = train(tiny(tmp_path, *QUICK, "track=[console, jsonl]", "reward=half"))
    lost = column(folder, "episodes/unscored")
    assert all(isinstance(n, float) and n > 0 for n in lost)
    text = capsys.readouterr().out
    assert len(re.findall(r"the reward gave \d+ episode\(s\) no score \(None or NaN\)", text)) == 1


@dataclass(frozen=True, kw_only=True)
class Half(BadReward):
    """No verdict on what was not solved."""


@dataclass(frozen=True, kw_only=True)
class Silent:
    """Cannot tell anything of any episode."""

    async def __call__(self, trajectory: Trajectory) -> None:
        return None


def test_a_reward_that_cannot_tell_trains_nothing_and_leaves_the_warm_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._parts, "reward", {"silent": Silent})
    sft = ("sft.demos=2", "sft.dev_demos=2", "sft.max_steps=2", "sft.eval_every=1")
    folder = train(tiny(tmp_path, *QUICK, *sft, "reward=silent", "env=echo"))
    assert column(folder, "episodes/unscored") == [8.0, 8.0]
    assert column(folder, "groups/dropped") == [2.0, 2.0]
    assert column(folder, "rollout/reward") == [None, None]
    assert not have_moved(folder, 1, 2)
    [summary] = json.loads((folder / "summary.json").read_text())
    assert summary["sft_steps"] >= 1


def test_bad_requests_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    def refused(match: str, *overrides: str, model: object = MODEL) -> None:
        with pytest.raises(ConfigError, match=match):
            train(tiny(tmp_path, *overrides, model=model))
        assert not (tmp_path / "tiny").exists()

    save_model(tmp_path / "llama")
    refused("model: no folder .*/lama; did you mean 'llama'", model=str(tmp_path / "lama"))
    refused("asked for 99 tasks of split 'dev', and ChatterEnv has 9", "eval.tasks=99")
    refused("asked for 99 tasks of split 'test'", "eval.final_tasks=99")


def test_sft_without_an_expert_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path, "sft.demos=2")
    monkeypatch.setattr(type(config.env), "expert_action", None)
    with pytest.raises(ConfigError, match=r"sft: env ChatterEnv has no expert_action\(\)"):
        train(config)


def test_an_expert_that_solves_nothing_is_refused_with_the_limits_it_met(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"sft: the expert solved none of 2 dev tasks \(stops: max_turns 2\) within "
        r"rollout.max_turns=1, sampling.max_tokens=4 and a context of 256 tokens$",
    ):
        train(tiny(tmp_path, *QUICK, "sft.dev_demos=2", "rollout.max_turns=1"))


@dataclass(frozen=True)
class Needy:
    """An estimator that asks for values."""

    needs: ClassVar[frozenset[str]] = frozenset({"values", "entropies"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        raise AssertionError("never asked")


def test_an_estimator_whose_needs_are_unmet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Needy needs values, and the run has no critic"):
        train(replace(tiny(tmp_path), advantage=Needy()))


@dataclass(frozen=True)
class KeepNone:
    """A filter that drops every group."""

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return []


def test_a_step_of_which_nothing_is_kept_is_recorded_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._parts, "filter", {"keep-none": KeepNone})
    folder = train(tiny(tmp_path, *QUICK, "filter=keep-none"))
    assert column(folder, "rollout/turns") == [2.0, 2.0]
    assert not have_moved(folder, 1, 2)
    assert len(read_episodes(folder / "trajectories" / "train-000001.parquet")) == 8
