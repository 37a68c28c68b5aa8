"""A small game behind the protocol, for who has no server at hand: spell a word backwards."""

from __future__ import annotations

import string
from random import Random

from agentrl.core.errors import DataError
from agentrl.core.types import Json
from agentrl.envs.openenv.server import Card, Data, Server

LETTERS = 8
"""Of a word: few enough to spell, enough that two seeds hardly share one."""
CARD = Card(
    name="backwards",
    description="Spell a word backwards, within three tries.",
    version="1",
    action={
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
        "additionalProperties": False,
    },
    observation={"type": "object", "properties": {"response": {"type": "string"}}},
)


class Backwards:
    """One session."""

    def __init__(self) -> None:
        self._word, self._tries, self._is_over = "", 0, True

    def reset(self, data: Data) -> Data:
        """The seed decides the word."""
        rng = Random(str(data.get("seed")))
        self._word = "".join(rng.choices(string.ascii_lowercase, k=LETTERS))
        self._tries, self._is_over = 0, False
        return self._shown(f"spell {self._word} backwards", None)

    def step(self, action: Data, timeout_s: float | None = None) -> Data:
        """One try."""
        if self._is_over:
            raise RuntimeError("the episode is over: reset")
        said = action.get("message")
        if not isinstance(said, str):
            raise DataError(f"message: expected a string, got {said!r:.100}")
        self._tries += 1
        is_right = said.strip() == self._word[::-1]
        self._is_over = is_right or self._tries == 3
        answer = "right" if is_right else f"{said.strip()[:LETTERS]} is wrong"
        return self._shown(answer, float(is_right))

    def state(self) -> Data:
        """How far it came."""
        return {"episode_id": None, "step_count": self._tries}

    def close(self) -> None:
        """Nothing is held."""

    def _shown(self, text: str, reward: float | None) -> dict[str, Json]:
        return {"observation": {"response": text}, "reward": reward, "done": self._is_over}


def serve_example() -> Server:
    """The game on a free port of this machine."""
    return Server(Backwards, CARD)
