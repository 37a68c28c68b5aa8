"""The report draws where actions on a screen point into the picture that the agent acted on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.envs.browser.pool import BrowserSettings, close_idle, lease
from agentrl.evaluate.report import write_report
from agentrl.text.gui import Click, Drag, Point, canonical
from agentrl.track.trajectories import write_episodes
from support.runs import Words, episode, groups, records, task

pytestmark = pytest.mark.browser

ACTIONS = (
    canonical(Click(Point(250, 500))),
    json.dumps([canonical(Drag(Point(0, 0), Point(1000, 1000))), "not json"]),
    canonical(Click("7")),
    '{"action":"click","target":["<b>",5]}',
    None,
)


def test_points_of_actions_are_drawn_in_and_nothing_else(tmp_path: Path) -> None:
    words = Words()
    one = episode(words, task(1), seed=4, has_images=True)
    [kept] = records(words, groups(words, tasks=1, samples=1, rate=1.0, seed=4), phase="eval",
                     label="final", step=1)  # fmt: skip
    name, image = next(iter(one.pixels.items()))
    turns = [replace(kept.turns[0], action=action, images=[name]) for action in ACTIONS]
    kept = replace(kept, turns=turns, pixels={name: image.png})
    write_episodes(tmp_path / "run" / "trajectories" / "a.parquet", [kept])
    page = write_report(tmp_path / "run")

    async def seen() -> object:
        page_lease = await lease(BrowserSettings(roots=(tmp_path,)), viewport=(900, 900))
        try:
            await page_lease.call(page_lease.page.goto(page.as_uri()), "the report")
            script = (
                "[...document.querySelectorAll('.spot')].map(s => [s.className, s.style.cssText])"
            )
            return await page_lease.call(page_lease.page.evaluate(script), "the spots")
        finally:
            await page_lease.give_back()
            await close_idle()

    assert asyncio.run(seen()) == [
        ["spot", "left: 25%; top: 50%;"],
        ["spot", "left: 0%; top: 0%;"],
        ["spot end", "left: 100%; top: 100%;"],
    ]
