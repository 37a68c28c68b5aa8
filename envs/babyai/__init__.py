"""BabyAI and MiniGrid levels in words (`env.py`; the other modules are its parts)."""

from agentrl.envs.babyai.env import BabyAI

__all__ = ["BabyAI"]
