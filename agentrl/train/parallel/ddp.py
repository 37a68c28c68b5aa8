"""PyTorch's DistributedDataParallel: every process holds all weights, gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch.nn.parallel import DistributedDataParallel

from agentrl.core.errors import TrainingError
from agentrl.core.registry import register
from agentrl.train.parallel.processes import Processes
from agentrl.train.parallel.single import finite
from agentrl.train.parallel.whole import check_label, load_whole, save_whole, write_label


@register("parallel", "ddp")
@dataclass(kw_only=True)
class Ddp(Processes):
    """All weights in every process (DistributedDataParallel)."""

    name: ClassVar[str] = "ddp"
    shares_module: ClassVar[bool] = True
    _wrapped: DistributedDataParallel | None = field(
        default=None, init=False, repr=False, compare=False
    )
    _optimiser: torch.optim.Optimizer | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What `wrap` built."""
        return self._held()[1]

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """The module in a `DistributedDataParallel`; every rank starts from rank 0's weights."""
        self._joined()
        with self.waiting("the first broadcast of weights"):
            self._wrapped = DistributedDataParallel(module)
        # No exchange in the forward pass: ranks may make different numbers of them. As an attribute
        # it has one name in all versions; the argument changes its name in torch 2.13.
        self._wrapped.broadcast_buffers = False
        self._optimiser = build_optimiser(module)
        return self._wrapped

    def _held(self) -> tuple[DistributedDataParallel, torch.optim.Optimizer]:
        if self._wrapped is None or self._optimiser is None:
            raise TrainingError("parallel 'ddp' was used before wrap(module, build_optimiser)")
        return self._wrapped, self._optimiser

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Gradients are exchanged in the last one's backward, and stay local in the others."""
        wrapped, _ = self._held()
        with self.waiting("a micro-batch"), nullcontext() if is_last else wrapped.no_sync():
            yield

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Times the world: the ranks' gradients are averaged, and their sum is wanted."""
        (loss_sum * self.world).backward()

    def step(self, max_norm: float) -> float:
        """Clip, check, update, clear; every rank holds the same gradient and decides alike."""
        wrapped, optimiser = self._held()
        norm = finite(torch.nn.utils.clip_grad_norm_(wrapped.parameters(), max_norm), optimiser)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm

    def gather(self) -> Mapping[str, torch.Tensor]:
        """The module's own tensors."""
        module: torch.nn.Module = self._held()[0].module
        return module.state_dict()

    def save(self, folder: Path) -> None:
        """What `single` writes, by rank 0; each can read the other's."""
        wrapped, optimiser = self._held()
        if self.rank == 0:
            save_whole(folder, wrapped.module, optimiser)
            write_label(folder, self.name, self.world)

    def load(self, folder: Path) -> None:
        """What `save` wrote, on any number of ranks."""
        wrapped, optimiser = self._held()
        check_label(
            folder, self.name, self.world, reads=frozenset({"single", "ddp"}), any_world=True
        )
        load_whole(folder, wrapped.module, optimiser)
