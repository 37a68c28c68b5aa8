"""Loading a config: what users meet first when something is wrong, and the resolved copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.core import registry
from agentrl.core.config import Lora, Optim, load_alone, load_config
from agentrl.core.errors import ConfigError
from agentrl.core.loading import load, to_yaml
from agentrl.core.protocols import ContextPolicy
from agentrl.core.registry import names, register
from agentrl.text.actions.tagged import TaggedAction
from agentrl.text.context import Full, Window
from support.config_tree import Pair, Step, Tree, written


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context policy `pair` is registered, for one test."""
    monkeypatch.setitem(registry._parts, "context", dict(registry._parts["context"]))
    register("context", "pair")(Pair)


def problems(source: dict[str, object] | Path | None, *overrides: str) -> list[str]:
    """The lines of the error that this gives in the small tree."""
    with pytest.raises(ConfigError) as caught:
        load(Tree, source, overrides)
    return str(caught.value).splitlines()


# --- values ---------------------------------------------------------------------------------------


def test_file_and_overrides_reach_sections_and_parts(tmp_path: Path) -> None:
    text = "optim: {lr: 1e-4}\nadvantage: {name: grpo, eps: 0.5}\nsft: {demos: 7}\n"
    changes = ["optim.warmup=3", "sft.lr=2e-3", "run.name=x", "lora.rank=4"]
    config = load_config(written(tmp_path, text), changes)
    assert config.optim == Optim(lr=1e-4, warmup=3)
    assert config.advantage == GroupNormalised(eps=0.5)
    assert config.sft is not None
    assert (config.sft.demos, config.sft.lr) == (7, 2e-3)
    assert config.lora == Lora(rank=4)
    assert config.run_folder == Path("runs/x")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(Tree, written(tmp_path, "# nothing\n")) == Tree() == load(Tree, None)


@pytest.mark.parametrize(
    ("source", "overrides", "view"),
    [
        ("window", [], Window()),
        ({"name": "window", "turns": 4}, [], Window(turns=4)),
        ({"name": "window", "turns": 4}, ["view=window"], Window()),
        ({"name": "window", "turns": 4}, ["view.turns=5"], Window(turns=5)),
        ("window", ["view.turns=6"], Window(turns=6)),
        ("full", ["view=window", "view.turns=7"], Window(turns=7)),
        ("full", ["view={name: window, turns: 8}"], Window(turns=8)),
        ("full", ["view=none"], None),
        ("full", ["view=null"], None),
    ],
)
def test_naming_a_part_replaces_it_and_a_dotted_key_sets_one_setting(
    source: object, overrides: list[str], view: ContextPolicy | None
) -> None:
    assert load(Tree, {"view": source}, overrides).view == view


def test_a_setting_without_a_name_is_one_of_the_default_part() -> None:
    assert load(Tree, None, ["advantage.eps=0"]).advantage == GroupNormalised(eps=0.0)
    assert load(Tree, {"advantage": {"eps": 0}}).advantage == GroupNormalised(eps=0.0)


def test_lists_of_parts_and_sections_are_read_in_order() -> None:
    tree = load(Tree, {"steps": [{"lr": 1}, {}]}, ["views=[full, {name: window, turns: 2}]"])
    assert tree.views == (Full(), Window(turns=2))
    assert tree.steps == (Step(lr=1.0), Step())


def test_parts_may_hold_parts(pair: None) -> None:
    changes = ["view={name: pair, share: 0.5, first: window}", "view.first.turns=3"]
    tree = load(Tree, None, changes)
    assert tree.view == Pair(first=Window(turns=3), share=0.5)


def test_a_dotted_key_below_an_inline_mapping_keeps_the_rest_of_it() -> None:
    assert load(Tree, None, ["model.rope.base=1e4"]).model == {"size": 4, "rope": {"base": 1e4}}
    assert load(Tree, {"model": {"a": [1, {"b": None}]}}).model == {"a": [1, {"b": None}]}
    assert load(Tree, None, ["model=org/name"]).model == "org/name"


@pytest.mark.parametrize(
    "text",
    ["no", "1e4", "12:30", "2024-01-01", "007", "null", "", "a: b", ".*[qv]$", "*_proj", "{"],
)
def test_text_on_the_command_line_is_taken_as_it_stands(text: str) -> None:
    tree = load(Tree, None, [f"name={text}", f"folder={text or '.'}"])
    assert (tree.name, tree.folder) == (text, Path(text))


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1E3", 1e3), ("3", 3.0), ("'5'", 5.0)]
)
def test_numbers_that_yaml_1_1_takes_for_text_become_floats(
    tmp_path: Path, text: str, value: float
) -> None:
    tree = load(Tree, written(tmp_path, f"optim: {{lr: {text}}}\nmodel: {{theta: 1e6}}\n"))
    assert tree.optim.lr == value
    assert type(tree.optim.lr) is float
    assert tree.model == {"theta": 1e6}


def test_anchors_and_merges_of_yaml_work(tmp_path: Path) -> None:
    text = "again: &base {lr: 2, schedule: linear}\noptim: {<<: *base, lr: 3}\n"
    tree = load(Tree, written(tmp_path, text))
    assert (tree.again, tree.optim) == (
        Step(lr=2, schedule="linear"),
        Step(lr=3, schedule="linear"),
    )


# --- what is wrong, and how it is said ------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key; did you mean 'lr'? (known: lr, schedule)"),
        ("optim.zzzz=1", "optim.zzzz: unknown key (known: lr, schedule)"),
        ("optim.lr=-1", "optim.lr: input should be greater than 0 (got -1)"),
        (
            "advantage=gpro",
            "advantage: no advantage is called 'gpro'; did you mean 'grpo'? "
            f"(known: {', '.join(names('advantage'))})",
        ),
        (
            "view=windw",
            "view: no context is called 'windw'; did you mean 'window'? "
            "(known: none, full, last_images, summary, window)",
        ),
        (
            "view.turns=1",
            "view: needs the name of a part: view=NAME (known: full, last_images, summary, window)",
        ),
        (
            "advantage=none",
            "advantage: needs the name of a part: advantage=NAME "
            f"(known: {', '.join(names('advantage'))})",
        ),
        ("views=full", "views: expected a list such as [a, b] (got 'full')"),
        (
            "views=[ful]",
            "views.0: no context is called 'ful'; did you mean 'full'? "
            "(known: full, last_images, summary, window)",
        ),
        ("optim=3", "optim: expected a mapping of keys (got 3)"),
        (
            "optim.schedule=linaer",
            "optim.schedule: 'linaer' is not a choice; "
            "did you mean 'linear'? "
            "(known: constant, linear)",
        ),
        ("count=true", "count: input should be a number, not a boolean (got True)"),
        (
            "count=1.5",
            "count: input should be a valid integer, got a number with a fractional part (got 1.5)",
        ),
        (
            "count=many",
            "count: input should be a valid integer, "
            "unable to parse string as an integer "
            "(got 'many')",
        ),
        ("count=null", "count: input should be a valid integer (got none)"),
        ("count={a: 1}", "count: takes one value and has no keys of its own (got {'a': 1})"),
        (
            "limit=x",
            "limit: input should be a valid integer, unable to parse string as an integer "
            "(got 'x')",
        ),
        ("optim.lr=.nan", "optim.lr: input should be a number (got nan)"),
        (
            "betas=[0.9, x]",
            "betas.1: input should be a valid number, unable to parse string as a number (got 'x')",
        ),
        ("name.x=1", "name: is 'run', which has no key 'x'"),
        (
            "on=perhaps",
            "on: input should be a valid boolean, unable to interpret input (got 'perhaps')",
        ),
        ("count", "count: an override is written key=value, such as optim.lr=1e-4"),
        ("=3", "=3: an override is written key=value, such as optim.lr=1e-4"),
        ("count=[", "count: '[' is not YAML: expected the node content, but found '<stream end>'"),
        ("view=[", "view: '[' is not YAML: expected the node content, but found '<stream end>'"),
        ("model=[", "model: '[' is not YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_each_mistake_has_one_clear_line(override: str, message: str) -> None:
    assert problems(None, override) == [message]


@pytest.mark.parametrize("word", ["no", "on", "off", "yes"])
def test_a_boolean_where_text_is_wanted_is_refused_with_a_hint(tmp_path: Path, word: str) -> None:
    path = written(tmp_path, f"name: {word}\nfolder: {word}\noptim: {{schedule: {word}}}\n")
    lines = problems(path)
    assert [line.partition(":")[0] for line in lines] == ["optim.schedule", "name", "folder"]
    assert all(line.endswith("put it in quotes") for line in lines)


def test_a_number_where_text_is_wanted_is_refused_with_a_hint(tmp_path: Path) -> None:
    (line,) = problems(written(tmp_path, "name: 12\n"))
    assert line == "name: input should be a valid string (got 12); put it in quotes"


def test_all_problems_of_a_file_and_its_overrides_come_together(tmp_path: Path) -> None:
    path = written(tmp_path, "optim: {lr: -1, lrr: 2}\nadvantage: gpro\ncont: 3\n")
    lines = problems(path, "limit=x", "steps")
    assert sorted(line.partition(":")[0] for line in lines) == [
        "advantage", "cont", "limit", "optim.lr", "optim.lrr", "steps",
    ]  # fmt: skip


def test_an_override_that_would_undo_an_earlier_one_is_refused() -> None:
    (line,) = problems(None, "advantage.eps=0", "advantage=rloo")
    assert line == (
        "advantage: advantage=rloo undoes advantage.eps, which comes before it: swap them"
    )


def test_an_override_into_a_list_is_refused() -> None:
    (line,) = problems({"views": ["full"]}, "views.0=window")
    assert line == "views.0: views is a list: set all of it"


def test_a_key_of_a_section_given_at_the_root_is_found_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^lr: unknown key; did you mean 'sft.lr' or 'optim.lr'?"
    ):
        load_config(None, ["lr=1"])


def test_what_a_part_raises_is_told_at_its_key(pair: None) -> None:
    wrong = problems({"view": {"name": "pair", "first": "full", "share": 2}})
    assert wrong == ["view.share: must be at most 1 (got 2.0)"]
    assert problems({"view": "pair"}) == [
        "view.first: is required and missing",
        "view.share: is required and missing",
    ]
    with pytest.raises(ConfigError, match=r"^actions\.tag: expected letters"):
        load_config(None, ["actions=tagged", "actions.tag=a b"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["rollout.max_staleness=1"],
            "rollout.max_staleness: must be 0 under rollout.mode=sync (got 1)",
        ),
        (["run.name=a/b"], "run.name: 'a/b' is a path; the folder of runs is the key run.folder"),
        (
            ["rollout.group_size=1"],
            "rollout.group_size: input should be greater than or equal to 2 (got 1)",
        ),
        (
            ["model={size: 1}"],
            "model: a model built from a config needs its model_type, "
            "for example "
            "model.model_type=qwen3 (got the keys size)",
        ),
        (
            ["rollout.max_context=5", "sampling.max_tokens=5"],
            "sampling.max_tokens: must be below rollout.max_context=5 (got 5)",
        ),
        (
            ["rollout.max_context=2000"],
            "rollout.max_context: must be at most the model's "
            "max_position_embeddings=1024 (got 2000)",
        ),
        (
            ["optim.updates_per_batch=5", "rollout.tasks_per_step=2", "rollout.group_size=2"],
            "optim.updates_per_batch: must be at most the 4 trajectories of a step, "
            "tasks_per_step x group_size (got 5)",
        ),
        (
            ["renderer=plan"],
            "renderer: no renderer is called 'plan'; did you mean 'plain'? "
            "(known: auto, append, plain, template)",
        ),
        (
            ["explore=archive"],
            "explore: no explore is called 'archive' "
            "(known: none, go_explore, intelligent_go_explore, workflows)",
        ),
        (
            ["actions=tagd"],
            "actions: no actions is called 'tagd'; did you mean 'tagged'? "
            f"(known: auto, {', '.join(names('actions'))})",
        ),
    ],
)
def test_rules_between_keys_of_a_run_are_told_by_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert str(caught.value) == message


def test_actions_spell_their_default_auto() -> None:
    assert load_config(None, ["actions=auto"]).actions is None
    assert load_config(None, ["actions=tagged"]).actions == TaggedAction()
    assert "\nactions: auto\n" in to_yaml(load_config(None))


def test_an_env_alone_takes_its_settings_with_or_without_the_prefix() -> None:
    alone = load_alone("babyai", ["level=GoToLocal", "env.cap=9", "actions=tagged"])
    assert alone == load_alone("babyai", ["env.level=GoToLocal", "cap=9", "actions.name=tagged"])
    assert alone.format == TaggedAction()
    assert type(load_alone("babyai").format).__name__ == "PlainAction"
    with pytest.raises(ConfigError, match=r"^env\.levl: unknown key; did you mean 'level'\?"):
        load_alone("babyai", ["levl=GoTo"])
    with pytest.raises(
        ConfigError, match=r"^env: no env is called 'babyia'; did you mean 'babyai'"
    ):
        load_alone("babyia")


# --- files ----------------------------------------------------------------------------------------


def test_a_missing_file_names_the_nearest_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    (line,) = problems(tmp_path / "quikstart.yaml")
    assert line == (
        f"no config file '{tmp_path}/quikstart.yaml'; did you mean 'quickstart.yaml'? "
        f"(known in {tmp_path}: quickstart.yaml)"
    )
    (line,) = problems(tmp_path / "nowhere" / "x.yaml")
    assert line.endswith(f"there is no folder '{tmp_path}/nowhere'")
    (line,) = problems(tmp_path)
    assert line == f"{tmp_path} is a folder: name a YAML file in it"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("optim:\n  lr: 1\n  schedule: a: b\n", ":3:14", "mapping values are not allowed here"),
        ("optim:\n  lr: 1\n  lr: 2\n", ":3:3", "key 'lr' is given twice (first in line 2)"),
        ("model: {a: {b: 1, b: 2}}\n", ":1:19", "key 'b' is given twice (first in line 1)"),
        ("name: [\n", ":2:1", "expected the node content, but found '<stream end>'"),
        ("- a\n", "", "expected a mapping of keys, got a list"),
        ("name: !!python/object/apply:os.getcwd []\n", ":1:7", "could not determine a constructor"),
    ],
)
def test_a_broken_file_is_told_with_line_and_column(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    path = written(tmp_path, text)
    (line,) = problems(path)
    assert line.startswith(f"{path}{where}: {what}")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"name: \x01\n"])
def test_a_file_that_is_no_text_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert problems(path)[0].startswith(f"{path}: not YAML: ")


def test_a_key_that_is_no_text_is_told(tmp_path: Path) -> None:
    lines = problems(written(tmp_path, "optim: {lr: 1, on: 2, 3: 4}\n"))
    assert [line.partition(" ")[0] for line in lines] == ["optim.True:", "optim.3:"]
