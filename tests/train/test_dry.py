"""`--dry-run` shows an episode and its mask, and leaves no trace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentrl.train.dry import dry_run
from support.models import CHATML, save_model
from support.templates import STYLES
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]

pytestmark = pytest.mark.usefixtures("training_envs")


def test_a_dry_run_shows_an_episode_with_its_mask_and_trains_nothing(tmp_path: Path) -> None:
    lines = dry_run(tiny(tmp_path, "env=echo"))
    text = "\n".join(lines)
    assert "played by the expert: 2 turns, 1 row(s), stop done, success True, reward 1.0" in text
    row = next(line for line in lines if line.startswith("<|user|>"))
    sampled = "".join(re.findall(r"\[(.*?)\]", row))
    assert sampled.count("<|end|>") == 2
    assert row.startswith("<|user|>say ")
    assert "step: 2 tasks x 4 episodes = 8 episodes" in text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_fails(tmp_path: Path) -> None:
    model = save_model(tmp_path / "llama", "llama", CHATML)
    lines = dry_run(tiny(tmp_path, "env.name=bad", model=str(model)))
    assert len(lines) == 1
    assert "the env failed: env BadEnv: step raised ValueError: the dog ate the world" in lines[0]


def test_a_dry_run_names_the_turn_whose_words_the_template_rewrites(tmp_path: Path) -> None:
    model = save_model(tmp_path / "llama", "llama", STYLES["reminds"].template)
    lines = dry_run(tiny(tmp_path, "env=echo", model=str(model)))
    [told] = [line for line in lines if "opened a new row" in line]
    assert re.match(r"task echo/\d+: turn 1 opened a new row: in the prompt of turn 0, '", told)
    assert "Remember" in told
    assert told.endswith(
        "the chat template rewrote what came before (renderer=append would keep it)"
    )
    kept = dry_run(tiny(tmp_path, "env=echo", "renderer=append", model=str(model)))
    assert not [line for line in kept if "opened a new row" in line]
    assert "1 row(s)" in kept[0]
