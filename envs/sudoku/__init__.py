"""Sudoku, one placement a turn (`env.py`; the other modules are its parts)."""

from agentrl.envs.sudoku.env import Sudoku

__all__ = ["Sudoku"]
