"""Whole runs in a second: a config with a tiny model, and an env that pays for any babble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.core.config import Config
from agentrl.core.loading import load
from agentrl.core.types import Action, Step
from agentrl.track.jsonl import read_metrics
from support.envs import BadEnv, EchoEnv
from support.faulty import SlowEnv


@dataclass(kw_only=True)
class ChatterEnv(EchoEnv):
    """An EchoEnv that takes any text: paid by its letters, so that a random model gets rewards."""

    def step(self, action: Action) -> Step:
        if self._is_over:
            raise RuntimeError("the episode is over")
        self._said.append(str(action))
        self._is_over = len(self._said) == self.length
        letters = sum(letter in "aeiounst" for text in self._said for letter in text)
        return Step(
            observation="the end" if self._is_over else self._observe(),
            reward=float(letters) if self._is_over else 0.0,
            terminated=self._is_over,
            info={"success": letters > 2} if self._is_over else {},
        )


@dataclass(kw_only=True)
class SlowChatterEnv(ChatterEnv, SlowEnv):
    """The same in a thread, with random delays."""


@pytest.fixture
def training_envs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env=chatter`, `slow-chatter`, `echo` and `bad` work in configs of this test."""
    registry.names("env")
    known = dict(registry._parts["env"])
    known |= {"chatter": ChatterEnv, "slow-chatter": SlowChatterEnv, "echo": EchoEnv, "bad": BadEnv}
    monkeypatch.setitem(registry._parts, "env", known)


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
