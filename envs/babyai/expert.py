"""The expert: minigrid's BabyAI bot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agentrl.core.errors import EnvError
from agentrl.envs.babyai.game import ACTIONS, NO_OP, act, make

if TYPE_CHECKING:
    from minigrid.utils.baby_ai_bot import BabyAIBot

HAS_BOT = re.compile(r"BabyAI-(?!KeyInBox|PutNext\w+Carrying)")
"""Levels whose instructions the bot reads, less those that its authors say it cannot solve."""


class Bot:
    """The bot beside a game of its own, in which it sees all that was done in the episode.

    It plans from what it has seen since the start, so it is fed the log of actions. That makes its
    advice a function of seed and log: the same after a restore, and free where nobody asks.
    """

    def __init__(self, gym_id: str, seed: int) -> None:
        self._seed = seed
        self._game = make(gym_id)
        self._game.reset(seed=seed)
        self._fed: list[int] = []
        self._bot = self._fresh()
        self._advice = self._replan(None)

    def follows(self, seed: int, log: Sequence[int]) -> bool:
        """Whether `log` only goes on from what the bot has seen."""
        return seed == self._seed and list(log[: len(self._fed)]) == self._fed

    def advise(self, log: Sequence[int]) -> str:
        """The next action after `log`. Raises `EnvError` where the bot is at a loss."""
        for number in log[len(self._fed) :]:
            act(self._game, number)
            self._fed.append(number)
            self._advice = self._replan(number)
        if self._advice is None:
            raise EnvError(
                f"babyai: the bot has no advice after {len(log)} actions in the level with seed "
                f"{self._seed}: what was done may have made it unsolvable"
            )
        return ACTIONS[self._advice]

    def _fresh(self) -> BabyAIBot:
        from minigrid.utils.baby_ai_bot import BabyAIBot

        return BabyAIBot(self._game)  # type: ignore[no-untyped-call]

    def _replan(self, taken: int | None) -> int | None:
        """Advice after `taken`. A bot that gives up (it does after any opened box), or believes
        that all is done, is replaced by one that starts from here; None if that is at a loss too.
        """
        from minigrid.utils.baby_ai_bot import DisappearedBoxError

        for action in (taken, None):
            with suppress(DisappearedBoxError, AssertionError):
                advice = int(self._bot.replan(action))  # type: ignore[no-untyped-call]
                if advice != NO_OP:
                    return advice
            self._bot = self._fresh()
        return None
