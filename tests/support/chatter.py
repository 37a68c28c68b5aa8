"""Envs that pay for any babble, so that a random model gets rewards; light enough for processes."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.types import Action, Step
from support.envs import EchoEnv
from support.faulty import OnceBadEnv, SlowEnv


@dataclass(kw_only=True)
class ChatterEnv(EchoEnv):
    """An EchoEnv that takes any text: paid by its letters, so that a random model gets rewards."""

    def step(self, action: Action) -> Step:
        if self._is_over:
            raise RuntimeError("the episode is over")
        self._said.append(str(action))
        self._is_over = len(self._said) == self.length
        letters = sum(letter in "aeiounst" for text in self._said for letter in text)
        return Step(
            observation="the end" if self._is_over else self._observe(),
            reward=float(letters) if self._is_over else 0.0,
            terminated=self._is_over,
            info={"success": letters > 2} if self._is_over else {},
        )


@dataclass(kw_only=True)
class SlowChatterEnv(ChatterEnv, SlowEnv):
    """The same in a thread, with random delays."""


@dataclass(kw_only=True)
class OnceBadChatterEnv(OnceBadEnv, ChatterEnv):
    """A ChatterEnv of which one instance breaks, once."""
