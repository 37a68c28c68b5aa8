"""Environments behind OpenEnv's protocol (`env.py`; the other modules are its parts)."""

from agentrl.envs.openenv.env import OpenEnv

__all__ = ["OpenEnv"]
