"""Builders for tests: envs that behave and envs that don't, run folders, fakes of each seam."""

from support.envs import (
    WAKE,
    WORDS,
    AsyncEchoEnv,
    BadEnv,
    EchoEnv,
    PlainEnv,
    ProcessBadEnv,
    ProcessEchoEnv,
    ThreadBadEnv,
    ThreadEchoEnv,
)

__all__ = [
    "WAKE",
    "WORDS",
    "AsyncEchoEnv",
    "BadEnv",
    "EchoEnv",
    "PlainEnv",
    "ProcessBadEnv",
    "ProcessEchoEnv",
    "ThreadBadEnv",
    "ThreadEchoEnv",
]
