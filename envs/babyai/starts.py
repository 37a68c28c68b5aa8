"""The distinct starts of a level."""

from __future__ import annotations

from functools import cache

from agentrl.core.starts import Beginning, Starts
from agentrl.envs.babyai.game import key, make


@cache
def starts(gym_id: str) -> Starts:
    """One walk per level and process."""
    game = make(gym_id)

    def begin(seed: int) -> Beginning:
        game.reset(seed=seed)
        start = key(game)
        return Beginning(start, game.mission, {"start": start})

    return Starts(begin, place="env.level", what=gym_id)
