"""One process, one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.registry import register
from agentrl.train.parallel.launch import check_launch
from agentrl.train.parallel.whole import check_label, load_whole, save_whole, write_label

T = TypeVar("T")


@register("parallel", "single")
@dataclass(kw_only=True)
class Single:
    """The module as it is."""

    rank: ClassVar[int] = 0
    world: ClassVar[int] = 1
    shares_module: ClassVar[bool] = True
    _module: torch.nn.Module | None = field(default=None, init=False, repr=False, compare=False)
    _optimiser: torch.optim.Optimizer | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What `wrap` built."""
        return self._held()[1]

    def start(self) -> None:
        """There is nobody to wait for.

        Raises:
            ConfigError: a launcher started several processes, or asks for another backend.
        """
        check_launch("single")

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """Remember both; nothing is wrapped."""
        self._module, self._optimiser = module, build_optimiser(module)
        return module

    def _held(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        if self._module is None or self._optimiser is None:
            raise TrainingError("parallel 'single' was used before wrap(module, build_optimiser)")
        return self._module, self._optimiser

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Nothing surrounds it."""
        return nullcontext()

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Add the gradient; counts are global already, so nothing is scaled."""
        loss_sum.backward()

    def step(self, max_norm: float) -> float:
        """Clip, check, update, clear."""
        module, optimiser = self._held()
        norm = finite(torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm), optimiser)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm

    def total(self, values: Sequence[float]) -> list[float]:
        """The values: there is one rank."""
        return list(values)

    def largest(self, values: Sequence[float]) -> list[float]:
        """The values: there is one rank."""
        return list(values)

    def exchange(self, value: T) -> list[T]:
        """The value: there is one rank."""
        return [value]

    def gather(self) -> Mapping[str, torch.Tensor]:
        """The module's own tensors."""
        module, _ = self._held()
        return module.state_dict()

    def save(self, folder: Path) -> None:
        """The optimiser's state, and an adapter's weights."""
        save_whole(folder, *self._held())
        write_label(folder, "single", 1)

    def load(self, folder: Path) -> None:
        """What `save` wrote, here or under `ddp`."""
        check_label(folder, "single", 1, reads=frozenset({"single", "ddp"}), any_world=True)
        load_whole(folder, *self._held())

    def close(self) -> None:
        """There is nobody to leave."""


def finite(norm: torch.Tensor, optimiser: torch.optim.Optimizer) -> float:
    """The gradient norm; the gradient is dropped if it is none.

    Raises:
        TrainingError: the norm is infinite or NaN.
    """
    if not torch.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        raise TrainingError(
            f"the gradient norm is {float(norm)}; the step was not taken. Lower optim.lr or "
            "optim.grad_clip, or look for extreme rewards"
        )
    return float(norm)
