"""Countdown (`env.py`; the other modules are its parts)."""

from agentrl.envs.countdown.env import Countdown
from agentrl.envs.countdown.game import Deal, after, calculations, deal, solve, starts

__all__ = ["Countdown", "Deal", "after", "calculations", "deal", "solve", "starts"]
