"""Envs whose whole state is one small value: ending, saving and going on are then the same code.

A subclass keeps that value, a named tuple that says whether the episode `is_over`, in `_now` and
writes `reset` and `step`; `close`, `snapshot` and `restore` follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, Self, TypeVar

from agentrl.core import registry
from agentrl.core.protocols import Env
from agentrl.core.types import Step


class Saved(Protocol):
    """A named tuple with, among its fields, `is_over`."""

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended, or none has begun."""
        ...

    def _replace(self, *, is_over: bool = ...) -> Self: ...


State = TypeVar("State", bound=Saved)


class OneState(Env, Generic[State]):
    """An env whose state is the value `_now`, which is a snapshot as it stands."""

    _now: State
    """Set by `__post_init__` (to one that is over), `reset` and `step`."""

    def close(self) -> None:
        """Nothing is held."""
        self._now = self._now._replace(is_over=True)

    def snapshot(self) -> State:
        """The state: it cannot be changed, so it needs no copy."""
        return self._now

    def restore(self, snapshot: State) -> None:
        """Go on from a snapshot."""
        self._now = snapshot

    def _playing(self) -> State:
        """The state. Raises `RuntimeError` if the episode is over."""
        if self._now.is_over:
            _, name = registry.slot_of(type(self)) or ("env", type(self).__name__)
            raise RuntimeError(f"{name}: the episode is over (or never began): call reset(task)")
        return self._now

    def _stepped(
        self,
        shown: str,
        *,
        refusal: str = "",
        reward: float,
        success: bool,
        terminated: bool,
        truncated: bool = False,
        metrics: Mapping[str, float],
    ) -> Step:
        """What a step answers: `shown`, behind why the action was refused if it was; `success` is
        told when `_now` says that the episode is over."""
        info: dict[str, object] = {"metrics": dict(metrics)}
        if refusal:
            info["invalid_action"] = True
        if self._now.is_over:
            info["success"] = success
        return Step(
            observation=f"{refusal}\n{shown}" if refusal else shown,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
        )
