"""The applications are used in other projects' spellings, by coordinates alone."""

import json
from dataclasses import replace

import pytest

from agentrl.core.types import Task
from agentrl.envs.webapps.env import WebApps
from agentrl.envs.webapps.errands import Layout
from agentrl.text.actions.android_world import AndroidWorldJson
from agentrl.text.actions.browsergym import BrowserGymCalls
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.actions.ui_tars import UiTarsReply
from agentrl.text.gui import Click, Done, LongPress, Point, RightClick, canonical, read
from support.browsers import Played

pytestmark = pytest.mark.browser
GESTURES = ("click", "hold", "right")


def by_gestures(env: WebApps, count: int) -> list[Task]:
    """Tasks in which nothing is typed, chosen or swiped."""

    def fits(task: Task) -> bool:
        errands = json.loads(json.dumps(task.data["errands"]))
        return all(way[1] in GESTURES for errand in errands for way in errand["ways"])

    return [task for task in env.tasks("train")[:80] if fits(task)][:count]


def pointed(env: WebApps) -> str:
    """What the expert does now, on the middle of its element instead of on its number."""
    action = read(env.expert_action())
    if isinstance(action, Done):
        return canonical(action)
    assert isinstance(action, Click | LongPress | RightClick)
    assert env._view is not None
    [box] = [element.box for element in env._view.elements if element.ref == action.target]
    x = 1000 * (box.x + box.width / 2) / env._view.width
    y = 1000 * (box.y + box.height / 2) / env._view.height
    return canonical(replace(action, target=Point(round(x), round(y))))


@pytest.mark.parametrize(
    ("layout", "dialect"),
    [
        ("phone", UiTarsReply(width=390, height=844)),
        ("phone", UiTarsReply(width=390, height=844, version="1")),
        ("phone", AndroidWorldJson(width=390, height=844)),
        ("desktop", BrowserGymCalls(width=1024, height=640)),
    ],
    ids=["ui_tars", "ui_tars 1", "android_world", "browsergym"],
)
def test_tasks_are_solved_in_a_dialect(layout: Layout, dialect: GuiFormat, played: Played) -> None:
    env = WebApps(layout=layout, apps=("mail", "files", "settings"), steps_low=3, steps=4)

    async def play() -> None:
        tasks = by_gestures(env, 4)
        assert len(tasks) == 4
        for task in tasks:
            await env.reset(task)
            while True:
                action = dialect.parse(dialect.write(pointed(env)))
                assert action is not None
                step = await env.step(action)
                if step.terminated or step.truncated:
                    break
            assert step.info["success"] is True

    played(env, play)
