"""Gymnasium environments as text (`env.py`; the other modules are its parts)."""

from agentrl.envs.gym.env import Gymnasium

__all__ = ["Gymnasium"]
