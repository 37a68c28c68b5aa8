"""Requests to the applications, their solutions and what counts as done, without a browser."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import cast

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Split
from agentrl.envs.webapps import calendar, files, settings, shop
from agentrl.envs.webapps.env import INDEX, WebApps
from agentrl.envs.webapps.errands import (
    Change,
    Data,
    Layout,
    apply,
    facts,
    holds,
    matches,
    packed,
    unpacked,
)
from agentrl.envs.webapps.tasks import APPS, Request, Wanted, ask, in_hindsight

EVERY = tuple(APPS)
FLAGS = ("mute", "backup")
layouts = pytest.mark.parametrize("layout", ["phone", "desktop"])


def requests(layout: Layout, steps: int, *, low: int = 1, distractors: int = 4) -> list[Request]:
    wanted = Wanted(EVERY, layout, low, steps, distractors)
    return [r for seed in range(200) if (r := ask(wanted, Random(seed))) is not None]


def after(request: Request, *, without: int | None = None) -> Data:
    changes = [
        change
        for at, errand in enumerate(request.errands)
        for way in errand.ways
        for change in way.does
        if at != without
    ]
    return apply(changes, request.data)


@layouts
@pytest.mark.parametrize(("low", "steps"), [(1, 1), (2, 4), (6, 6), (14, 20)])
def test_a_request_takes_as_many_steps_as_were_asked_for(
    layout: Layout, low: int, steps: int
) -> None:
    found = requests(layout, steps, low=low)
    assert len(found) >= 20
    assert all(low <= request.cost <= steps for request in found)
    assert {request.cost for request in found} >= {steps}
    assert max(len(request.errands) for request in found) >= (2 if steps > 6 else 1)


@layouts
def test_nothing_less_than_all_errands_is_success(layout: Layout) -> None:
    for request in requests(layout, 20):
        wanted = facts(after(request))
        assert facts(request.data) != wanted
        for at in range(len(request.errands)):
            assert facts(after(request, without=at)) != wanted
            assert not request.errands[at].is_done(request.data, request.data)
            assert request.errands[at].is_done(after(request), request.data)


@layouts
def test_what_does_more_than_was_asked_for_is_no_success(layout: Layout) -> None:
    tried: Counter[str] = Counter()
    for request in requests(layout, 12):
        for name, spoilt in shortcuts(after(request)).items():
            tried[name] += 1
            assert facts(spoilt) != facts(after(request)), (name, request.errands)
    assert tried.keys() == {"mails", "events", "files", "settings", "orders"}
    assert min(tried.values()) >= 20


def shortcuts(data: Data) -> dict[str, Data]:
    """What `Delete all`, `Reset all` and `Buy now` would make of it."""
    found: dict[str, Data] = {}
    mails = cast("Mapping[str, Mapping[str, str]]", data["mails"])
    inbox = [key for key, mail in mails.items() if mail["box"] == "inbox"]
    if inbox:
        found["mails"] = apply([Change("mails", key, {"box": "trash"}) for key in inbox], data)
    for table in ("events", "files"):
        if data[table]:
            found[table] = apply([Change(table, key, None) for key in data[table]], data)
    if any(value is True for value in data["settings"].values()):
        reset = [Change("settings", k, False) for k, v in data["settings"].items() if v is True]
        found["settings"] = apply(reset, data)
    order = {"items": "1 honey", "shipping": "standard"}
    found["orders"] = apply([Change("orders", None, order)], data)
    return found


@layouts
def test_every_kind_of_errand_is_asked_for(layout: Layout) -> None:
    verbs = {
        errand.text.split()[0] for request in requests(layout, 20) for errand in request.errands
    }
    assert verbs == {
        *("Star", "Unstar", "Archive", "Delete", "Answer", "Forward", "Write", "Put", "Take"),
        *("Order", "Plan", "Move", "Cancel", "Turn", "Set", "Rename", "Copy"),
    }


@layouts
def test_one_stands_where_the_first_step_is_due(layout: Layout) -> None:
    skipped = 0
    for request in requests(layout, 3):
        [errand, *_] = request.errands
        at = len(errand.ways) - request.cost if len(request.errands) == 1 else 0
        skipped += at > 0
        assert request.stack[0] == {"app": "home", "screen": "apps"}
        assert matches(errand.ways[at].at, request.stack[-1])
    assert skipped >= 20


@layouts
def test_errands_survive_json(layout: Layout) -> None:
    for request in requests(layout, 12):
        bare = tuple(errand._replace(touches=frozenset()) for errand in request.errands)
        assert unpacked(json.loads(json.dumps(packed(request.errands)))) == bare


def test_phones_are_used_by_gestures_and_desktops_are_not() -> None:
    done = {
        layout: {way.do for r in requests(layout, 12) for e in r.errands for way in e.ways}
        for layout in ("phone", "desktop")
    }
    assert done["phone"] == {"click", "type", "select", "hold", "swipe"}
    assert done["desktop"] == {"click", "type", "select", "right"}


def test_where_somebody_looked_and_ids_of_new_things_do_not_matter() -> None:
    [request, *_] = requests("phone", 6)
    read = apply([Change("mails", "m1", {"read": True})], request.data)
    assert facts(read) == facts(request.data)
    once = apply([Change("events", None, {"title": "a", "day": "mon", "hour": "8:00"})], read)
    renamed = {**once, "events": {f"x{k}": v for k, v in once["events"].items()}}
    assert facts(renamed) == facts(once) != facts(read)


def test_every_other_change_matters() -> None:
    [request, *_] = requests("phone", 6)
    for table, entries in request.data.items():
        for key, entry in entries.items():
            if table in ("goods", "people"):
                continue
            fields = entry if isinstance(entry, Mapping) else {}
            changes = [Change(table, key, {name: "other"}) for name in fields if name != "read"]
            for change in changes or [Change(table, key, "other")]:
                assert facts(apply([change], request.data)) != facts(request.data)
                assert holds(change, apply([change], request.data), request.data)


def test_the_same_new_thing_must_be_made_once_more() -> None:
    data: Data = {"orders": {"n1": {"items": "1 honey"}}}
    change = Change("orders", None, {"items": "1 honey"})
    assert not holds(change, data, data)
    assert holds(change, apply([change], data), data)
    assert holds(Change("orders", "n1", None), {"orders": {}}, data)


def test_tasks_share_no_start_between_splits_and_survive_json() -> None:
    env = WebApps(train_tasks=60, dev_tasks=30, test_tasks=30)
    seen: set[str] = set()
    splits: tuple[Split, ...] = ("train", "dev", "test")
    for split in splits:
        for task in env.tasks(split):
            start = json.dumps([task.instruction, task.data["data"], task.data["stack"]])
            assert start not in seen
            seen.add(start)
            assert json.loads(json.dumps(task.data)) == task.data
    assert len(seen) == 120


def test_a_world_holds_only_the_applications_that_there_are() -> None:
    task = WebApps(apps=("files", "mail")).tasks("train")[0]
    data = cast("Mapping[str, object]", task.data["data"])
    assert set(data) == {"people", "mails", "files"}


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="each once"):
        WebApps(apps=("mail", "mail"))
    with pytest.raises(ConfigError, match=r"env\.apps: expected some of mail"):
        WebApps(apps=())
    with pytest.raises(ConfigError, match=r"steps_low: must be at most env\.steps=2, got 3"):
        WebApps(steps_low=3, steps=2)
    with pytest.raises(ConfigError, match="at least one aspect"):
        WebApps(observe=())


def test_pages_and_tasks_agree_on_names() -> None:
    def listed(page: str, name: str) -> list[str]:
        found = re.search(
            rf"const {name} = \[(.*?)\];", (INDEX.parent / page).read_text(), re.DOTALL
        )
        assert found is not None
        return re.findall(r'"([^"]+)"', found[1])

    assert listed("calendar.js", "DAYS") == list(calendar.DAYS)
    assert listed("files.js", "FOLDERS") == list(files.FOLDERS)
    assert f"const SHOWN = {shop.SHOWN};" in (INDEX.parent / "shop.js").read_text()
    text = (INDEX.parent / "settings.js").read_text()
    for page, names in settings.PAGES.items():
        assert f"{page}: {json.dumps(names)}," in text
    for name, choices in settings.CHOICES.items():
        assert name == "name" or json.dumps(choices) in text


def test_the_pages_ask_nobody_for_anything() -> None:
    for page in sorted(INDEX.parent.iterdir()):
        text = page.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), page.name
        assert not re.search(r"\b(fetch|XMLHttpRequest|import|localStorage|Date)\b", text), (
            page.name
        )


def test_what_was_changed_of_the_settings_is_a_request_in_hindsight() -> None:
    env = WebApps(apps=("settings",), train_tasks=20)
    for task in env.tasks("train"):
        first = cast("Data", task.data["data"])
        wifi, volume = not first["settings"]["wifi"], first["settings"]["volume"]
        other = next(v for v in settings.CHOICES["volume"] if v != volume)
        does = [Change("settings", "wifi", wifi), Change("settings", "volume", other)]
        now = apply(does, first)
        made = in_hindsight(task, first, now)
        assert made is not None
        assert made.hindsight_of == task.id
        assert made.instruction == f"Turn wifi {'on' if wifi else 'off'}. Set volume to {other}."
        errands = unpacked(made.data["errands"])
        asked = [c for errand in errands for way in errand.ways for c in way.does]
        assert facts(apply(asked, first)) == facts(now)
        assert in_hindsight(task, first, first) is None, "nothing was changed"
        more = apply([Change("settings", name, not first["settings"][name]) for name in FLAGS], now)
        assert in_hindsight(task, first, more) is None, "four changes are too many"
