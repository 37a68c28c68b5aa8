"""The weights that servers have to have: kept at hand for one that comes back after a failure.

A trainer's tensors are not copied. They are remembered with fingerprints, so that it is noticed
when the trainer has moved on: then they are no longer what was pushed, and are not pushed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors.torch import load_file

from agentrl.core.errors import EngineError

SAMPLED = 16
"""Elements of each tensor that its fingerprint looks at, besides torch's count of changes."""


class GoneError(EngineError):
    """The weights are no longer what they were; newer ones will come."""


class Held(Protocol):
    """Weights of one version."""

    @property
    def version(self) -> int:
        """Which one."""
        ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All weights under their canonical names. Raises `GoneError` if they are no more."""
        ...

    def check(self) -> None:
        """They are still what they were. Raises `GoneError`."""


class Print(NamedTuple):
    """What a tensor looked like."""

    changes: int
    sample: tuple[float, ...]


@dataclass(kw_only=True)
class HeldTensors:
    """The tensors of a push, which the trainer may own and change."""

    version: int
    given: Mapping[str, torch.Tensor]
    _prints: dict[str, Print] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._prints = {name: _print(tensor) for name, tensor in self.given.items()}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What was given."""
        self.check()
        return self.given

    def check(self) -> None:
        """Compare the fingerprints."""
        for name, tensor in self.given.items():
            if _print(tensor) != self._prints[name]:
                raise GoneError(
                    f"the weights of version {self.version} are gone: the trainer has changed "
                    f"{name} since; the next push brings newer ones"
                )


@dataclass(frozen=True, kw_only=True)
class HeldFolder:
    """The weights of a Hugging Face folder, which nobody changes."""

    version: int
    folder: Path

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All tensors of its safetensors files, read anew."""
        found: dict[str, torch.Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            found |= load_file(path)
        return found

    def check(self) -> None:
        """Files stay as they are."""


def _print(tensor: torch.Tensor) -> Print:
    with torch.no_grad():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED)].double().tolist()
    return Print(0 if tensor.is_inference() else tensor._version, tuple(sample))
