"""The applications in a real browser: solved, spoilt, put back, and used by finger and mouse."""

import io
import json

import pytest
from PIL import Image as Picture

from agentrl.core.types import Step, Task
from agentrl.envs.webapps.env import WebApps
from agentrl.envs.webapps.errands import Layout
from agentrl.evaluate.check_env import Status, check_env
from agentrl.text.actions.gui import GuiWords
from support.browsers import Played

pytestmark = pytest.mark.browser
layouts = pytest.mark.parametrize("layout", ["phone", "desktop"])
GUI = GuiWords()


def action(words: str) -> str:
    found = GUI.parse(words)
    assert isinstance(found, str), GUI.why(words)
    return found


def ref(text: str, label: str) -> str:
    """The number of the line that reads `label`."""
    for line in text.splitlines():
        number, _, rest = line.partition("] ")
        if rest.split(" ", 1)[-1].startswith(label) and rest.startswith(
            ("button", "select", "input")
        ):
            return number.removeprefix("[")
    raise AssertionError(f"no {label!r} in\n{text}")


async def said(env: WebApps, words: str) -> Step:
    return await env.step(action(words))


def text_of(step: Step) -> str:
    assert not isinstance(step.observation, str)
    return step.observation.text


async def solved(env: WebApps, task: Task) -> tuple[Step, list[str]]:
    await env.reset(task)
    log: list[str] = []
    while True:
        log.append(env.expert_action())
        step = await env.step(log[-1])
        assert "invalid_action" not in step.info, text_of(step)
        if step.terminated or step.truncated:
            return step, log


@layouts
@pytest.mark.parametrize(("low", "steps", "count"), [(1, 6, 8), (14, 20, 1)])
def test_every_task_is_solved_in_the_steps_that_it_says(
    layout: Layout, low: int, steps: int, count: int, played: Played
) -> None:
    env = WebApps(layout=layout, steps_low=low, steps=steps)

    async def play() -> None:
        for task in env.tasks("test")[:count]:
            step, log = await solved(env, task)
            assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
            assert len(log) - 1 <= int(str(task.data["cost"]))

    played(env, play)


def test_the_solver_may_name_elements_by_what_they_read(played: Played) -> None:
    env = WebApps(targets="text", ends="reached")

    async def play() -> None:
        named = 0
        for task in env.tasks("test")[:4]:
            step, log = await solved(env, task)
            assert step.info["success"] is True
            named += sum('"target":{"text":' in action for action in log)
        assert named >= 4

    played(env, play)


@layouts
def test_saying_done_at_once_is_no_success(layout: Layout, played: Played) -> None:
    env = WebApps(layout=layout)

    async def play() -> None:
        for task in env.tasks("test")[:3]:
            await env.reset(task)
            step = await said(env, "done")
            assert (step.reward, step.terminated, step.info["success"]) == (0.0, True, False)

    played(env, play)


@layouts
def test_what_does_more_than_was_asked_for_spoils_the_episode(
    layout: Layout, played: Played
) -> None:
    env = WebApps(layout=layout, apps=("mail", "files", "settings", "shop"), steps_low=7, steps=9)

    async def play() -> None:
        task = env.tasks("train")[0]
        for app in env.apps:
            await env.reset(task)
            for words in shortcut(task, app, layout):
                await click(env, *words.split(" ", 1))
            assert env.check("reached") is False
            step = await said(env, "done")
            assert step.info["success"] is False
            metrics = step.info["metrics"]
            assert isinstance(metrics, dict)
            assert metrics["collateral"] >= 1

    played(env, play)


def shortcut(task: Task, app: str, layout: Layout) -> list[str]:
    """How to do too much in an application: a verb and a label for each action."""
    data = json.loads(json.dumps(task.data["data"]))
    mail, file = data["mails"]["m1"], data["files"]["f1"]
    menu = "hold" if layout == "phone" else "right"
    return {
        "mail": ["click Mail", f"{menu} {mail['subject']} {mail['from']}", "click Delete all"],
        "files": [
            *("click Files", f"click {file['folder']}", f"{menu} {file['name']}"),
            "click Delete all",
        ],
        "settings": ["click Settings", "click Reset all"],
        "shop": ["click Shop", f"click {data['goods']['g0']['name']}", "click Buy now"],
    }[app]


async def click(env: WebApps, verb: str, label: str) -> None:
    """Act on what reads `label`; the first of these from the home screen."""
    if label in ("Mail", "Files", "Settings", "Shop"):
        await said(env, "home")
    text = text_of(await said(env, "wait"))
    await said(env, f"{verb} {ref(text, label)}")


@layouts
def test_a_snapshot_brings_everything_back_in_another_env_too(
    layout: Layout, played: Played
) -> None:
    env, other = WebApps(layout=layout), WebApps(layout=layout)

    async def play() -> None:
        try:
            for task in env.tasks("test")[:4]:
                await env.reset(task)
                step = await env.step(env.expert_action())
                if step.terminated or task.data["cost"] == 1:
                    continue
                key, snapshot, expert = env.state_key(), env.snapshot(), env.expert_action()
                for words in ("back", "back", "wait"):
                    await said(env, words)
                for player in (env, other):
                    await player.restore(snapshot)
                    assert player.state_key() == key
                    assert player.expert_action() == expert
                assert (await env.step(expert)).observation == (
                    await other.step(expert)
                ).observation
        finally:
            await other.close()

    played(env, play)


def test_a_text_that_is_half_written_and_its_focus_are_part_of_the_state(played: Played) -> None:
    env = WebApps(apps=("mail",))

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        await said(env, "home")
        text = text_of(await said(env, "click 2"))
        text = text_of(await said(env, f"click {ref(text, 'Compose')}"))
        step = await said(env, f'type {ref(text, "Subject")} "half"')
        snapshot, before = env.snapshot(), text_of(step)
        assert 'Subject = "half" (focused)' in before
        await said(env, "back")
        await env.restore(snapshot)
        step = await said(env, 'type " done"')
        assert 'Subject = "half done" (focused)' in text_of(step)

    played(env, play)


def test_a_page_that_was_reloaded_has_lost_nothing(played: Played) -> None:
    env = WebApps()

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        key = env.state_key()
        assert env._lease is not None
        await env._lease.page.reload()
        await said(env, "wait")
        assert env.state_key() == key

    played(env, play)


def test_a_long_press_opens_a_menu_and_a_tap_opens_the_mail(played: Played) -> None:
    env = WebApps(apps=("mail",), steps=2, steps_low=2)

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        await said(env, "home")
        text = text_of(await said(env, "click 2"))
        row = int(ref(text, "Sent")) + 1
        text = text_of(await said(env, f"hold {row}"))
        assert "button Delete all" in text
        assert "button Inbox" not in text  # covered by the menu
        text = text_of(await said(env, "back"))
        assert "button Inbox" in text
        text = text_of(await said(env, f"click {row}"))
        assert "button Reply" in text

    played(env, play)


def test_a_swipe_deletes_one_mail_and_the_next_tap_still_works(played: Played) -> None:
    env = WebApps(apps=("mail",), steps=2, steps_low=2)

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        await said(env, "home")
        text = text_of(await said(env, "click 2"))
        row = int(ref(text, "Sent")) + 1
        label = text.splitlines()[row - 1].split("button ")[1]
        text = text_of(await said(env, f"swipe left {row}"))
        assert label not in text
        text = text_of(await said(env, f"click {ref(text, 'Trash')}"))
        assert label in text

    played(env, play)


def test_what_cannot_be_done_is_reported_and_costs_a_step(played: Played) -> None:
    env = WebApps(layout="desktop", cap=6)

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        key = env.state_key()
        for words, reason in (
            ("click 99", "there is no element 99"),
            ("swipe left", "there is no touch screen"),
            ("goto app:bank", "expected one of app:mail, app:shop"),
            ("goto https://example.com", "expected one of app:mail"),
        ):
            step = await said(env, words)
            assert step.info["invalid_action"] is True
            assert f"not possible: {reason}" in text_of(step)
            assert env.state_key() == key
        step = await env.step("click the button")
        assert step.info["invalid_action"] is True
        step = await said(env, "goto app:shop")
        assert "h1 Shop" in text_of(step)
        assert (step.truncated, step.info["success"]) == (True, False)

    played(env, play)


@layouts
def test_the_solver_finds_its_way_from_elsewhere(layout: Layout, played: Played) -> None:
    env = WebApps(layout=layout, steps_low=4, steps=6, cap=40)

    async def play() -> None:
        for task in env.tasks("dev")[:2]:
            await env.reset(task)
            await env.step(env.expert_action())
            for words in ("home", "goto app:mail", "goto app:settings"):
                await said(env, words)
            text = text_of(await said(env, "wait"))
            step = await said(env, f"click {ref(text, 'Sound')}")
            while not (step.terminated or step.truncated):
                step = await env.step(env.expert_action())
            assert step.info["success"] is True

    played(env, play)


def test_infeasible_ends_without_success_and_answers_count_as_done(played: Played) -> None:
    env = WebApps(steps=1)

    async def play() -> None:
        task = env.tasks("train")[0]
        for words, success in (('answer "finished"', True), ("infeasible", False)):
            await env.reset(task)
            await env.step(env.expert_action())
            step = await said(env, words)
            assert (step.terminated, step.info["success"]) == (True, success)

    played(env, play)


def test_the_episode_can_end_as_soon_as_the_goal_is_reached(played: Played) -> None:
    env = WebApps(steps=1, ends="reached")

    async def play() -> None:
        for task in env.tasks("train")[:3]:
            step, log = await solved(env, task)
            assert len(log) == 1
            assert step.info["success"] is True
        await env.reset(env.tasks("train")[0])
        assert action("done") not in env.legal_actions()

    played(env, play)


def test_only_what_is_in_sight_is_listed_and_the_rest_is_announced(played: Played) -> None:
    env = WebApps(apps=("mail",), distractors=12)

    async def play() -> None:
        await env.reset(env.tasks("train")[0])
        await said(env, "home")
        text = text_of(await said(env, "click 2"))
        assert text.endswith("more below")
        assert "button Compose" not in text
        text = text_of(await said(env, "scroll down"))
        assert "button Compose" in text
        assert "more below" not in text

    played(env, play)


@layouts
def test_pictures_show_the_screen(layout: Layout, played: Played) -> None:
    env = WebApps(layout=layout, observe=("screenshot", "marks"))

    async def play() -> None:
        observation = await env.reset(env.tasks("train")[0])
        sizes = [Picture.open(io.BytesIO(image.png)).size for image in observation.images]
        assert sizes == [(390, 844) if layout == "phone" else (1024, 640)] * 2
        assert observation.images[0] != observation.images[1]
        assert observation.text.startswith("goal ")

    played(env, play)


def test_a_goal_can_be_asked_for_in_parts(played: Played) -> None:
    env = WebApps(steps=20, steps_low=16)

    async def play() -> None:
        task = env.tasks("train")[0]
        parts = [entry["text"] for entry in json.loads(json.dumps(task.data["errands"]))]
        await env.reset(task)
        assert [env.check(part) for part in parts] == [False] * len(parts)
        assert env.check("something else") is None
        while not all(env.check(part) for part in parts):
            await env.step(env.expert_action())
        assert env.check("reached") is True

    played(env, play)


@pytest.mark.slow
@pytest.mark.timeout(900)
@layouts
def test_the_checker_passes(layout: Layout) -> None:
    report = check_env(WebApps(layout=layout, steps=3), tasks=2)
    assert {result.name: result.reason for result in report.of(Status.FAIL)} == {}
