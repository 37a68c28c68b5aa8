"""Function calling over small applications (`env.py`; the other modules are its parts)."""

from agentrl.envs.tools.env import Tools

__all__ = ["Tools"]
