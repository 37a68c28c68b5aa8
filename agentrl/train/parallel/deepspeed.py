"""DeepSpeed's engine: ZeRO-2 cuts gradients and optimiser over the ranks, ZeRO-3 the weights too.

The engine accumulates whatever number of micro-batches there is and updates in `step()`. Its
shared-memory operator, which it would compile on the user's machine when it joins, is not used.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from annotated_types import Ge

from agentrl.core.errors import ConfigError, MissingExtraError, TrainingError
from agentrl.core.registry import register
from agentrl.train.parallel.processes import Processes, brief
from agentrl.train.parallel.shards import member
from agentrl.train.parallel.whole import check_label, write_label

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

TAG = "deepspeed"
"""Folder of the engine's files inside a checkpoint."""
OPTIMISERS = {2: "DeepSpeedZeroOptimizer", 3: "DeepSpeedZeroOptimizer_Stage3"}
"""What the engine wraps the optimiser in when the stage really is in force."""


@register("parallel", "deepspeed")
@dataclass(kw_only=True)
class DeepSpeed(Processes):
    """Gradients and optimiser, or all of it, cut over the processes (DeepSpeed ZeRO)."""

    name: ClassVar[str] = "deepspeed"
    stage: Literal[2, 3] = 2
    """ZeRO stage: 2 cuts gradients and optimiser, 3 the weights as well."""
    offload: Literal["none", "optimiser", "all"] = "none"
    """What is kept in the memory of the CPU: nothing, the optimiser, or (stage 3) all weights."""
    persist_below: Annotated[int, Ge(0)] = 100_000
    """Stage 3 keeps weights with fewer elements than this whole between uses (0 or more)."""
    _engine: DeepSpeedEngine | None = field(default=None, init=False, repr=False, compare=False)
    _optimiser: torch.optim.Optimizer | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.offload == "all" and self.stage != 3:
            raise ConfigError("offload: 'all' needs stage=3; stage 2 can offload the optimiser")

    @property
    def shares_module(self) -> bool:
        """Under stage 2 the module stays whole."""
        return self.stage == 2

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What `wrap` built; the engine steps it on this rank's part."""
        return self._held()[1]

    def start(self) -> None:
        """Join the others, then let DeepSpeed use the same process group."""
        asked = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(self.stage))
        if asked != str(self.stage):
            raise ConfigError(
                f"parallel.stage: the config says {self.stage}, and accelerate launch asks for "
                f"ZeRO stage {asked}; make them equal"
            )
        super().start()
        try:
            import deepspeed
        except ImportError as error:
            raise MissingExtraError("deepspeed", "deepspeed") from error
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # The attribute deepspeed.comm.torch is PyTorch; the module of that name is in sys.modules.
        sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
        with self.waiting("joining DeepSpeed"):
            deepspeed.init_distributed(
                dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False
            )

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """The engine around the module; every rank starts from rank 0's weights.

        Raises:
            ConfigError: the engine did not come up with the stage that was asked for.
        """
        import deepspeed

        self._joined()
        self._optimiser = build_optimiser(module)
        with self.waiting("the start of DeepSpeed's engine"):
            engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=self._optimiser,
                config=self._settings(),
                dist_init_required=False,
            )
        self._engine = engine
        engine.checkpoint_engine = Tensors(engine.checkpoint_engine)
        self._prove_stage(engine)
        wrapped: torch.nn.Module = engine
        return wrapped

    def _settings(self) -> dict[str, object]:
        zero: dict[str, object] = {"stage": self.stage}
        if self.stage == 3:
            zero["stage3_param_persistence_threshold"] = self.persist_below
        if self.offload != "none":
            zero["offload_optimizer"] = {"device": "cpu"}
        if self.offload == "all":
            zero["offload_param"] = {"device": "cpu"}
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": 1.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
            "zero_optimization": zero,
        }

    def _prove_stage(self, engine: DeepSpeedEngine) -> None:
        found = type(engine.optimizer).__name__
        if found != OPTIMISERS[self.stage] or engine.dp_world_size != self.world:
            raise ConfigError(
                f"parallel 'deepspeed': asked for ZeRO stage {self.stage} on {self.world} ranks, "
                f"and the engine came up with {found} on {engine.dp_world_size}"
            )
        weights = [w for w in engine.module.parameters() if w.requires_grad or self.stage == 3]
        whole = sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights)
        if self.stage == 3:
            parts = [getattr(weight, "ds_tensor", weight) for weight in weights]
        else:
            parts = engine.optimizer.single_partition_of_fp32_groups
        here = sum(part.numel() for part in parts)
        (everywhere,) = self.total([float(here)])
        if everywhere < whole or (self.world > 1 and here >= whole):
            raise ConfigError(
                f"parallel 'deepspeed': {whole} weights should be cut over {self.world} ranks, and "
                f"rank {self.rank} holds {here} of them, all ranks together {everywhere:.0f}: "
                f"ZeRO stage {self.stage} is not in force"
            )

    def _held(self) -> tuple[DeepSpeedEngine, torch.optim.Optimizer]:
        if self._engine is None or self._optimiser is None:
            raise TrainingError(
                "parallel 'deepspeed' was used before wrap(module, build_optimiser)"
            )
        return self._engine, self._optimiser

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Ranks meet in every backward: the engine keeps only its part of each gradient."""
        with self.waiting("a micro-batch"):
            yield

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Times the world: the engine averages the ranks' gradients, and their sum is wanted."""
        engine, _ = self._held()
        engine.backward(loss_sum * self.world)

    def step(self, max_norm: float) -> float:
        """The engine clips, checks and updates; it skips a gradient that is not finite."""
        engine, _ = self._held()
        engine.optimizer.clip_grad = max_norm
        with self.waiting("the step"):
            engine.step()
        norm = float(engine.get_global_grad_norm())
        if engine.optimizer.overflow:
            raise TrainingError(
                "the gradient norm is not finite; the step was not taken. Lower optim.lr or "
                "optim.grad_clip, or look for extreme rewards"
            )
        return norm

    def gather(self) -> Mapping[str, torch.Tensor]:
        """Whole weights, on every rank: stage 3 puts them into the memory of the CPU."""
        engine, _ = self._held()
        if self.stage == 2:
            state: dict[str, torch.Tensor] = engine.module.state_dict()
            return state
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        whole: dict[int, torch.Tensor] = {}
        names: dict[str, torch.Tensor] = engine.module.state_dict(keep_vars=True)
        with self.waiting("a gathering of weights"):
            for tensor in names.values():
                if id(tensor) not in whole:
                    is_cut = hasattr(tensor, "ds_id")
                    with GatheredParameters([tensor] if is_cut else [], enabled=is_cut):
                        whole[id(tensor)] = tensor.detach().to("cpu", copy=True)
        return {name: whole[id(tensor)] for name, tensor in names.items()}

    def save(self, folder: Path) -> None:
        """The engine's own files, one set for each rank."""
        engine, _ = self._held()
        with self.waiting("a checkpoint"):
            engine.save_checkpoint(
                str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True
            )
        if self.rank == 0:
            write_label(folder, self._label, self.world)

    def load(self, folder: Path) -> None:
        """What `save` wrote, under the same stage on as many ranks."""
        engine, _ = self._held()
        check_label(
            folder, self._label, self.world, reads=frozenset({self._label}), any_world=False
        )
        with self.waiting("a checkpoint"):
            path, _ = engine.load_checkpoint(
                str(folder), tag=TAG, load_module_strict=False, load_lr_scheduler_states=False
            )
        if path is None:
            raise ConfigError(f"checkpoint {folder}: DeepSpeed found no files of its own in it")

    @property
    def _label(self) -> str:
        return f"deepspeed stage {self.stage}"


class Tensors:
    """DeepSpeed's writer of checkpoints, with a reader that runs nothing that a file names."""

    def __init__(self, writer: object) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)

    def load(self, path: str, map_location: str | None = None) -> object:
        """Tensors and DeepSpeed's own records.

        Raises:
            ConfigError: the file names something else.
        """
        from pickle import UnpicklingError

        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        records = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
        members = (member, "builtins.getattr")
        try:
            with torch.serialization.safe_globals([*records, members]):
                return torch.load(path, map_location=map_location, weights_only=True)
        except UnpicklingError as error:
            raise ConfigError(
                f"checkpoint {path}: holds more than tensors and DeepSpeed's records, and is not "
                f"read ({brief(error)})"
            ) from error
