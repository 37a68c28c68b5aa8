"""Sharded checkpoints by torch.distributed.checkpoint, readable on any number of ranks.

Trained weights are called `weight.NAME`, the optimiser's tensors `state.NAME.SLOT`. Only tensors
are saved, and the index, which torch pickles, is read without running anything that it names.
"""

from __future__ import annotations

import pickle
from enum import Enum
from pathlib import Path
from typing import cast

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.tensor import DTensor

from agentrl.core.errors import ConfigError

RECORDS = frozenset(
    {
        *(
            ("torch.distributed.checkpoint.metadata", name)
            for name in (
                "Metadata",
                "MetadataIndex",
                "StorageMeta",
                "TensorStorageMetadata",
                "TensorProperties",
                "ChunkStorageMetadata",
                "_MEM_FORMAT_ENCODING",
            )
        ),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        ("pathlib", "PosixPath"),
    }
)
"""What an index is made of, beside the names of number types (`torch.float32`)."""


def save(folder: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Every rank writes its shards, and one of them the index."""
    state: dict[str, torch.Tensor] = {}
    for name, weight in trained(module).items():
        state[f"weight.{name}"] = weight.detach()
        for slot, value in optimiser.state[weight].items():
            state[f"state.{name}.{slot}"] = value
    save_shards(state, checkpoint_id=folder)


def load(folder: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """What `save` wrote, cut as this module is.

    Raises:
        ConfigError: the checkpoint is torn or of another model.
    """
    reader = Reader(folder)
    saved = reader.read_metadata().state_dict_metadata
    weights = trained(module)
    shapes = {f"weight.{name}": weight.shape for name, weight in weights.items()}
    found = {
        name: part.size
        for name, part in saved.items()
        if name.startswith("weight.") and isinstance(part, TensorStorageMetadata)
    }
    if found != shapes:
        odd = sorted(found.keys() ^ shapes.keys()) or ["their shapes differ"]
        raise ConfigError(
            f"checkpoint {folder}: its trained weights are not this model's "
            f"({', '.join(odd[:3])}); model and lora must be those that it was saved with"
        )
    state: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        state[f"weight.{name}"] = weight.detach()
        slots = {}
        prefix = f"state.{name}."
        for key, part in saved.items():
            if key.startswith(prefix) and isinstance(part, TensorStorageMetadata):
                slots[key.removeprefix(prefix)] = state[key] = _room(weight, part)
        if slots:
            optimiser.state[weight] = slots
    load_shards(state, storage_reader=reader)


def _room(weight: torch.nn.Parameter, part: TensorStorageMetadata) -> torch.Tensor:
    """A tensor to load into: cut like its weight, or whole, like AdamW's step count."""
    if isinstance(weight, DTensor) and part.size == weight.shape:
        return torch.zeros_like(weight.detach())
    return torch.zeros(part.size, dtype=part.properties.dtype)


def trained(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that have a gradient, tied ones once."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


class Reader(FileSystemReader):
    """torch's reader with an index that can name torch's own records only."""

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        """The index.

        Raises:
            ConfigError: there is none, or it names something that is not a record of torch's.
        """
        path = Path(self.path) / ".metadata"
        if not path.is_file():
            raise ConfigError(f"checkpoint {self.path}: no index, so it is torn; use an older one")
        with path.open("rb") as file:
            metadata = cast("Metadata", Records(file).load())
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]
        return metadata


class Records(pickle.Unpickler):
    """Knows the classes of a checkpoint's index, and no other."""

    def find_class(self, module_name: str, global_name: str) -> object:
        """The named class.

        Raises:
            ConfigError: it is none of torch's records.
        """
        if (module_name, global_name) == ("builtins", "getattr"):
            return member
        is_dtype = module_name == "torch" and isinstance(
            getattr(torch, global_name, None), torch.dtype
        )
        if not is_dtype and (module_name, global_name) not in RECORDS:
            raise ConfigError(
                f"a checkpoint's index names {module_name}.{global_name}, which is no record of "
                "torch.distributed.checkpoint; it was not written by torch"
            )
        return super().find_class(module_name, global_name)


def member(kind: object, name: str) -> Enum:
    """The member of an enumeration. Python before 3.11.4 pickles it as a call of `getattr`.

    Raises:
        ConfigError: an attribute of something else is asked for.
    """
    if isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__:
        return kind.__members__[name]
    raise ConfigError(
        f"a checkpoint's index asks for {name!r} of {kind!r}, which is no member of an "
        "enumeration; it was not written by torch"
    )
