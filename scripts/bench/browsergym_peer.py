"""Solve a task of MiniWoB++ through BrowserGym, for scripts/bench/gui.py, in an environment of its
own (it pins playwright 1.44):

    python3.11 -m venv V && V/bin/pip install browsergym-miniwob
    V/bin/python scripts/bench/browsergym_peer.py click-test 3 --no-delays

The package `miniwob` and a Chromium are named by MINIWOB_URL and AGENTRL_CHROMIUM. Prints how many
episodes were solved, and in how many seconds, as JSON. BrowserGym starts a browser for its chat
without asking which, hence the wrapper round `launch`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

from playwright.sync_api import BrowserType

launch = BrowserType.launch


def with_ours(self: Any, **settings: Any) -> Any:
    """Launch the system's Chromium, as root if need be."""
    arguments = [*(settings.pop("args", None) or []), "--no-sandbox", "--disable-dev-shm-usage"]
    settings["executable_path"] = os.environ["AGENTRL_CHROMIUM"]
    return launch(self, args=arguments, **settings)


BrowserType.launch = with_ours

import browsergym.miniwob  # noqa: E402, F401
import gymnasium  # noqa: E402
from browsergym.utils.obs import flatten_axtree_to_str  # noqa: E402


def act(task: str, seen: dict[str, Any], is_typed: bool) -> str:
    """The next action of a solution."""
    tree = flatten_axtree_to_str(seen["axtree_object"])
    goal = str(seen["goal"])
    quoted = re.findall(r'"([^"]*)"', goal)
    buttons = dict(reversed([(n, i) for i, n in re.findall(r"\[(\w+)\] button '([^']*)'", tree)]))
    if task == "enter-text" and not is_typed:
        [field] = re.findall(r"\[(\w+)\] textbox", tree)
        return f"fill('{field}', '{quoted[0]}')"
    button = buttons[quoted[0]] if task == "click-button" else next(iter(buttons.values()))
    return f"click('{button}')"


def main(task: str, episodes: int, has_delays: bool) -> None:
    """Play and tell."""
    quick = {} if has_delays else {"slow_mo": 0, "pre_observation_delay": 0}
    env = gymnasium.make(f"browsergym/miniwob.{task}", **quick)
    env.reset(seed=10_000)
    solved, began = 0, time.perf_counter()
    for seed in range(episodes):
        seen, _ = env.reset(seed=seed)
        is_typed = False
        for _ in range(4):
            seen, reward, is_over, is_cut, _ = env.step(act(task, seen, is_typed))
            is_typed = True
            if is_over or is_cut:
                break
        solved += float(reward) > 0
    print(json.dumps({"solved": solved, "seconds": time.perf_counter() - began}))
    env.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--no-delays" not in sys.argv[3:])
