"""The trained weights of a module as one safetensors file: all of them, or the adapters alone."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agentrl.core.errors import CheckpointError
from agentrl.train.checkpoint import flush


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weights that take gradients, tied ones once, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def save_trainable(module: torch.nn.Module, path: Path) -> None:
    """Write them whole or not at all. Raises `CheckpointError` if the disk does not take them."""
    tensors = {name: w.detach().cpu().contiguous() for name, w in trainable(module).items()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary)
        flush(temporary)
        temporary.replace(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} could not be written ({error}): free some space") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_trainable(
    module: torch.nn.Module, path: Path, *, like: torch.nn.Module | None = None
) -> None:
    """Copy what `save_trainable` wrote into the module's weights of those names.

    Args:
        like: a module whose trainable weights say which names are expected; `module` itself if
            None.

    Raises:
        CheckpointError: the file is not there, or holds other weights than the module has.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing: the run cannot go on without it")
    tensors = load_file(path)
    expected = {(name, weight.shape) for name, weight in trainable(like or module).items()}
    strange = expected ^ {(name, tensor.shape) for name, tensor in tensors.items()}
    if strange:
        raise CheckpointError(
            f"{path} holds other weights than the model that is trained: "
            f"{', '.join(sorted({name for name, _ in strange})[:3])}; model and lora must be those "
            "that it was saved with"
        )
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
