"""Whole runs with losses that compare siblings: online, on recorded groups, and cut small."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.train.loop import train
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
BARE = (
    "eval.every=0",
    "eval.final_tasks=0",
    "eval.baselines=false",
    "aggregate=seq_mean_token_mean",
)
LIVELY = (*BARE, "optim.lr=1e-2", "run.steps=3")
DPO = (*LIVELY, "loss.name=dpo", "loss.beta=1")


def numbers(folder: Path, key: str) -> list[float]:
    found = column(folder, key)
    return [float(value) for value in found if isinstance(value, int | float)]


@pytest.mark.parametrize("scorer", ["padded", "trie"])
@pytest.mark.parametrize("loss", ["dpo", "copg"])
def test_a_step_does_not_depend_on_how_much_is_scored_at_once(
    tmp_path: Path, loss: str, scorer: str
) -> None:
    settings = (*LIVELY, f"loss={loss}", f"scorer={scorer}")
    whole = train(tiny(tmp_path / "whole", *settings))
    cut = train(tiny(tmp_path / "cut", *settings, "optim.tokens_per_microbatch=1"))
    norms = numbers(whole, "loss/grad_norm")
    assert min(norms) > 0
    assert numbers(cut, "loss/grad_norm")[0] == pytest.approx(norms[0], rel=1e-4)


def test_on_recorded_groups_dpo_is_offline(tmp_path: Path) -> None:
    """A run that only plays records what the first policy does; the one key that makes training
    offline names that record."""
    data = train(tiny(tmp_path / "data", *DPO, "optim.lr=0", "rollout.record=true"))
    online = train(tiny(tmp_path / "online", *DPO))
    offline = train(tiny(tmp_path / "offline", *DPO, f"rollout.replay={data / 'schedule'}"))
    for key in ("loss/grad_norm", "pairs/accuracy"):
        assert numbers(offline, key)[0] == pytest.approx(numbers(online, key)[0])
    assert numbers(offline, "rollout/reward") == numbers(data, "rollout/reward")
    assert numbers(online, "loss/grad_norm")[1:] != numbers(offline, "loss/grad_norm")[1:]
    assert numbers(data, "drift/ref_k3") == pytest.approx([0.0] * 3, abs=1e-9)
    assert numbers(offline, "drift/ref_k3")[-1] > 1e-6


def test_training_on_a_group_makes_the_policy_prefer_its_best(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *DPO, "run.steps=1", "optim.epochs=6"))
    plain = train(tiny(tmp_path / "once", *DPO, "run.steps=1"))
    assert numbers(plain, "pairs/margin") == pytest.approx([0.0], abs=1e-5)
    assert numbers(folder, "pairs/margin")[0] > 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("aggregate=token_mean",), "aggregate: DirectPreference has one number for a trajectory"),
        (("optim.updates_per_batch=3",), r"must be at most the 2 groups of a step"),
    ],
)
def test_what_such_a_loss_cannot_do_with_is_refused(
    tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny(tmp_path, *DPO, *settings))
