"""What a launcher put into the environment, and whether it is what the config asks for.

`torchrun`, `accelerate launch` and `deepspeed` all set RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. A launch that contradicts the config is refused: the alternatives are plain data
parallelism where sharding was asked for, or unrelated runs that write one folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agentrl.core.errors import ConfigError

JOINED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables without which a process cannot find the others."""
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Where launchers say how many processes they started."""
ASKS_FOR = {"ACCELERATE_USE_FSDP": "fsdp", "ACCELERATE_USE_DEEPSPEED": "deepspeed"}
"""Variables by which `accelerate launch` asks for a backend."""
UNUSED = {
    "ACCELERATE_USE_MEGATRON_LM": ("false", "there is no such backend here"),
    "ACCELERATE_MIXED_PRECISION": ("no", "weights are trained in float32 here"),
}
"""Variables of `accelerate launch` with the only value that can be honoured, and why."""


def check_launch(backend: str, environment: Mapping[str, str] | None = None) -> None:
    """Refuse an environment that contradicts `parallel=backend`.

    Raises:
        ConfigError: the launcher started something else.
    """
    env = os.environ if environment is None else environment
    for variable, asked in ASKS_FOR.items():
        if _is_on(env.get(variable, "")) and asked != backend:
            raise ConfigError(
                f"parallel: the config says {backend!r}, and accelerate launch asks for {asked!r} "
                f"({variable}={env[variable]}); set parallel={asked}, or launch with an "
                "accelerate config of distributed_type MULTI_GPU or MULTI_CPU"
            )
    for variable, (allowed, why) in UNUSED.items():
        value = env.get(variable, allowed).lower()
        if value != allowed:
            raise ConfigError(
                f"parallel: accelerate launch asks for {variable}={value}, and {why}; change the "
                f"accelerate config so that it is {allowed!r}"
            )
    if backend == "single":
        _check_alone(env)
        return
    if missing := [name for name in JOINED if not env.get(name)]:
        raise ConfigError(
            f"parallel: {backend!r} needs a launcher, and {', '.join(missing)} is not set; start "
            f"it with: torchrun --nproc-per-node 2 -m agentrl train CONFIG parallel={backend}"
        )


def _check_alone(env: Mapping[str, str]) -> None:
    for name in SIZES:
        size = env.get(name, "1")
        if size.strip() not in {"", "1"}:
            raise ConfigError(
                f"parallel: 'single' was started as one of {size} processes ({name}={size}), which "
                "would be unrelated runs in one folder; set parallel=ddp, fsdp or deepspeed, or "
                "start without a launcher"
            )


def _is_on(value: str) -> bool:
    return value.strip().lower() in {"1", "true", "yes", "on"}
