"""MiniWoB++: every task begins, episodes depend on seed and actions alone, experts solve theirs."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from random import Random

import pytest
from PIL import Image as Picture

from agentrl.core.config import load_alone
from agentrl.core.errors import ConfigError, MissingExtraError
from agentrl.core.types import Image, Task
from agentrl.envs.miniwob import pages
from agentrl.envs.miniwob.env import MiniWob
from agentrl.envs.miniwob.oracles import ORACLES
from agentrl.envs.miniwob.reloads import RELOADED, WIDE
from agentrl.evaluate.check_env import Status, check_env
from agentrl.rollout.answers import as_observation

SOME = (
    "click-button",
    "click-checkboxes",
    "click-tab-2",
    "choose-date",
    "email-inbox",
    "enter-text",
    "social-media",
    "use-autocomplete",
    "click-shape",
    "simon-says",
)
"""Tasks of all sorts, some of which are loaded anew for each episode."""

SEEDS = 100
PARTS = 10
"""In which all tasks with all seeds are played."""

in_a_browser = pytest.mark.browser


async def episode(
    env: MiniWob, name: str, seed: int, turns: int = 3
) -> tuple[list[str], list[str], list[Image]]:
    """State keys, texts and pictures of a random player's first turns."""
    rng = Random(seed)
    shown = await env.reset(Task(id="t", seed=seed, data={"task": name}))
    keys, texts, pictures = [env.state_key()], [shown.text], list(shown.images)
    for _ in range(turns):
        step = await env.step(rng.choice(env.legal_actions()))
        seen = as_observation(step.observation)
        keys.append(env.state_key())
        texts.append(f"{seen.text} {step.reward}")
        pictures += seen.images
        if step.terminated or step.truncated:
            break
    return keys, texts, pictures


async def difference(name: str, seeds: Sequence[int], *, turns: int) -> list[int]:
    """The seeds whose episode differs between a page that saw the ones before, and one that was
    loaded for it alone (for the last seed: a new page in a new context)."""
    used, fresh = MiniWob(task=name), MiniWob(task=name)
    first = {seed: await episode(used, name, seed, turns) for seed in seeds}
    found = []
    for seed in reversed(seeds):
        fresh._loaded = ""
        found += [seed] if await episode(fresh, name, seed, turns) != first[seed] else []
    await fresh.close()
    await used.close()
    return found


async def differences(
    name: str, one: MiniWob, other: MiniWob, seeds: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The seeds whose texts and states, and those whose pictures, differ between two pages with
    another past: one plays the seeds upwards, the other downwards. Every tenth seed is played for
    three random turns in both, and the other page is loaded anew before it."""
    turns = {seed: 3 if seed % 10 == 9 else 0 for seed in seeds}
    up = {seed: await episode(one, name, seed, turns[seed]) for seed in seeds}
    told, seen = [], []
    for seed in reversed(seeds):
        if turns[seed]:
            other._loaded = ""
        keys, texts, pictures = await episode(other, name, seed, turns[seed])
        told += [seed] if (keys, texts) != up[seed][:2] else []
        seen += [seed] if pictures != up[seed][2] else []
    return told, seen


def test_pages_are_found_where_the_package_really_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    spec = ModuleSpec("miniwob", None)
    spec.submodule_search_locations = [str(link / "miniwob")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    pages.pages.cache_clear()
    try:
        assert pages.pages() == real.resolve() / "miniwob" / "html"
    finally:
        pages.pages.cache_clear()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pages.pages.cache_clear()
    pages.task_names.cache_clear()
    with pytest.raises(MissingExtraError, match=r"miniwob is not installed.*agentrl\[gui\]"):
        MiniWob().tasks("train")
    pages.pages.cache_clear()


def test_an_expert_is_an_ability_only_where_all_tasks_have_one() -> None:
    assert callable(MiniWob(task="click-test").expert_action)
    assert MiniWob(task=("click-test", "stock-market")).expert_action is None
    assert len(ORACLES) >= 25


@in_a_browser
def test_a_misspelt_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no task 'click-buton'; did you mean 'click-button'"):
        load_alone("miniwob", ["task=click-buton"]).env.tasks("train")


@in_a_browser
def test_every_name_in_the_tables_is_a_task_of_the_package() -> None:
    known = set(pages.task_names())
    assert len(known) == 130
    assert known >= RELOADED
    assert known >= set(ORACLES)


@in_a_browser
def test_what_is_asked_for_is_shown(loop: asyncio.Runner) -> None:
    async def script() -> None:
        env = MiniWob(task="click-button", observe=("dom", "axtree", "screenshot", "marks"))
        shown = await env.reset(env.tasks("train")[0])
        assert shown.text.startswith('task Click on the "No" button.\n[1] button submit\n')
        assert '- button "submit" [1]' in shown.text
        sizes = [Picture.open(io.BytesIO(image.png)).size for image in shown.images]
        assert sizes == [(160, 210), (160, 210)]
        assert shown.images[0] != shown.images[1]
        await env.close()

    loop.run(script())


@in_a_browser
def test_rewards_are_the_tasks_own_and_limits_truncate(loop: asyncio.Runner) -> None:
    async def script() -> None:
        env = MiniWob(task="click-button", cap=2)
        task = env.tasks("train")[0]
        await env.reset(task)
        step = await env.step(env.expert_action())
        assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
        with pytest.raises(RuntimeError, match="the episode is over"):
            await env.step('{"action":"wait"}')
        await env.reset(task)
        wrong = await env.step('{"action":"click","target":"1"}')
        assert (wrong.reward, wrong.terminated, wrong.info["success"]) == (-1.0, True, False)
        await env.reset(task)
        for action in ('{"action":"click","target":"99"}', "click 1"):
            step = await env.step(action)
            assert step.info["invalid_action"]
            assert as_observation(step.observation).text.startswith("not possible: ")
        assert (step.truncated, step.terminated, step.info["success"]) == (True, False, False)
        await env.reset(task)
        given_up = await env.step('{"action":"infeasible"}')
        assert (given_up.reward, given_up.info["success"]) == (-1.0, False)
        await env.close()

    loop.run(script())


@in_a_browser
def test_elements_may_be_named_by_what_they_read(loop: asyncio.Runner) -> None:
    async def script() -> None:
        env = MiniWob(task="enter-text", targets="text", cap=4)
        task = env.tasks("train")[0]
        await env.reset(task)
        assert env.expert_action() == '{"action":"type","target":"1","text":"Tora"}'
        await env.step(env.expert_action())
        click = '{"action":"click","target":{"text":"Submit"}}'
        assert env.expert_action() == click
        assert click in env.legal_actions()
        wrong = await env.step(click.replace("Submit", "Submitt"))
        assert wrong.info["invalid_action"]
        complaint = as_observation(wrong.observation).text
        assert "nothing reads 'Submitt'; did you mean 'Submit'?" in complaint
        step = await env.step(click)
        assert (step.reward, step.info["success"]) == (1.0, True)
        await env.close()

    loop.run(script())


@in_a_browser
def test_a_page_that_left_ends_the_episode_and_is_opened_again(loop: asyncio.Runner) -> None:
    async def script() -> None:
        env = MiniWob(task="click-button")
        task = env.tasks("train")[0]
        first = await env.reset(task)
        assert env._lease is not None
        await env._lease.call(env._lease.page.goto("about:blank"), "leaving")
        step = await env.step('{"action":"wait"}')
        assert (step.reward, step.terminated, step.info["success"]) == (0.0, True, False)
        assert step.info["metrics"]["navigations"] == 1.0  # type: ignore[index]
        assert await env.reset(task) == first
        await env.close()

    loop.run(script())


@in_a_browser
@pytest.mark.parametrize("name", SOME)
def test_the_same_seed_is_the_same_episode_in_a_used_page(loop: asyncio.Runner, name: str) -> None:
    assert loop.run(difference(name, range(3), turns=3)) == []


@in_a_browser
@pytest.mark.parametrize(
    ("every", "seeds"), [(3, 1), pytest.param(1, 5, marks=[pytest.mark.slow])], ids=["some", "all"]
)
def test_experts_solve_their_tasks(loop: asyncio.Runner, every: int, seeds: int) -> None:
    async def play(names: tuple[str, ...]) -> list[str]:
        env, failed = MiniWob(task=names), []
        for task in env.tasks("dev")[: seeds * len(names)]:
            await env.reset(task)
            for _ in range(env.cap):
                step = await env.step(env.expert_action())
                if step.terminated or step.truncated:
                    break
            failed += [] if step.info.get("success") else [task.id]
        await env.close()
        return failed

    async def script() -> list[str]:
        names = tuple(ORACLES)[::every]
        found = await asyncio.gather(*(play(names[part::4]) for part in range(4)))
        return [one for failed in found for one in failed]

    assert loop.run(script()) == []


@in_a_browser
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_checker_passes_it() -> None:
    report = check_env(MiniWob(task="click-button"), tasks=3)
    assert [result.reason for result in report.of(Status.FAIL)] == []
    assert len(report.of(Status.PASS)) >= 30


@in_a_browser
def test_a_used_page_is_painted_like_a_new_one(loop: asyncio.Runner) -> None:
    async def script() -> tuple[list[int], list[int]]:
        one, other = (MiniWob(observe=("dom", "screenshot")) for _ in range(2))
        found = await differences("click-tab-2-medium", one, other, range(5, 10))
        await one.close()
        await other.close()
        return found

    assert loop.run(script()) == ([], [])


@in_a_browser
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_task_is_the_same_again(loop: asyncio.Runner, part: int) -> None:
    names = pages.task_names()[part::PARTS]

    async def script() -> dict[str, tuple[list[int], list[int]]]:
        one, other = (MiniWob(observe=("dom", "screenshot")) for _ in range(2))
        found = {name: await differences(name, one, other, range(SEEDS)) for name in names}
        await one.close()
        await other.close()
        return found

    found = loop.run(script())
    assert {name: told for name, (told, _) in found.items() if told} == {}
    pictures = {name: seen for name, (_, seen) in found.items() if seen}
    assert sum(map(len, pictures.values())) <= 0.01 * len(names) * SEEDS, pictures


@in_a_browser
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_task_misses_the_margin_of_the_viewport(
    loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def starts(wide: frozenset[str]) -> dict[str, tuple[list[str], list[str], list[Image]]]:
        monkeypatch.setattr("agentrl.envs.miniwob.env.WIDE", wide)
        env = MiniWob(points=True)
        found = {name: await episode(env, name, 0) for name in pages.task_names()}
        await env.close()
        return found

    async def script() -> set[str]:
        slim, wide = await starts(frozenset()), await starts(frozenset(pages.task_names()))
        return {name for name in slim if slim[name] != wide[name]}

    assert loop.run(script()) == WIDE


def test_settings_come_from_the_command_line() -> None:
    env = load_alone(
        "miniwob", ["task=[click-test,click-link]", "observe=[dom,marks]", "browser.timeout_s=3"]
    ).env
    assert isinstance(env, MiniWob)
    assert env == replace(
        MiniWob(),
        task=("click-test", "click-link"),
        observe=("dom", "marks"),
        browser=replace(env.browser, timeout_s=3.0),
    )
