"""A vector env with a single game, as a single env: for ids that have a `vector_entry_point` alone.

Gymnasium's vector env steps all of its games at once. An agent's episodes differ in length, and the
replies for them in time, so games that wait for each other would wait most of the time, and a task
could not be begun while others are played. Many games at once are many envs here, each with one.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate


class One(gymnasium.Env[Any, Any]):
    """The only game of a vector env; whatever autoreset it has is not seen."""

    def __init__(self, many: VectorEnv[Any, Any, Any]) -> None:
        self.many = many
        self.observation_space = many.single_observation_space
        self.action_space = many.single_action_space
        self.render_mode = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin anew."""
        super().reset(seed=seed)
        shown, infos = self.many.reset(seed=seed, options=options)
        return self._first(shown), _of_first(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; at the end the last observation is the game's own, not that of the next episode."""
        space = self.action_space
        place: Any = create_empty_array(space, n=1)
        actions = concatenate(space, [action], place)
        shown, rewards, terminated, truncated, infos = self.many.step(actions)
        info = _of_first(infos)
        seen = info.pop("final_obs", None)
        final = info.pop("final_info", None)
        if seen is None:
            seen = self._first(shown)
        ends = bool(terminated[0]), bool(truncated[0])
        return seen, float(rewards[0]), *ends, {**info, **(final or {})}

    def close(self) -> None:
        """Close the vector env."""
        self.many.close()

    def _first(self, shown: Any) -> Any:
        return next(iter(iterate(self.many.observation_space, shown)))


def _of_first(infos: dict[str, Any]) -> dict[str, Any]:
    """The first game's part of the infos; `_name` says which games have a `name`."""
    found: dict[str, Any] = {}
    for name, values in infos.items():
        has = infos.get(f"_{name}")
        if name.startswith("_") or (has is not None and not has[0]):
            continue
        if isinstance(values, dict):
            found[name] = _of_first(values)
        elif isinstance(values, np.ndarray | list | tuple) and len(values):
            found[name] = values[0]
    return found
