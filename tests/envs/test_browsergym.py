"""BrowserGym's own tasks are played, in the interpreter that .ci/install-browsergym made."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.errors import ConfigError, MissingExtraError
from agentrl.envs.browser.chromium import find_chromium
from agentrl.envs.browsergym.env import BrowserGym

ROOT = Path(__file__).parents[2]
INSIDE = ROOT / "tests" / "support" / "browsergym_inside" / "play.py"
LIMIT_S = 280.0

real = pytest.mark.browsergym


def inside(*arguments: str) -> Any:
    """What the script prints; skips the test if there is no BrowserGym, or no Chromium."""
    venv = ROOT / os.environ.get("AGENTRL_BROWSERGYM_VENV", ".venv-browsergym")
    if not (venv / "bin/python").exists():
        pytest.skip(f"BrowserGym is not in {venv}: .ci/install-browsergym")
    try:
        find_chromium()
    except ConfigError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [venv / "bin/python", INSIDE, *arguments],
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MINIWOB_URL")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


# --- without the package --------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("browsergym") is not None, reason="BrowserGym is installed")
def test_without_the_package_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[browsergym\]'"):
        BrowserGym().tasks("train")


def test_settings_name_an_id_and_an_aspect_at_least() -> None:
    with pytest.raises(ConfigError, match="at least one name each"):
        BrowserGym(id=())


# --- with it --------------------------------------------------------------------------------------


@real
@pytest.mark.timeout(300)
def test_scripts_solve_three_tasks_and_see_text_and_pictures() -> None:
    found = inside("solve", "click-test", "click-button", "enter-text")
    assert [(task, reward, success) for task, _, _, reward, success in found] == [
        (task, 1.0, True) for task in ("click-test", "click-button", "enter-text") for _ in "ab"
    ]
    for _, text, sizes, _, _ in found:
        assert text.startswith("goal ")
        assert "] button '" in text
        assert sizes == [[498, 321], [498, 321]]  # 332 x 214, which BrowserGym magnifies


@real
@pytest.mark.timeout(300)
def test_what_cannot_be_done_is_told_and_done_ends_the_episode() -> None:
    missing, unsayable, unread, waited, done, after, cut = inside("rules")
    assert missing[0] == 'not possible: ValueError: Could not find element with bid "999"'
    assert unsayable[0].startswith("not possible: BrowserGym has no call for LongPress")
    assert unread[0].startswith("not possible: expected JSON such as")
    assert [one[1]["invalid_action"] for one in (missing, unsayable, unread)] == [True] * 3
    assert waited[1:] == [{"invalid_action": False}, False]
    assert (done[1]["success"], done[2]) == (False, True)
    assert after[0].startswith("browsergym: the episode is over")
    assert cut == [True, False, 0.0]


@real
@pytest.mark.timeout(300)
def test_a_browser_that_is_killed_fails_its_episode_and_no_other() -> None:
    said, reward, left = inside("die")
    assert said == "TargetClosedError"
    assert reward == 1.0
    assert left == []


@real
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checker_passes_it() -> None:
    lines = inside("check")
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert len(lines) > 30
