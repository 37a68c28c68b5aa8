"""SIGKILL at random moments, in real processes: nothing is lost, skipped or trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.kills import kill_often

SETTINGS: dict[str, object] = {
    "run": {"name": "killed", "steps": 6, "seed": 3, "device": "cpu"},
    "model": {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "max_position_embeddings": 256,
    },
    "tokenizer": {"vocabulary": 280, "texts": 10},
    "env": {"name": "countdown", "numbers": 3},
    "sampling": {"max_tokens": 6},
    "rollout": {"tasks_per_step": 3, "group_size": 3, "max_turns": 3},
    "kl": "k3",
    "sft": {"demos": 2, "dev_demos": 2, "max_steps": 4, "eval_every": 2},
    "optim": {"lr": 1e-3, "updates_per_batch": 2},
    "eval": {"every": 2, "tasks": 3, "final_tasks": 3},
    "checkpoint": {"every": 1},
    "track": ["jsonl"],
}
VARIANTS = [[], ["lora.rank=4"]]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_run_that_is_killed_at_random_moments_equals_one_that_is_not(
    tmp_path: Path, kills: int
) -> None:
    variants = VARIANTS[: kills // 3]
    report = kill_often(SETTINGS, tmp_path, kills=kills, seed=kills, variants=variants)
    assert report.kills == kills
    assert report.mismatches == []
