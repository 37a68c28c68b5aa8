"""What the backends of several processes have in common: joining, counting, exchanging, leaving.

Rank and world come from `torch.distributed`. Every wait for other ranks has the process group's
deadline, and one that fails ends in a `DeadlineError` that names the rank, never in silence.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, TypeVar

import torch
import torch.distributed as dist
from annotated_types import Gt

from agentrl.core.errors import AgentRLError, ConfigError, DeadlineError, TrainingError
from agentrl.train.parallel.launch import check_launch

T = TypeVar("T")

LOST = ("gloo", "nccl", "timed out", "connection", "pair closure", "store")
"""Words of what torch.distributed raises, often a bare RuntimeError, when a rank is gone."""
SETTLE_S = 0.3
"""How long gloo's threads get to let go of their last work, before the interpreter may end."""


@dataclass(kw_only=True)
class Processes:
    """The processes of one training run, one for each device."""

    name: ClassVar[str]
    """How configs call the backend."""

    timeout_s: Annotated[float, Gt(0)] = 600.0
    """Seconds after which a wait for the other ranks is given up (above 0); rollouts count, since
    ranks wait for the one that collects longest."""
    _place: tuple[int, int] | None = field(default=None, init=False, repr=False, compare=False)
    _is_host: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def rank(self) -> int:
        """This process's number."""
        return self._joined()[0]

    @property
    def world(self) -> int:
        """How many processes there are."""
        return self._joined()[1]

    def _joined(self) -> tuple[int, int]:
        if self._place is None:
            raise TrainingError(f"parallel {self.name!r} was used before start()")
        return self._place

    def start(self) -> None:
        """Join the others and prove that all of them are there and want the same.

        A process group that exists already is used as it is, and is not closed.
        """
        check_launch(self.name)
        if not dist.is_initialized():
            self._open()
        self._place = dist.get_rank(), dist.get_world_size()
        self._prove_launch()

    def _open(self) -> None:
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=self.timeout_s))
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"parallel {self.name!r}: rank {os.environ['RANK']} could not join the other "
                f"{int(os.environ['WORLD_SIZE']) - 1} within {self.timeout_s:g} s "
                f"({brief(error)}); was the same command started for every rank?"
            ) from error
        self._is_host = True

    def _prove_launch(self) -> None:
        asked, (rank, world) = os.environ["WORLD_SIZE"], self._joined()
        if int(asked) != world:
            raise ConfigError(
                f"parallel {self.name!r}: the launcher announced WORLD_SIZE={asked}, and "
                f"torch.distributed joined {world} processes"
            )
        device = torch.cuda.current_device() if torch.cuda.is_available() else os.getpid()
        found = self.exchange((rank, repr(self), socket.gethostname(), device))
        if [r for r, _, _, _ in found] != list(range(world)):
            raise ConfigError(
                f"parallel {self.name!r}: expected the ranks 0 to {world - 1}, and they call "
                f"themselves {[r for r, _, _, _ in found]}"
            )
        if len(settings := {text for _, text, _, _ in found}) > 1:
            raise ConfigError(
                f"parallel: the ranks were started with different settings: "
                f"{'; '.join(sorted(settings))}"
            )
        if len({place[2:] for place in found}) < world:
            raise ConfigError(
                f"parallel {self.name!r}: two ranks of one machine use the same device; start one "
                "process for each, and let the launcher set LOCAL_RANK"
            )

    @contextmanager
    def waiting(self, for_what: str) -> Iterator[None]:
        """Names what failed if another rank is gone.

        Raises:
            DeadlineError: the others did not take part within `timeout_s`.
        """
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, AgentRLError) or not is_lost(error):
                raise
            rank, world = self._joined()
            raise DeadlineError(
                f"rank {rank} of {world} waited for the others in {for_what} and gave up "
                f"(parallel.timeout_s={self.timeout_s:g}): another process ended or fell behind; "
                f"look at its output first ({brief(error)})"
            ) from error

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Sequence[float]) -> list[float]:
        """Maxima over all ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        self._joined()
        tensor = torch.tensor(list(values), dtype=torch.float64)
        with self.waiting("a sum over ranks"):
            dist.all_reduce(tensor, op=how)
        return [float(value) for value in tensor]

    def exchange(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks."""
        _, world = self._joined()
        found: list[T | None] = [None] * world
        with self.waiting("an exchange"):
            dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def close(self) -> None:
        """Leave the group, unless it existed before."""
        if self._is_host and dist.is_initialized():
            dist.destroy_process_group()
            # A thread of gloo that lets go of its last work needs the GIL, and one that asks for it
            # while the interpreter ends aborts the process (3 times in 60 after a lost rank).
            time.sleep(SETTLE_S)
        self._is_host = False


def is_lost(error: BaseException) -> bool:
    """Whether this is torch.distributed saying that another rank is gone or late."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in LOST)


def brief(error: BaseException) -> str:
    """The first 200 characters of an error, in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
