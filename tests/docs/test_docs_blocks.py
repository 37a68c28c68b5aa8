"""What the Markdown pages tell a reader to run exists and runs.

Python blocks of a page run in order, as one script. Shell lines must name make targets, commands,
files, extras and config keys that exist; the ones that only look are run. A block is left out by
`<!-- not run: reason -->` on the line above its fence.
"""

import io
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import chdir, redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from agentrl.cli import main
from agentrl.core.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<skip><!-- not run: .+ -->\n+)?^```(?P<tag>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
SHELL = {"bash", "sh", "shell", "console"}
OTHER_PROGRAMS = {"accelerate", "cd", "git", "tensorboard", "torchrun", "wandb"}
ONLY_LOOK = {"list", "explain"}


class Line(NamedTuple):
    """One shell command of a page."""

    page: str
    words: tuple[str, ...]


def blocks(page: Path, tags: set[str]) -> list[str]:
    found = FENCE.finditer(page.read_text())
    return [m["text"] for m in found if m["tag"] in tags and not m["skip"]]


def shell_lines(page: Path) -> list[Line]:
    """Commands of the page; of a console block the lines after `$`, since the rest is output."""
    lines = []
    for text in blocks(page, SHELL):
        raw = text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in raw):
            raw = [line[2:] for line in raw if line.startswith("$ ")]
        for line in raw:
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                lines.append(Line(str(page.relative_to(ROOT)), tuple(words)))
    return lines


def script_of(page: Path) -> str:
    return "\n\n".join(blocks(page, {"python"}))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


@cache
def agentrl(*words: str) -> tuple[int, str]:
    """Exit status and output of a command that only tells something."""
    with chdir(ROOT), redirect_stdout(io.StringIO()) as said:
        try:
            status = main(list(words))
        except SystemExit as leaving:  # argparse does after --help
            status = int(leaving.code or 0)
    return status, said.getvalue()


def check_agentrl(words: tuple[str, ...]) -> None:
    command, *arguments = words
    status, usage = agentrl(command, "--help")
    assert status == 0, f"agentrl has no command {command!r}"
    for option in [word.partition("=")[0] for word in arguments if word.startswith("--")]:
        assert re.search(rf"{option}\b", usage), f"agentrl {command} has no {option}"
    if command == "train":
        configs = [ROOT / word for word in arguments if word.endswith(".yaml")]
        overrides = [word for word in arguments if re.match(r"[a-z_.]+=", word)]
        load_config(configs[0] if configs else None, overrides)
    if command in ONLY_LOOK:
        status, _ = agentrl(*words)
        assert status == 0


def check_pip(words: tuple[str, ...]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        match = re.fullmatch(r"(?:agentrl|\.)\[(.+)\]", word)
        for extra in match[1].split(",") if match else []:
            assert extra in extras, f"agentrl has no extra {extra!r}"


def check_line(words: tuple[str, ...]) -> None:
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        wanted = {word for word in words[1:] if "=" not in word}
        assert wanted <= make_targets(), f"make has no target {wanted - make_targets()}"
    elif program == "agentrl":
        check_agentrl(words[1:])
    elif program == "pip":
        check_pip(words[1:])
    elif program in {"python", "pytest"} or (ROOT / program).is_file():
        for word in words[1:]:
            assert not word.endswith((".py", ".yaml")) or (ROOT / word).exists(), f"no file {word}"
    else:
        assert program in OTHER_PROGRAMS, f"a reader cannot know where {program!r} comes from"


@pytest.mark.parametrize(
    "line",
    [line for page in PAGES for line in shell_lines(page)],
    ids=lambda line: f"{line.page}: {' '.join(line.words)}",
)
def test_a_shell_line_names_what_exists(line: Line) -> None:
    check_line(line.words)


@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page)], ids=lambda p: p.name)
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(script_of(page))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=55
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, {"yaml"})], ids=lambda p: p.name
)
def test_the_yaml_blocks_of_a_page_are_configs(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, {"yaml"})):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        load_config(path)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("make quikstart", "no target {'quikstart'}"),
        ("agentrl train scripts/quickstart.yaml optim.lrr=1", "did you mean 'lr'"),
        ("agentrl train --dry-runn", "no --dry-runn"),
        ("agentrl trane", "no command 'trane'"),
        ("pip install 'agentrl[vlm]'", "no extra 'vlm'"),
        ("python scripts/no_such_file.py", "no file"),
        ("frobnicate --now", "where 'frobnicate' comes from"),
    ],
)
def test_a_line_that_names_nothing_is_caught(wrong: str, problem: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=problem):
        check_line(tuple(shlex.split(wrong)))
