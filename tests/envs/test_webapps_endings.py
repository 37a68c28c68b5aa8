"""Questions and requests that cannot be fulfilled: drawn, and in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import cast

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Observation, Split, Step, Task
from agentrl.envs.webapps.endings import is_same
from agentrl.envs.webapps.env import WebApps
from agentrl.envs.webapps.errands import Data, Layout, apply, facts, matches, packed, unpacked
from agentrl.envs.webapps.tasks import APPS, Asked, Request, Wanted, ask
from agentrl.evaluate.check_env import Status, check_env
from agentrl.text.gui import Answer, Done, Infeasible, Scroll, canonical, read
from support.browsers import Played

layouts = pytest.mark.parametrize("layout", ["phone", "desktop"])
in_a_browser = pytest.mark.browser
PATTERNS = {
    r"What does the mail about (\w+) from (\w+) say\?": "mail",
    r"What does ([\w ]+) cost\?": "price",
    r"How many ([\w ]+) are in the cart\?": "cart",
    r"At what time is (\w+) on (\w+)\?": "event",
    r"(?:Is|What is) ([\w ]+?) (?:on|set to)\?": "setting",
    r"How many files are in (\w+)\?": "folder",
    r"(?:Archive|Delete|Star) the mail about (\w+) from (\w+)\.": "mail",
    r"Put \d ([\w ]+) into the cart\.": "price",
    r"Cancel (\w+) on (\w+)\.": "event",
    r"Set ([\w ]+) to (\w+)\.": "choice",
    r"(?:Copy|Delete) ([\w.]+) in (\w+)\.": "file",
}


def requests(
    layout: Layout, asked: Asked, steps: int, *, low: int = 1, seeds: int = 200
) -> list[Request]:
    wanted = Wanted(tuple(APPS), layout, low, steps, 4, (asked,))
    return [r for seed in range(seeds) if (r := ask(wanted, Random(seed))) is not None]


def after(request: Request) -> Data:
    """What the applications hold when the errands are done."""
    return apply([c for e in request.errands for w in e.ways for c in w.does], request.data)


def read_off(text: str, data: Data) -> list[str]:
    """What somebody who sees everything would answer: nothing, if there is no such thing."""
    [(kind, found)] = [(k, m.groups()) for p, k in PATTERNS.items() if (m := re.fullmatch(p, text))]

    def rows(table: str, **fields: str) -> list[Mapping[str, object]]:
        entries = cast("Mapping[str, Mapping[str, object]]", data[table]).values()
        return [one for one in entries if all(one[name] == to for name, to in fields.items())]

    match kind:
        case "mail":
            letters = rows("mails", subject=found[0], box="inbox", **{"from": found[1]})
            return [str(one["text"]) for one in letters]
        case "price":
            return [format(one["price"], ".2f") for one in rows("goods", name=found[0])]
        case "cart":
            keys = [
                key for key, one in data["goods"].items() if one in rows("goods", name=found[0])
            ]
            return [str(data["cart"][key]) for key in keys]
        case "event":
            return [str(one["hour"]) for one in rows("events", title=found[0], day=found[1])]
        case "setting":
            value = data["settings"][found[0]]
            return [str(value) if isinstance(value, str) else "yes" if value else "no"]
        case "folder":
            return [str(len(rows("files", folder=found[0])))]
        case "file":
            return [str(one["name"]) for one in rows("files", name=found[0], folder=found[1])]
        case _:
            return [choice for choice in CHOICES[found[0]] if choice == found[1]]


CHOICES = {
    "text size": ("small", "medium", "large"),
    "volume": ("0", "25", "50", "75", "100"),
    "ringtone": ("bell", "birds", "piano", "waves"),
    "language": ("English", "French", "German", "Spanish"),
}


@layouts
def test_an_answer_is_what_can_be_read_off_when_the_errands_are_done(layout: Layout) -> None:
    found = requests(layout, "question", 12)
    for request in found:
        *errands, last = request.errands
        assert last.ends == "answer"
        assert read_off(last.text, after(request)) == [last.says]
        assert all(errand.ends == "done" for errand in errands)
    starts = {re.sub(r" .*", "", request.errands[-1].text) for request in found}
    assert starts == {"What", "How", "At", "Is"}
    assert sum(len(request.errands) > 1 for request in found) >= 50


@layouts
def test_what_is_impossible_is_nowhere_to_be_found(layout: Layout) -> None:
    found = requests(layout, "impossible", 12)
    for request in found:
        last = request.errands[-1]
        assert (last.ends, last.says) == ("infeasible", None)
        assert read_off(last.text, after(request)) == []
        assert read_off(last.text, request.data) == []
    starts = {re.sub(r" .*", "", request.errands[-1].text) for request in found}
    assert starts >= {"Archive", "Delete", "Star", "Put", "Cancel", "Set", "Copy"}


@layouts
@pytest.mark.parametrize("asked", ["question", "impossible"])
@pytest.mark.parametrize(("low", "steps"), [(1, 1), (2, 4), (14, 20)])
def test_they_take_as_many_steps_as_were_asked_for(
    layout: Layout, asked: Asked, low: int, steps: int
) -> None:
    found = requests(layout, asked, steps, low=low)
    assert len(found) >= 20
    assert all(low <= request.cost <= steps for request in found)
    assert {request.cost for request in found} >= {steps}
    for request in found:
        first, last = request.errands[0], request.errands[-1]
        at = last.steps - request.cost if len(request.errands) == 1 else 0
        assert matches(first.ways[at].at, request.stack[-1])


@layouts
@pytest.mark.parametrize("asked", ["question", "impossible"])
def test_they_survive_json_and_splits_share_none(layout: Layout, asked: Asked) -> None:
    for request in requests(layout, asked, 8):
        bare = tuple(errand._replace(touches=frozenset()) for errand in request.errands)
        assert unpacked(json.loads(json.dumps(packed(request.errands)))) == bare
    env = WebApps(layout=layout, asks=(asked,), train_tasks=40, dev_tasks=20, test_tasks=20)
    splits: tuple[Split, ...] = ("train", "dev", "test")
    starts = [
        json.dumps([task.instruction, task.data["data"], task.data["stack"]])
        for split in splits
        for task in env.tasks(split)
    ]
    assert len(set(starts)) == len(starts) == 80


def test_of_several_kinds_each_is_drawn() -> None:
    env = WebApps(asks=("errand", "question", "impossible"), train_tasks=60)
    ends = [unpacked(task.data["errands"])[-1].ends for task in env.tasks("train")]
    assert {ends.count(end) > 10 for end in ("done", "answer", "infeasible")} == {True}
    with pytest.raises(ConfigError, match=r"env\.asks: expected some of errand, question, imposs"):
        WebApps(asks=())


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [
        ("Soon", "soon", True),
        (" it  is soon. ", "soon", False),
        ("soon.", "soon", True),
        ("3.5", "3.50", True),
        ("3", "3.00", True),
        ("03", "3", True),
        ("3.05", "3.50", False),
        ("9:00", "9:00", True),
        ("19:00", "9:00", False),
        ("nan", "nan", True),
        ("", "soon", False),
        ("٣", "3", False),
    ],
)
def test_case_spaces_and_zeros_do_not_matter_in_an_answer(
    said: str, wanted: str, same: bool
) -> None:
    assert is_same(said, wanted) is same


async def solved(env: WebApps, task: Task) -> tuple[Step, list[str], str]:
    """The last step, the actions, and what was shown before the last of them."""
    shown, log = await env.reset(task), list[str]()
    while True:
        log.append(env.expert_action())
        assert log[-1] in env.legal_actions() or read(log[-1]).__class__ is Scroll
        step = await env.step(log[-1])
        assert "invalid_action" not in step.info
        if step.terminated or step.truncated:
            return step, log, shown.text
        assert isinstance(step.observation, Observation)
        shown = step.observation


@in_a_browser
@layouts
@pytest.mark.parametrize("asked", ["question", "impossible"])
@pytest.mark.parametrize(("low", "steps", "count"), [(1, 5, 3), (14, 20, 1)])
def test_the_solver_looks_and_then_says_it(
    layout: Layout, asked: Asked, low: int, steps: int, count: int, played: Played
) -> None:
    env = WebApps(layout=layout, asks=(asked,), steps_low=low, steps=steps)

    async def play() -> None:
        for task in env.tasks("test")[:count]:
            step, log, shown = await solved(env, task)
            assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
            moves = [action for action in log if not isinstance(read(action), Scroll)]
            assert len(moves) - 1 <= int(str(task.data["cost"]))
            last = read(log[-1])
            assert isinstance(last, Answer if asked == "question" else Infeasible)
            if isinstance(last, Answer) and last.message not in ("yes", "no"):
                assert last.message in shown

    played(env, play)


def tasks_with(env: WebApps, *, errands: int, count: int) -> Sequence[Task]:
    """Some tasks with so many errands, the last one included."""
    every = env.tasks("train")[:200]
    found = [task for task in every if len(unpacked(task.data["errands"])) == errands]
    return found[:count]


@in_a_browser
@pytest.mark.parametrize("asked", ["errand", "question", "impossible"])
def test_any_other_last_word_is_no_success(asked: Asked, played: Played) -> None:
    env = WebApps(asks=(asked,), steps=4, layout="desktop")
    wrong = {
        "errand": (Infeasible(),),
        "question": (Done(), Infeasible(), Answer("nothing at all")),
        "impossible": (Done(), Answer("infeasible")),
    }

    async def play() -> None:
        [task] = tasks_with(env, errands=1, count=1)
        for word in wrong[asked]:
            await env.reset(task)
            while not isinstance(read(env.expert_action()), Done | Answer | Infeasible):
                await env.step(env.expert_action())
            step = await env.step(canonical(word))
            assert (step.reward, step.terminated, step.info["success"]) == (0.0, True, False)

    played(env, play)


@in_a_browser
@pytest.mark.parametrize("asked", ["question", "impossible"])
def test_the_right_word_is_not_enough_while_an_errand_is_open(asked: Asked, played: Played) -> None:
    env = WebApps(asks=(asked,), steps=8, layout="desktop", ends="reached")

    async def play() -> None:
        [task] = tasks_with(env, errands=2, count=1)
        errand, last = unpacked(task.data["errands"])
        word = Infeasible() if last.says is None else Answer(last.says)
        await env.reset(task)
        assert (env.check("reached"), env.check(last.text)) == (None, None)
        assert env.check(errand.text) is False
        step = await env.step(canonical(word))
        assert (step.terminated, step.info["success"]) == (True, False)
        await env.reset(task)
        while not env.check(errand.text):
            step = await env.step(env.expert_action())
            assert not step.terminated
        assert env._now is not None
        assert facts(env._now.data) == env._now.wanted
        step = await env.step(canonical(word))
        assert (step.terminated, step.info["success"]) == (True, True)

    played(env, play)


@in_a_browser
def test_a_long_list_is_looked_through_before_something_is_said_to_be_missing(
    played: Played,
) -> None:
    env = WebApps(apps=("mail",), asks=("impossible",), distractors=12, steps=2)

    async def play() -> None:
        step, log, _ = await solved(env, env.tasks("train")[0])
        assert step.info["success"] is True
        assert any(isinstance(read(action), Scroll) for action in log)

    played(env, play)


@in_a_browser
@pytest.mark.slow
@pytest.mark.timeout(900)
@layouts
def test_the_checker_passes(layout: Layout) -> None:
    env = WebApps(layout=layout, steps=3, asks=("question", "impossible"))
    report = check_env(env, tasks=2)
    assert {result.name: result.reason for result in report.of(Status.FAIL)} == {}
