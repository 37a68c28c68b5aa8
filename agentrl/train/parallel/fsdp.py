"""PyTorch's native `fully_shard` (FSDP2): weights, gradients and optimiser are cut over the ranks.

A decoder layer is gathered when it is needed and let go after it. Ranks meet in every forward pass,
also those without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.registry import register
from agentrl.train.parallel import shards
from agentrl.train.parallel.processes import Processes
from agentrl.train.parallel.single import finite
from agentrl.train.parallel.whole import check_label, write_label


@register("parallel", "fsdp")
@dataclass(kw_only=True)
class Fsdp(Processes):
    """Weights, gradients and optimiser cut over the processes (fully_shard)."""

    name: ClassVar[str] = "fsdp"
    shares_module: ClassVar[bool] = False
    offload: bool = False
    """Keep what is not in use in the memory of the CPU."""
    _sharded: torch.nn.Module | None = field(default=None, init=False, repr=False, compare=False)
    _optimiser: torch.optim.Optimizer | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What `wrap` built, over this rank's shards."""
        return self._held()[1]

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """The module itself, its weights replaced by shards of rank 0's.

        Raises:
            ConfigError: the weights did not come apart.
        """
        place = next(module.parameters()).device.type
        policy = CPUOffloadPolicy(pin_memory=place == "cuda") if self.offload else OffloadPolicy()
        mesh = init_device_mesh(place, (self.world,))
        with self.waiting("the first broadcast of weights"):
            for weight in module.parameters():
                dist.broadcast(weight.data, src=0)
            for unit in (*layers(module), module):
                fully_shard(unit, mesh=mesh, reshard_after_forward=True, offload_policy=policy)
        self._sharded = module
        self._prove_shards(module)
        self._optimiser = build_optimiser(module)
        return module

    def _prove_shards(self, module: torch.nn.Module) -> None:
        weights = list(module.parameters())
        whole = sum(weight.numel() for weight in weights)
        here = sum(w.to_local().numel() for w in weights if isinstance(w, DTensor))
        (everywhere,) = self.total([float(here)])
        if everywhere != whole or (self.world > 1 and here == whole):
            raise ConfigError(
                f"parallel 'fsdp': {whole} weights should be cut over {self.world} ranks, and rank "
                f"{self.rank} holds {here} in shards, all ranks together {everywhere:.0f}: they "
                "were not sharded; use a model whose weights are plain parameters, or parallel=ddp"
            )

    def _held(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        if self._sharded is None or self._optimiser is None:
            raise TrainingError("parallel 'fsdp' was used before wrap(module, build_optimiser)")
        return self._sharded, self._optimiser

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Gradients are exchanged in the last one's backward, and stay local in the others."""
        module, _ = self._held()
        cast("FSDPModule", module).set_requires_gradient_sync(is_last)
        with self.waiting("a micro-batch"):
            yield

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Times the world: the ranks' gradients are averaged, and their sum is wanted."""
        (loss_sum * self.world).backward()

    def step(self, max_norm: float) -> float:
        """Clip by the norm over all shards, check, update, clear."""
        module, optimiser = self._held()
        with self.waiting("the gradient norm"):
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
            whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        found = finite(whole, optimiser)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return found

    def gather(self) -> Mapping[str, torch.Tensor]:
        """Whole weights in the memory of the CPU, on every rank; tied ones share a tensor."""
        module, _ = self._held()
        whole: dict[int, torch.Tensor] = {}
        names = module.state_dict(keep_vars=True)
        with self.waiting("a gathering of weights"), torch.no_grad():
            for tensor in names.values():
                if id(tensor) not in whole:
                    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                    whole[id(tensor)] = full.detach().cpu()
        return {name: whole[id(tensor)] for name, tensor in names.items()}

    def save(self, folder: Path) -> None:
        """This rank's shards of trained weights and optimiser (torch.distributed.checkpoint)."""
        with self.waiting("a checkpoint"):
            shards.save(folder / "shards", *self._held())
        if self.rank == 0:
            write_label(folder, self.name, self.world)

    def load(self, folder: Path) -> None:
        """What `save` wrote, on any number of ranks."""
        check_label(folder, self.name, self.world, reads=frozenset({"fsdp"}), any_world=True)
        with self.waiting("a checkpoint"):
            shards.load(folder / "shards", *self._held())


def layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The parts that transformers says must stay on one device: the decoder layers."""
    kinds = {
        kind for part in module.modules() for kind in getattr(part, "_no_split_modules", None) or ()
    }
    return [part for part in module.modules() if type(part).__name__ in kinds]
