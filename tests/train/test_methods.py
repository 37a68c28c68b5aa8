"""Whole runs of every part of the loss, chosen by name: what each does to a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.config import load_config
from agentrl.core.errors import ConfigError
from agentrl.core.registry import names
from agentrl.track.jsonl import read_metrics
from agentrl.train.loop import train
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false")
SCRIPTS = Path(__file__).parents[2] / "scripts"


def finite(folder: Path, key: str) -> list[float]:
    """A metric that every step of the run measured."""
    found = [value for value in column(folder, key) if isinstance(value, float | int)]
    assert len(found) == 2, f"{key}: {column(folder, key)}"
    return [float(value) for value in found]


def test_corrections_have_nothing_to_correct_where_one_engine_samples(tmp_path: Path) -> None:
    every = f"mismatch={{name: product, parts: [{', '.join(names('mismatch'))}]}}"
    folder = train(tiny(tmp_path, *BARE, every))
    assert finite(folder, "mismatch/rejected") == [0.0, 0.0]
    assert finite(folder, "mismatch/capped") == [0.0, 0.0]
    assert finite(folder, "mismatch/ess") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert finite(folder, "mismatch/ratio") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert finite(folder, "mismatch/k3") == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_kl_in_the_reward_is_paid_before_credit_and_keeps_the_task_s_reward(
    tmp_path: Path,
) -> None:
    kl = ("kl.name=k1", "kl.beta=5", "kl.placement=reward", "optim.lr=1e-2")
    plain = train(tiny(tmp_path / "plain", *BARE, "optim.lr=1e-2"))
    folder = train(tiny(tmp_path, *BARE, *kl))
    assert column(folder, "rollout/reward")[0] == column(plain, "rollout/reward")[0]
    first, second = finite(folder, "reward/kl")
    assert first == pytest.approx(0.0, abs=1e-4), "the reference is the policy of the first step"
    assert abs(second) > 1e-3
    assert column(folder, "loss/kl") == [None, None]
    assert finite(folder, "drift/ref_k3")[1] > 0


@pytest.mark.parametrize("kl", ["k1", "k3+"])
def test_a_corrected_kl_trains_in_the_loss(tmp_path: Path, kl: str) -> None:
    folder = train(tiny(tmp_path, *BARE, f"kl.name={kl}", "kl.corrected=true", "optim.lr=1e-2"))
    assert finite(folder, "loss/kl")[0] == pytest.approx(0.0, abs=1e-6)


def test_an_entropy_bonus_raises_the_entropy(tmp_path: Path) -> None:
    lr = "optim.lr=1e-2"
    plain = train(tiny(tmp_path / "plain", *BARE, lr))
    bonus = train(tiny(tmp_path, *BARE, lr, "entropy.name=bonus", "entropy.coef=50"))
    assert finite(bonus, "loss/entropy")[0] == finite(plain, "loss/entropy")[0]
    assert finite(bonus, "loss/entropy")[1] > finite(plain, "loss/entropy")[1]


def test_an_adaptive_bonus_is_applied_from_the_step_after_a_low_entropy(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *BARE, "entropy.name=adaptive", "entropy.target=99"))
    assert finite(folder, "loss/entropy_coef") == pytest.approx([0.0, 0.005])


def test_the_high_entropy_mask_trains_a_share_of_the_tokens(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *BARE, "entropy.name=bonus", "entropy.top=0.2"))
    entropies, thresholds = finite(folder, "loss/entropy"), finite(folder, "loss/entropy_threshold")
    assert all(low < high for low, high in zip(entropies, thresholds, strict=True))


def test_dynamic_sampling_makes_up_for_groups_that_teach_nothing(tmp_path: Path) -> None:
    # Success is nearly certain for babble of this length, so most groups are flat.
    flat = ("reward=success", "env.name=chatter", "env.length=2", "sampling.max_tokens=6")
    plain = train(tiny(tmp_path / "plain", *BARE, *flat))
    assert max(finite(plain, "groups/frac_zero_std")) > 0
    folder = train(tiny(tmp_path, *BARE, *flat, "strategy=dynamic", "filter=zero_std"))
    assert finite(folder, "groups/trained") == [2.0, 2.0]
    assert sum(finite(folder, "groups/filtered")) > 0
    again = train(tiny(tmp_path / "again", *BARE, *flat, "strategy=dynamic", "filter=zero_std"))
    assert column(again, "loss/grad_norm") == column(folder, "loss/grad_norm")


def test_the_temperature_follows_the_entropy_and_the_scores_are_of_it(tmp_path: Path) -> None:
    control = ("entropy={name: temperature, gain: 1, ema: 0, low: 0.1, high: 9}",)
    folder = train(tiny(tmp_path, *BARE, *control, "sampling.temperature=0.5"))
    first, second = finite(folder, "rollout/temperature")
    assert first == 0.5
    expected = 0.5 * math.exp(0.3 - finite(folder, "loss/entropy")[0])
    assert second == pytest.approx(max(0.1, expected), rel=1e-4)
    assert finite(folder, "mismatch/gap") == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("settings", [("rollout.record=true",), ("rollout.replay=nowhere",)])
def test_a_schedule_does_not_keep_temperatures(tmp_path: Path, settings: Sequence[str]) -> None:
    with pytest.raises(ConfigError, match="changes the temperature of each step"):
        train(tiny(tmp_path, *BARE, *settings, "entropy=temperature"))


def test_expert_iteration_starts_each_step_from_the_first_weights(tmp_path: Path) -> None:
    raft = (*BARE, "advantage=raft", "loss=reinforce", "optim.lr=1e-2", "optim.updates_per_batch=2")
    going_on = train(tiny(tmp_path / "on", *raft, "kl.name=k3"))
    restarted = train(tiny(tmp_path / "restarted", *raft, "kl.name=k3", "optim.restart=true"))
    assert finite(going_on, "drift/ref_k3")[0] == finite(restarted, "drift/ref_k3")[0]
    assert finite(going_on, "drift/ref_k3")[1] > 3 * finite(restarted, "drift/ref_k3")[1] > 0
    assert column(going_on, "rollout/reward") == column(restarted, "rollout/reward")


@pytest.mark.parametrize(
    "settings",
    [
        ("reward.name=overlong", "reward.limit=20", "reward.buffer=16"),
        ("advantage=mask_truncated", "rollout.max_turns=2"),
        ("aggregate=local_token_mean", "optim.tokens_per_microbatch=64"),
        ("filter=accuracy",),
        ("loss.delta=4",),
        ("advantage=remax", "rollout.record=true"),
    ],
    ids=lambda settings: settings[0],
)
def test_methods_are_chosen_by_name(tmp_path: Path, settings: Sequence[str]) -> None:
    folder = train(tiny(tmp_path, *BARE, *settings))
    assert [line["step"] for line in read_metrics(folder)] == [1, 2]


@pytest.mark.parametrize("preset", sorted(p.stem for p in (SCRIPTS / "presets").glob("*.yaml")))
def test_every_preset_trains(tmp_path: Path, preset: str) -> None:
    base = tmp_path / "recipe.yaml"
    base.write_text((SCRIPTS / "quickstart.yaml").read_text())
    method = load_config(base, preset=str(SCRIPTS / "presets" / f"{preset}.yaml"))
    chosen = tiny(tmp_path, *BARE)
    config = replace(
        chosen,
        advantage=method.advantage,
        critic=method.critic,
        loss=method.loss,
        aggregate=method.aggregate,
        kl=method.kl,
        filter=method.filter,
        strategy=method.strategy,
        mismatch=method.mismatch,
        rollout=replace(
            chosen.rollout,
            mode=method.rollout.mode,
            max_staleness=method.rollout.max_staleness,
        ),
    )
    folder = train(config)
    assert len(finite(folder, "groups/trained")) == 2
