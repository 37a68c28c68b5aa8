"""A config in words: what `agentrl explain` and `agentrl list` say."""

from __future__ import annotations

import dataclasses

import pytest

from agentrl.core.config import Config
from agentrl.core.errors import ConfigError
from agentrl.core.explaining import Entry, describe, explain, overview, table
from agentrl.core.registry import FOLDERS, find, names
from agentrl.core.shapes import default_of, hints_of, shape_of, summary_of


def test_a_leaf_says_type_range_default_and_meaning() -> None:
    assert explain(Config, "optim.lr").lines() == [
        "optim.lr: float (at least 0) (default: 1e-05)",
        "  Peak learning rate (0 or more; with 0 a run only plays, and may record).",
    ]


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("run.name", "text (not empty)", "run"),
        ("run.folder", "path", "runs"),
        ("run.deterministic", "bool", "true"),
        ("rollout.max_context", "int (at least 2) | none", "none"),
        ("rollout.on_invalid", "tell | pass | end", "tell"),
        ("tokenizer.vocabulary", "int (at least 64) (at most 65536)", "512"),
        (
            "optim.betas",
            "[float (at least 0) (below 1), float (at least 0) (below 1)]",
            "[0.9, 0.999]",
        ),
        ("explore", "part or none", "none"),
        ("actions", "part or auto", "auto"),
        ("kl", "part or none", "none"),
        ("advantage", "part", "grpo"),
        ("track", "list of parts", "[console, jsonl]"),
        ("rollout", "section", ""),
        ("sft", "section or none", "none"),
        ("renderer", "text", "auto"),
    ],
)
def test_every_kind_of_key_has_words_for_its_type_and_default(
    key: str, kind: str, default: str
) -> None:
    found = explain(Config, key)
    assert (found.type, found.default) == (kind, default)
    assert found.doc


def test_a_slot_lists_the_parts_that_fill_it() -> None:
    found = [entry.name for entry in explain(Config, "advantage").parts]
    assert found == names("advantage")
    assert {"grpo", "rloo"} <= set(found)
    renderers = [entry.name for entry in explain(Config, "renderer").parts]
    assert renderers == ["append", "plain", "template"]


def test_a_setting_of_a_part_says_whose_it_is() -> None:
    found = explain(Config, "advantage.eps")
    assert found.default == "0.0001"
    assert "\nA setting of grpo, gdpo, " in found.doc
    assert explain(Config, "kl.beta").doc.endswith("A setting of k1, k2, k3, k3+.")
    assert explain(Config, "advantage.grpo.eps").default == "0.0001"


def test_a_part_lists_its_settings_as_overrides() -> None:
    found = explain(Config, "context.window")
    assert found.type == "context part"
    assert [entry.name for entry in found.keys] == ["context.turns=1"]


def test_a_section_lists_its_keys_as_overrides() -> None:
    keys = [entry.name for entry in explain(Config, "checkpoint").keys]
    assert keys == ["checkpoint.every=0", "checkpoint.keep=2"]
    assert next(entry.name for entry in explain(Config, "sft").keys) == "sft.source=auto"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optim.lrr", "optim.lrr: unknown key; did you mean 'lr'? (known: lr, schedule, "),
        ("lrr", "lrr: unknown key; did you mean 'lora'? (known: run, model, "),
        (
            "lr",
            "lr: unknown key; did you mean 'sft.lr' or 'optim.lr' or 'critic.lr'? (known: run, ",
        ),
        (
            "advantage.epss",
            "advantage.epss: unknown key; did you mean 'eps'? (known: scale, eps, ",
        ),
        ("run.name.x", "run.name.x: unknown key: run.name is text (not empty)"),
        ("", ": unknown key (known: run, "),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explain(Config, key)
    assert str(caught.value).startswith(message)


def leaves(cls: type, above: str = "") -> list[str]:
    found = []
    for name, hint in hints_of(cls).items():
        section = shape_of(hint).section
        found += [f"{above}{name}", *(leaves(section, f"{above}{name}.") if section else [])]
    return found


@pytest.mark.parametrize("key", leaves(Config))
def test_every_key_can_be_explained(key: str) -> None:
    found = explain(Config, key)
    assert found.key == key
    assert found.doc


@pytest.mark.parametrize("slot", FOLDERS)
def test_every_part_has_a_summary_and_every_optional_setting_a_default(slot: str) -> None:
    for part in describe(slot):
        assert part.summary, part.name
        assert "name" not in dict(part.settings)  # {name: ...} in YAML names the part itself
        cls = find(slot, part.name)
        fields = (
            {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
        )
        for name, text in part.settings:
            is_required = default_of(fields[name]) is None
            shape = shape_of(hints_of(cls)[name])
            is_section = shape.section is not None and not shape.optional
            assert bool(text) is not (is_required or is_section), f"{part.name}.{name}"


def test_an_unknown_slot_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^no slot is called 'envs'; did you mean 'env'\?"):
        describe("envs")


def test_the_overview_has_every_top_level_key() -> None:
    assert [entry.name for entry in overview(Config)] == list(hints_of(Config))


def test_a_table_wraps_its_texts_under_themselves() -> None:
    lines = table((Entry("a", "one two three " * 5), Entry("long", "")), width=50)
    assert lines == [
        "a     one two three one two three one two three",
        "      one two three one two three",
        "long",
    ]


def test_the_summary_is_the_first_paragraph_and_never_the_generated_signature() -> None:
    assert summary_of(Config) == "Everything that decides a run."
    assert summary_of(type("Plain", (), {})) == ""
