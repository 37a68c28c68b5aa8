"""The seam of training backends, and of processes that share work (`core/protocols.py` offers both
to importers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    import torch

T = TypeVar("T")


class Share(Protocol):
    """This process's place among those that do the same work; alone it is rank 0 of 1."""

    @property
    def rank(self) -> int:
        """From 0 to `world - 1`; rank 0 writes and speaks."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def exchange(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks. All ranks must call it."""
        ...


class Parallel(Share, Protocol):
    """One training backend: who holds the weights and how gradients meet.

    Every rank calls the same verbs in the same order. Verbs that wait for other ranks give up
    after the backend's own deadline.
    """

    @property
    def shares_module(self) -> bool:
        """Whether `wrap` leaves the weights whole in the module it is given, so that an engine may
        sample from that module. Otherwise engines get a copy and pushes of `gather()`."""
        ...

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """The optimiser, for its learning rate. Raises `TrainingError` before `wrap`."""
        ...

    def start(self) -> None:
        """Join the other processes, and prove that the launch is what the config asks for.

        Raises:
            ConfigError: the launcher started something else (number of processes, backend).
        """

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """The module to score and train with, its weights placed and its optimiser built.

        Raises:
            ConfigError: what was asked for (real sharding, say) did not come about.
        """
        ...

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Surrounds forward and backward of one micro-batch; ranks talk in the last one only."""
        ...

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Accumulate the gradient of a loss that is already divided by global counts."""

    def step(self, max_norm: float) -> float:
        """Clip, check for NaN, update; returns the gradient norm. Raises `TrainingError`."""
        ...

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks."""
        ...

    def largest(self, values: Sequence[float]) -> list[float]:
        """Maxima over all ranks."""
        ...

    def gather(self) -> Mapping[str, torch.Tensor]:
        """Full weights under their canonical names, on every rank."""
        ...

    def save(self, folder: Path) -> None:
        """This rank's part of what training needs to go on: weights as trained, optimiser."""

    def load(self, folder: Path) -> None:
        """What `save` wrote. Raises `ConfigError` where this number of ranks cannot read it."""

    def close(self) -> None:
        """Leave the other processes; may be called twice."""
