"""Plays BrowserGym's tasks with our env, in an interpreter that has BrowserGym; prints JSON.

python play.py solve TASK...    each task twice, by a script: [task, text, picture, reward, success]
python play.py rules            what is said of odd actions, in the order of `RULES`
python play.py check            the lines of `agentrl check-env`
python play.py die              what became of a killed browser, and of the episode after it
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image as Picture

from agentrl.core.types import Observation, Step
from agentrl.envs.browsergym.env import BrowserGym
from agentrl.evaluate.check_env import check_env
from agentrl.text import gui
from agentrl.text.gui import canonical

QUICK: dict[str, Any] = {"slow_mo_ms": 0, "delay_s": 0.05}
RULES: tuple[str, ...] = (
    canonical(gui.Click("999")),
    canonical(gui.LongPress("13")),
    "click 13",
    canonical(gui.Wait()),
    canonical(gui.Done()),
)


def shown(step: Step) -> str:
    """The text of an observation."""
    assert isinstance(step.observation, Observation)
    return step.observation.text


def solved(env: BrowserGym, text: str) -> Step:
    """What the task's solution comes to."""
    quoted = re.findall(r'"([^"]*)"', text.splitlines()[0])
    for field in re.findall(r"\[(\w+)\] textbox", text) if "Enter" in text else ():
        text = shown(env.step(canonical(gui.Type(quoted[0], field))))
    buttons = re.findall(r"\[(\w+)\] button '([^']*)'", text)
    wanted = quoted[0] if quoted and "Click on" in text else buttons[0][1]
    return env.step(canonical(gui.Click(next(bid for bid, name in buttons if name == wanted))))


def solve(*tasks: str) -> list[list[object]]:
    """Two episodes of each."""
    found: list[list[object]] = []
    for task in tasks:
        env = BrowserGym(id=f"miniwob.{task}", observe=("axtree", "screenshot", "marks"), **QUICK)
        for one in env.tasks("test")[:2]:
            first = env.reset(one)
            sizes = [Picture.open(io.BytesIO(image.png)).size for image in first.images]
            last = solved(env, first.text)
            found.append([task, first.text, sizes, last.reward, last.info["success"]])
        env.close()
    return found


def rules() -> list[list[object]]:
    """What comes of `RULES`, and of a step after the end."""
    env = BrowserGym(id="browsergym/miniwob.click-test", cap=9, **QUICK)
    env.reset(env.tasks("train")[0])
    steps = [env.step(action) for action in RULES]
    said = [[shown(step).splitlines()[0], step.info, step.terminated] for step in steps]
    try:
        env.step(RULES[0])
    except RuntimeError as error:
        said.append([str(error)])
    env.reset(env.tasks("train")[1])
    cut = BrowserGym(id="miniwob.click-test", cap=1, **QUICK)
    cut.reset(cut.tasks("train")[0])
    last = cut.step(canonical(gui.Click(gui.Point(0, 1000))))
    said.append([last.truncated, last.info["success"], last.reward])
    cut.close()
    env.close()
    return said


def family(pid: int) -> list[int]:
    """The processes that a process began, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def browsers() -> list[int]:
    """The browsers that were started, without what speaks to them."""
    found = family(os.getpid())
    return [
        pid for pid in found if b"--remote-debugging" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def die() -> list[object]:
    """Kill all that was started, and play on."""
    env = BrowserGym(id="miniwob.click-test", **QUICK)
    env.reset(env.tasks("train")[0])
    for pid in browsers():
        os.kill(pid, signal.SIGKILL)
    try:
        env.step(canonical(gui.Click("13")))
        said = "nothing"
    except Exception as error:  # noqa: BLE001 - whatever it is, the runner counts it
        said = type(error).__name__
    reward = solved(env, env.reset(env.tasks("train")[1]).text).reward
    env.close()
    return [said, reward, family(os.getpid())]


def check() -> list[str]:
    """The checker's lines."""
    env = BrowserGym(id="miniwob.click-button", train_tasks=4, dev_tasks=3, test_tasks=3, **QUICK)
    return check_env(env, tasks=2).lines()


if __name__ == "__main__":
    verbs: dict[str, Callable[..., object]] = {
        "solve": solve,
        "rules": rules,
        "die": die,
        "check": check,
    }
    sys.stdout.write(json.dumps(verbs[sys.argv[1]](*sys.argv[2:])) + "\n")
