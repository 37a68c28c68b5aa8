"""Names for parts: how they are given, found, and what is said when they are not."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.core.errors import AgentRLError, ConfigError, UnknownNameError
from agentrl.core.registry import FOLDERS, find, names, register, slot_of
from agentrl.text.context import Window


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """A filter that keeps no group."""


@pytest.fixture(autouse=True)
def own_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers as a filter is forgotten after it."""
    monkeypatch.setitem(registry._parts, "filter", dict(registry._parts["filter"]))


def test_a_registered_class_is_found_by_its_name_and_back() -> None:
    assert register("filter", "nothing")(Nothing) is Nothing
    assert find("filter", "nothing") is Nothing
    assert "nothing" in names("filter")
    assert slot_of(Nothing) == ("filter", "nothing")


def test_registering_the_same_class_again_is_harmless() -> None:
    register("filter", "nothing")(Nothing)
    assert register("filter", "nothing")(Nothing) is Nothing


def test_a_name_belongs_to_one_class() -> None:
    register("filter", "nothing")(Nothing)
    with pytest.raises(ConfigError, match=r"^filter 'nothing' is registered twice: "):
        register("filter", "nothing")(Window)


def test_an_unknown_slot_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^no slot is called 'advantag'; did you mean 'advantage'"
    ):
        register("advantag", "x")


def test_an_unknown_name_names_the_nearest_and_all_others() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find("advantage", "gpro")
    assert str(caught.value) == (
        "advantage: no advantage is called 'gpro'; did you mean 'grpo'? "
        f"(known: {', '.join(names('advantage'))})"
    )
    assert isinstance(caught.value, AgentRLError)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, KeyError)


def test_a_class_that_nobody_registered_has_no_slot() -> None:
    assert slot_of(Nothing) is None


@pytest.mark.parametrize("slot", FOLDERS)
def test_every_slot_can_be_walked_and_its_names_are_sorted(slot: str) -> None:
    found = names(slot)
    assert found == sorted(found)
    assert all(slot_of(find(slot, name)) is not None for name in found)


def test_parts_are_found_in_folders_single_modules_and_env_folders() -> None:
    assert find("advantage", "rloo").__module__ == "agentrl.algo.advantages.rloo"
    assert find("context", "window").__module__ == "agentrl.text.context"
    assert find("env", "babyai").__module__ == "agentrl.envs.babyai.env"


def test_plugins_are_loaded_only_when_a_name_is_not_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "agentrl_test_plugin.py").write_text(
        "from dataclasses import dataclass\n"
        "from agentrl.core.registry import register\n"
        "@register('filter', 'from_a_plugin')\n"
        "@dataclass\n"
        "class Filter:\n"
        "    threshold: float = 0.5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = []

    def installed(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint(name="test", value="agentrl_test_plugin", group=group)]

    monkeypatch.setattr(registry, "entry_points", installed)
    find("context", "window")
    assert asked == []
    assert find("filter", "from_a_plugin").__module__ == "agentrl_test_plugin"
    assert asked == ["agentrl.plugins"]
