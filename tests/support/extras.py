"""Tests that need an optional package: how they are marked.

`make test-envs` installs these packages into an environment of its own and runs what is marked
`extras` there, with nothing skipped; elsewhere such a test is skipped where its package is missing.
"""

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])

PACKAGES = {
    "reasoning_gym": ("reasoning_gym", "reasoning"),
    "textworld": ("textworld", "textworld"),
    "scienceworld": ("scienceworld", "scienceworld"),
    "openenv": ("websockets", "openenv"),
}
"""Environment -> what it imports, and the extra that brings it."""
IN_DEV = {"openenv"}
"""These come with the extra `dev`, so that they are there in any case."""
JAVA = {"scienceworld"}
"""Environments that start a Java runtime."""


def needed_by(env: str) -> Sequence[pytest.MarkDecorator]:
    """The marks of a test that plays this environment."""
    if env == "bfcl":
        return [pytest.mark.bfcl]
    if env not in PACKAGES:
        return []
    package, extra = PACKAGES[env]
    is_missing = find_spec(package) is None
    marks = [pytest.mark.skipif(is_missing, reason=f"needs agentrl[{extra}]")]
    if env not in IN_DEV:
        marks += [pytest.mark.extras, pytest.mark.timeout(300)]  # compilers and JVMs on busy cores
    if env in JAVA:
        no_java = shutil.which("java") is None
        marks += [pytest.mark.java, pytest.mark.skipif(no_java, reason="needs a Java runtime")]
    return marks


def needs(env: str) -> Callable[[Test], Test]:
    """Decorates a test that needs the package of an environment."""

    def marked(test: Test) -> Test:
        for mark in needed_by(env):
            test = mark(test)
        return test

    return marked


def has(env: str) -> bool:
    """Whether the package of an environment is installed."""
    return find_spec(PACKAGES[env][0]) is not None
