"""Whole runs by the token trie."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.train.loop import train
from support.whole_runs import MODEL, column, timeless, tiny, training_envs

__all__ = ["training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
SETTINGS = (
    "eval.every=0",
    "eval.final_tasks=0",
    "eval.baselines=false",
    "optim.updates_per_batch=2",
    "kl={name: k3, beta: 0.1}",
    "entropy={name: bonus, coef: 0.01}",
)


def test_a_run_by_the_trie_has_the_numbers_of_padded_rows(tmp_path: Path) -> None:
    padded = train(tiny(tmp_path / "padded", *SETTINGS))
    trie = train(tiny(tmp_path / "trie", *SETTINGS, "scorer=trie"))
    for there, here in zip(timeless(padded), timeless(trie), strict=True):
        shared = here.pop("trie/real_per_unique")
        assert isinstance(shared, float)
        assert shared > 1.1
        assert here.keys() == there.keys()
        for key, value in there.items():
            assert here[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    assert column(padded, "trie/real_per_unique") == [None, None]


def test_a_model_that_no_tree_computes_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    plain = {key: value for key, value in MODEL.items() if key != "head_dim"}
    model = {**plain, **moe, "model_type": "qwen3_moe", "output_router_logits": True}
    with pytest.raises(ConfigError, match="auxiliary loss of its router"):
        train(tiny(tmp_path, *SETTINGS, "scorer={name: trie, executor: dfs}", model=model))
    assert not list((tmp_path / "tiny" / "trajectories").glob("train-*"))


def test_capped_attention_is_computed_depth_first_which_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {**MODEL, "model_type": "gemma2"}
    settings = (*SETTINGS, "scorer=trie", "track=[console, jsonl]")
    folder = train(tiny(tmp_path, *settings, model=model))
    assert None not in column(folder, "trie/real_per_unique")
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("scorer: not by 'segment': its attention is 'eager'") == 1
