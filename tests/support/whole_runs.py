"""Whole runs in a second: a config with a tiny model, envs for it, an engine that breaks once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.core.config import Config
from agentrl.core.loading import load
from agentrl.core.protocols import Completion, SamplingParams
from agentrl.core.types import Image
from agentrl.engines.generate import Generate
from agentrl.track.jsonl import read_metrics
from support.chatter import ChatterEnv, OnceBadChatterEnv, SlowChatterEnv
from support.envs import BadEnv, EchoEnv
from support.faulty import BadEngine, EngineFault, OnceBadReward, is_first


@dataclass(kw_only=True)
class OnceBadGenerate(Generate):
    """The `generate` engine with one bad answer: that which first makes the file `claim`."""

    fault: EngineFault = "nan"
    claim: str = ""

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        is_bad = is_first(self.claim)
        answer = await super().generate(prompt_ids, params, episode=episode, group=group)
        return await BadEngine(fault=self.fault)._spoil(answer) if is_bad else answer


@pytest.fixture
def training_envs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env=chatter`, `slow-chatter`, `echo` and `bad` work in configs of this test."""
    envs = {"chatter": ChatterEnv, "slow-chatter": SlowChatterEnv, "echo": EchoEnv, "bad": BadEnv}
    _add(monkeypatch, "env", envs)


@pytest.fixture
def parts_that_break(training_envs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`once-bad` is an env, an engine and a reward in configs of this test."""
    parts = {"env": OnceBadChatterEnv, "engine": OnceBadGenerate, "reward": OnceBadReward}
    for slot, part in parts.items():
        _add(monkeypatch, slot, {"once-bad": part})


def _add(monkeypatch: pytest.MonkeyPatch, slot: str, parts: Mapping[str, type]) -> None:
    registry.names(slot)
    monkeypatch.setitem(registry._parts, slot, {**registry._parts[slot], **parts})


MODEL = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}


def tiny(folder: Path, *overrides: str, model: object = MODEL) -> Config:
    """A run of two steps on the `chatter` env, which takes about a second."""
    return load(
        Config,
        {
            "run": {"name": "tiny", "folder": str(folder), "steps": 2, "device": "cpu"},
            "model": model,
            "tokenizer": {"vocabulary": 280, "texts": 10},
            "env": "chatter",
            "sampling": {"max_tokens": 4},
            "rollout": {"tasks_per_step": 2, "group_size": 4, "max_turns": 4},
            "optim": {"lr": 1e-3},
            "eval": {"every": 1, "tasks": 2, "final_tasks": 3},
            "track": ["jsonl"],
        },
        overrides,
    )


def timeless(folder: Path) -> list[dict[str, object]]:
    """A run's metrics without what a clock measured."""
    return [
        {k: v for k, v in line.items() if k != "seconds" and not k.startswith("time/")}
        for line in read_metrics(folder)
    ]


def column(folder: Path, key: str) -> Sequence[object]:
    """One metric over the steps of a run; None where a step did not measure it."""
    return [line.get(key) for line in read_metrics(folder)]
