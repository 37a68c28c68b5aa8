"""Classes of the kind that TRL's `environment_factory` takes: good ones and bad ones."""

from __future__ import annotations

from typing import Any, Literal

from PIL import Image


class Shelf:
    """Async, with pictures, an attribute as reward, and every kind of argument."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.is_done = False

    def reset(self, item: str = "book", **_: object) -> None:
        self.reward, self.is_done = 0.0, False
        self._item = item

    async def take(
        self,
        item: str,
        count: int = 1,
        hand: Literal["left", "right"] = "left",
        weights: list[float] | None = None,
    ) -> str:
        """Take an item.

        Args:
            item: What to take.
            count: How many.
            hand: With which hand.
            weights: What they weigh.
        """
        self.reward += 0.5 * (item == self._item)
        self.is_done = self.reward >= 1.0
        return f"took {count} {item} with the {hand} hand"

    def look(self) -> list[dict[str, Any]]:
        """Look at the shelf."""
        picture = Image.new("RGB", (2, 2))
        return [{"type": "image", "image": picture}, {"type": "text", "text": "a shelf"}]

    def drop(self) -> None:
        """Drop everything."""
        raise RuntimeError("nothing to drop")


class Judged:
    """Cannot say what an episode was worth."""

    def reset(self, **_: object) -> str:
        return "?"

    def wait(self) -> str:
        """Wait."""
        return "."

    def get_reward(self) -> float | None:
        return None


class NoReset:
    def wait(self) -> str:
        """Wait."""
        return "."


class NoTools:
    def reset(self) -> None: ...

    def get_reward(self) -> float:
        return 0.0


class NoDocs:
    def reset(self) -> None: ...

    def wait(self, seconds: int) -> str:
        """Wait."""
        return "."

    def get_reward(self) -> float:
        return 0.0


def make_shelf() -> Shelf:
    """A factory may be a function."""
    return Shelf()
