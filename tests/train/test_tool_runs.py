"""A whole run with tools, a think budget and a template that forgets reasoning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.track.trajectories import read_episodes
from agentrl.train.loop import train
from support.models import FORGETTING, save_model
from support.tools import Box
from support.whole_runs import column, tiny


@pytest.mark.slow
def test_a_run_trains_on_tool_calls_with_a_think_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.names("env")
    monkeypatch.setitem(registry._parts["env"], "box", Box)
    model = save_model(tmp_path / "llama", "llama", FORGETTING)
    config_file = model / "config.json"
    settings = json.loads(config_file.read_text()) | {"max_position_embeddings": 2048}
    config_file.write_text(json.dumps(settings))
    folder = train(
        tiny(
            tmp_path,
            *("env=box", "sampling.max_tokens=40", "thinking.budget=12", "thinking.opening=e"),
            *("eval.every=0", "eval.final_tasks=0", "rollout.max_turns=2"),
            model=str(model),
        )
    )
    assert len(column(folder, "loss/total")) == 2
    [first, *_] = sorted((folder / "trajectories").glob("train-*"))
    episodes = read_episodes(first)
    turns = [turn for episode in episodes for turn in episode.turns]
    assert turns
    masks = ["".join("01"[m] for m in turn.mask) for turn in turns]
    assert any("10" in mask for mask in masks), "a reply was ended by tokens that are masked"
    for turn in turns:
        assert [logprob is not None for logprob in turn.logprobs] == turn.mask
