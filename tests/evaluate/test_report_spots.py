"""The report draws where actions on a screen point into the picture that the agent acted on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest

from agentrl.core.types import Group
from agentrl.envs.browser.observe import Element
from agentrl.envs.browser.pool import BrowserSettings, close_idle, lease
from agentrl.envs.miniwob.env import MiniWob
from agentrl.envs.webapps.env import WebApps
from agentrl.evaluate.report import write_report
from agentrl.rollout.agents import ExpertAgent
from agentrl.rollout.answers import spots_of
from agentrl.text.actions.gui import GuiWords
from agentrl.text.gui import Click, Drag, Hover, Point, Swipe, canonical
from agentrl.track.trajectories import EpisodeRecord, TurnRecord, record, write_episodes
from support.play import renderer, table, worker
from support.runs import Words, episode, groups, records, task

pytestmark = pytest.mark.browser

ACTIONS = (
    canonical(Click(Point(250, 500))),
    json.dumps([canonical(Drag(Point(0, 0), Point(1000, 1000))), "not json"]),
    canonical(Click("7")),
    '{"action":"click","target":["<b>",5]}',
    None,
)
SPOTS = """() => [...document.querySelectorAll('.spot')].map(s => [s.className, s.style.cssText])"""
INSIDE = """() => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  return [...document.querySelectorAll(".shot")].map((shot) => {
    const picture = shot.querySelector("img").getBoundingClientRect();
    return [...shot.querySelectorAll(".spot")].map((spot) => {
      const ring = spot.getBoundingClientRect();
      return [(ring.left + ring.width / 2 - picture.left) / picture.width,
        (ring.top + ring.height / 2 - picture.top) / picture.height];
    });
  });
}"""
"""Where the middle of each ring lies in its picture, as shares."""


def in_a_page(page: Path, script: str) -> object:
    async def seen() -> object:
        page_lease = await lease(BrowserSettings(roots=(page.parents[1],)), viewport=(900, 900))
        try:
            await page_lease.call(page_lease.page.goto(page.as_uri()), "the report")
            return await page_lease.call(page_lease.page.evaluate(script), "the spots")
        finally:
            await page_lease.give_back()
            await close_idle()

    return asyncio.run(seen())


def kept(one: EpisodeRecord, turns: Sequence[TurnRecord], folder: Path) -> Path:
    """The report of a run that has one episode."""
    write_episodes(folder / "run" / "trajectories" / "a.parquet", [replace(one, turns=list(turns))])
    return write_report(folder / "run")


def test_points_of_actions_are_drawn_in_and_nothing_else(tmp_path: Path) -> None:
    words = Words()
    one = episode(words, task(1), seed=4, has_images=True)
    [found] = records(words, groups(words, tasks=1, samples=1, rate=1.0, seed=4), phase="eval",
                      label="final", step=1)  # fmt: skip
    name, image = next(iter(one.pixels.items()))
    turns = [replace(found.turns[0], action=action, images=[name]) for action in ACTIONS]
    turns.append(replace(turns[2], spots=[[700, 100, 0], [710, 120, 1]]))
    page = kept(replace(found, pixels={name: image.png}), turns, tmp_path)
    assert in_a_page(page, SPOTS) == [
        ["spot", "left: 25%; top: 50%;"],
        ["spot", "left: 0%; top: 0%;"],
        ["spot end", "left: 100%; top: 100%;"],
        ["spot", "left: 70%; top: 10%;"],
        ["spot end", "left: 71%; top: 12%;"],
    ]


def test_a_click_on_an_element_is_drawn_where_the_element_is(tmp_path: Path) -> None:
    env = MiniWob(task="click-button", observe=("dom", "screenshot"))
    task = env.tasks("train")[0]
    boxes: list[Element] = []

    async def play() -> Group:
        by = worker(env, at=replace(table(max_context=4000), actions=GuiWords()), in_flight=1)
        expert = ExpertAgent(renderer=renderer(), actions=GuiWords())
        try:
            [group] = await by.collect([task], agent=expert, group_size=1, label="final", step=1)
            await env.reset(task)
            ref = json.loads(env.expert_action())["target"]
            assert env._view is not None
            boxes.extend(element for element in env._view.elements if element.ref == ref)
            return group
        finally:
            await by.close()
            await env.close()

    [played] = asyncio.run(play()).trajectories
    assert len(played.turns[0].spots) == 1
    about = {"phase": "eval", "label": "final", "step": 1, "group": 0, "sibling": 0}
    one = record(played, piece=str, **about)  # type: ignore[arg-type]
    [[[x, y]]] = cast("list[list[list[float]]]", in_a_page(kept(one, one.turns, tmp_path), INSIDE))
    [box] = [element.box for element in boxes]
    assert (x, y) == pytest.approx(
        ((box.x + box.width / 2) / 160, (box.y + box.height / 2) / 210), abs=0.005
    )


@pytest.mark.parametrize("observe", ["dom", "screenshot"])
def test_where_an_action_pointed_is_said_only_beside_pictures(
    observe: Literal["dom", "screenshot"],
) -> None:
    env = WebApps(apps=("mail",), observe=observe, cap=9)

    async def play() -> list[object]:
        try:
            await env.reset(env.tasks("train")[0])
            said = (Hover("1"), Click(Point(250, 500)), Swipe("left"), Click("99"))
            steps = [await env.step(canonical(action)) for action in said]
            return [[tuple(spot) for spot in spots_of(step)] for step in steps]
        finally:
            await env.close()

    element, point, nowhere, wrong = asyncio.run(play())
    assert [nowhere, wrong] == [[], []]
    if observe == "dom":
        assert [point, element] == [[], []]
    else:
        assert point == [(250, 500, False)]
        [(x, y, is_end)] = cast("list[tuple[int, int, bool]]", element)
        assert 0 < 3 * y < 300 > x > 0
        assert not is_end
