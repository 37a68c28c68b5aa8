"""The resolved copy of a config loads to an equal tree; every key is explained."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core import registry
from agentrl.core.config import Config, load_config
from agentrl.core.errors import ConfigError
from agentrl.core.loading import load, to_yaml
from agentrl.core.shapes import docs_of, hints_of, shape_of
from agentrl.text.context import Full
from support.config_tree import Pair, Tree

# --- the resolved copy ----------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)
FLOATS = st.floats(min_value=1e-30, max_value=1e30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=8,
)
VIEWS = st.sampled_from(["full", "window"]) | st.builds(
    lambda turns: {"name": "window", "turns": turns}, st.integers(1, 9)
)
STEPS = st.fixed_dictionaries(
    {}, optional={"lr": FLOATS, "schedule": st.sampled_from(["constant", "linear"])}
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "optim": STEPS,
        "again": st.just("none") | STEPS,
        "advantage": st.sampled_from(["grpo", "rloo"])
        | st.builds(lambda eps: {"eps": eps}, FLOATS),
        "view": st.just("none") | VIEWS,
        "views": st.lists(VIEWS, max_size=3),
        "steps": st.lists(STEPS, max_size=2),
        "name": WORDS,
        "count": st.integers(),
        "limit": st.none() | st.integers(),
        "folder": st.sampled_from(["a/b", "/x", "no", "1"]),
        "on": st.booleans(),
        "betas": st.lists(FLOATS, min_size=2, max_size=2),
        "model": WORDS | st.dictionaries(WORDS, JSON, max_size=4),
    },
)


@given(TREES)
@settings(max_examples=20)
def test_the_resolved_copy_loads_to_an_equal_tree(
    tmp_path_factory: pytest.TempPathFactory, source: dict[str, object]
) -> None:
    tree = load(Tree, source)
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    path.write_text(to_yaml(tree), encoding="utf-8")
    again = load(Tree, path)
    assert again == tree
    assert to_yaml(again) == to_yaml(tree)


OVERRIDES = {
    "run.seed": st.integers(0, 2**31),
    "run.name": st.sampled_from(["a", "no", "1e4", "12:30", "null", "~", "été"]),
    "run.deterministic": st.booleans(),
    "sampling.temperature": FLOATS,
    "rollout.on_invalid": st.sampled_from(["tell", "pass", "end"]),
    "rollout.env_timeout_s": st.just("none") | FLOATS,
    "advantage": st.sampled_from(["grpo", "rloo"]),
    "loss.low": st.floats(0.01, 0.9),
    "aggregate": st.sampled_from(["token_mean", "seq_mean_token_mean"]),
    "kl": st.sampled_from(["none", "k1", "k3"]),
    "actions": st.sampled_from(["auto", "plain", "tagged"]),
    "context": st.sampled_from(["full", "{name: window, turns: 2}"]),
    "env.level": st.sampled_from(["GoToObj", "GoToLocal"]),
    "model": st.sampled_from(["org/name", "./here", "{model_type: llama, rope_theta: 1e6}"]),
    "sft.lr": FLOATS,
    "lora.alpha": FLOATS,
    "optim.betas": st.sampled_from(["[0, 0.5]", "[0.9, 0.95]"]),
    "track": st.sampled_from(["none", "[]", "[jsonl]", "[{name: console, every: 3}, jsonl]"]),
}


@given(st.fixed_dictionaries({}, optional=OVERRIDES))
@settings(max_examples=10)
def test_the_resolved_config_of_a_run_loads_to_an_equal_config(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, object]
) -> None:
    config = load_config(None, [f"{key}={value}" for key, value in chosen.items()])
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_the_resolved_copy_says_every_default() -> None:
    lines = to_yaml(load_config(None)).splitlines()
    tops = [line.partition(":")[0] for line in lines if line[0] not in " -"]
    assert tops == [field.name for field in dataclasses.fields(Config)]
    assert "  on_invalid: tell" in lines
    assert "sft: none" in lines


def test_an_unregistered_part_cannot_be_written() -> None:
    tree = Tree(view=Pair(first=Full(), share=0.5))
    with pytest.raises(ConfigError, match=r"^context: Pair has no name: put @register\('context'"):
        to_yaml(tree)


# --- the tree itself ------------------------------------------------------------------------------


def test_the_tree_has_at_most_60_top_level_keys() -> None:
    assert len(dataclasses.fields(Config)) <= 60


def sections(cls: type) -> list[type]:
    below = [shape_of(hint).section for hint in hints_of(cls).values()]
    return [cls, *(one for section in below if section for one in sections(section))]


def test_every_key_has_a_docstring() -> None:
    missing = [
        f"{cls.__name__}.{name}"
        for cls in sections(Config)
        for name in hints_of(cls)
        if not docs_of(cls).get(name)
    ]
    assert missing == []


def test_the_config_module_imports_nothing_heavy() -> None:
    source = (
        "import sys, agentrl.core.config, agentrl.core.explaining\n"
        "print([n for n in ('torch', 'transformers', 'pydantic', 'minigrid') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(registry.__file__).parents[2])},
        timeout=50,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
