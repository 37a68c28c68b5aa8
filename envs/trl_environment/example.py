"""A class of the kind that TRL's `environment_factory` takes: the one that is played by default."""

from __future__ import annotations


class Ladder:
    """Climb from 1 to a target without stepping over it.

    The contract is TRL's: `reset` gets the columns of a dataset's row and returns what is shown
    first, every other public method is a tool, `get_reward` says what the episode was worth.
    """

    def __init__(self) -> None:
        self._now = self._target = 1

    @property
    def done(self) -> bool:
        """Whether the target was reached or passed."""
        return self._now >= self._target

    def reset(self, seed: int = 0, **_: object) -> str:
        """Begin at 1; the target is `seed + 2`."""
        self._now, self._target = 1, seed + 2
        return f"You are at 1. Reach {self._target}."

    def double(self) -> str:
        """Double the number.

        Returns:
            Where you are.
        """
        return self._move(2 * self._now)

    def add(self, amount: int) -> str:
        """Add to the number.

        Args:
            amount: What to add, 1 to 3.

        Returns:
            Where you are.
        """
        if amount not in (1, 2, 3):
            raise ValueError(f"amount must be 1, 2 or 3, not {amount}")
        return self._move(self._now + amount)

    def get_reward(self) -> float:
        """1.0 if the target was reached exactly."""
        return float(self._now == self._target)

    def _move(self, number: int) -> str:
        self._now = number
        return f"You are at {number}. Reach {self._target}."
