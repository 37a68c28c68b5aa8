"""How many of torch's threads a forward pass gets: one for few tokens of a small model, else all.

Threads wait for each other in every operation of a pass, which costs a pass of some dozens of
tokens more than they save it. The number follows from the model and the tokens alone, never from
what a clock says, since rounding may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import torch

from agentrl.engines.attention import unwrapped

T = TypeVar("T")

WIDE = 2**29
"""Weights times tokens from which all threads are worth it. Two were, on two idle cores, from 0.5
to 0.6e9 on at 4M and 33M parameters, and never below 0.35e9 at 0.65M."""


class Passes:
    """Small passes run in the thread that asks, wide ones in a thread that has all of torch's.

    torch keeps the number by thread, but the one set last is what new threads take on: so it is
    set once for each, at the start, and never from pass to pass.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        embedding = unwrapped(module).get_input_embeddings()
        looked_up = sum(weight.numel() for weight in embedding.parameters())
        self.weights = sum(weight.numel() for weight in module.parameters()) - looked_up
        self._is_on_cpu = next(module.parameters()).device.type == "cpu"
        self._wide: ThreadPoolExecutor | None = None

    def narrow(self, thread: Executor) -> None:
        """The executor's one thread computes alone from now on; the caller and all threads that are
        still to come keep the number that the caller has."""
        count = torch.get_num_threads()
        if count == 1 or not self._is_on_cpu:
            return
        self._wide = ThreadPoolExecutor(1, "transformers-wide", initializer=_use, initargs=(count,))
        thread.submit(_use, 1).result()
        torch.set_num_threads(count)

    def run(self, tokens: int, work: Callable[[], T]) -> T:
        """Do work that passes so many tokens through the model; what it returns or raises."""
        if self._wide is None or tokens * self.weights < WIDE:
            return work()
        return self._wide.submit(_inferring, work).result()

    def close(self) -> None:
        """End the other thread after its pass."""
        if self._wide is not None:
            self._wide.shutdown(wait=False)


def _use(count: int) -> None:
    """This thread has so many. A number that is set before torch has looked is overwritten by the
    common one when it does."""
    torch.get_num_threads()
    torch.set_num_threads(count)


def _inferring(work: Callable[[], T]) -> T:
    """Whether gradients are kept is another matter of each thread."""
    with torch.inference_mode():
        return work()
