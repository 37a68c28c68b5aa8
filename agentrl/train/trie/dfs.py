"""Nodes span by span, depth-first, on the keys and values of the path: memory for one span's graph
and one path, however large the tree is.

Logprobs come from a pass without a graph. The backward pass, which knows `dL/dlogp` of every node
(so any function of the logprobs is exact, ratios of whole sequences included), walks again: a span
is computed with its graph when all its descendants have left their gradients at its keys and
values. Inner spans are computed three times, leaves twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from agentrl.train.trie.executors import is_sharded, refused_by_config
from agentrl.train.trie.forest import Forest, Span, Wanted
from agentrl.train.trie.segment import distributions


@dataclass(frozen=True)
class Dfs:
    """Depth-first with a forked cache."""

    def refusal(self, module: torch.nn.Module) -> str:
        """Ranks make different numbers of forward passes, so they must not meet in them."""
        if is_sharded(module) or type(module).__name__ == "DeepSpeedEngine":
            return "ranks meet in every forward pass or backward hook of this backend"
        return refused_by_config(module)

    def score(
        self,
        module: torch.nn.Module,
        forest: Forest,
        wanted: Wanted,
        *,
        chunk: int,
        entropy_grad: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Under DDP a forward pass of two tokens, times zero, makes ranks exchange gradients: those
        of the walk reach each weight in the same backward pass, once."""
        weights = [w for w in module.parameters() if w.requires_grad]
        inner = module.module if isinstance(module, DistributedDataParallel) else module
        walk = Walk(inner, forest, wanted, chunk, entropy_grad, weights)
        if not (weights and torch.is_grad_enabled()):
            return walk.forward()
        logp_N, entropy_N = Walked.apply(walk, *weights)  # type: ignore[no-untyped-call]
        if inner is not module:
            two = torch.from_numpy(forest.ids_T[[0, 0]]).to(weights[0].device)
            logp_N = logp_N + 0 * module(input_ids=two[None], use_cache=False).logits.sum()
        return logp_N, entropy_N


Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values `[1,H,L,D]` of each layer."""


class Found(NamedTuple):
    """What a span gives: its part of `N`, and its own keys and values."""

    logp_N: torch.Tensor
    entropy_N: torch.Tensor
    layers: Layers


@dataclass
class Frame:
    """A span whose descendants are being computed, and what they have left."""

    number: int
    layers: Layers
    grads: Layers = field(init=False)

    def __post_init__(self) -> None:
        self.grads = [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in self.layers]


@dataclass
class Walk:
    """One tree under one module."""

    module: torch.nn.Module
    forest: Forest
    wanted: Wanted
    chunk: int
    entropy_grad: bool
    weights: Sequence[torch.Tensor]

    @torch.no_grad()
    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N]` logprobs and entropies."""
        logps, entropies = [], []
        path: list[tuple[int, Layers]] = []
        with without_checkpoints(self.module):
            for number, span in enumerate(self.forest.spans):
                while path and path[-1][0] != span.parent:
                    path.pop()
                found = self.run(span, joined([layers for _, layers in path]))
                logps.append(found.logp_N)
                entropies.append(found.entropy_N)
                if span.end > span.stop:
                    path.append((number, found.layers))
        return torch.cat(logps), torch.cat(entropies)

    def run(self, span: Span, past: Layers) -> Found:
        """Compute one span."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        device = next(self.module.parameters()).device
        parents_R, part = self.wanted.parents_R, self.part(span)
        first, last = np.searchsorted(parents_R, (span.start, span.stop))
        nodes = slice(span.start, span.stop)
        cache, seen = DynamicCache(), past[0][0].shape[2] if past else 0
        for keys, values in past:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        logits_RV = self.module(
            input_ids=torch.from_numpy(self.forest.ids_T[nodes]).to(device)[None],
            position_ids=torch.from_numpy(self.forest.depth_T[nodes]).to(device)[None],
            attention_mask=torch.ones(
                1, seen + span.stop - span.start, dtype=torch.long, device=device
            ),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(parents_R[first:last] - span.start).to(device),
        ).logits[0]
        logp_N, entropy_N = distributions(
            logits_RV, self.wanted, part, self.chunk, self.entropy_grad
        )
        pairs = ((layer.keys, layer.values) for layer in cast("list[DynamicLayer]", cache.layers))
        own = [(k[:, :, seen:], v[:, :, seen:]) for k, v in cast("Layers", pairs)]
        return Found(logp_N, entropy_N, own)

    def part(self, span: Span) -> slice:
        """Where in `N` the children of this span's nodes stand."""
        first, last = np.searchsorted(self.wanted.parent_N, (span.start, span.stop))
        return slice(int(first), int(last))

    def backward(
        self, dlogp_N: torch.Tensor, dentropy_N: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """Gradients of the weights."""
        total: list[torch.Tensor | None] = [None] * len(self.weights)
        path: list[Frame] = []

        def settle(number: int, grads: Layers | None) -> None:
            found = self.settle(number, path, grads, dlogp_N, dentropy_N)
            for i, grad in enumerate(found):
                if grad is not None:
                    held = total[i]
                    total[i] = grad if held is None else held.add_(grad)

        for number, span in enumerate(self.forest.spans):
            while path and path[-1].number != span.parent:
                frame = path.pop()
                settle(frame.number, frame.grads)
            if span.end == span.stop:
                settle(number, None)
            else:
                with torch.no_grad():
                    layers = self.run(span, joined([frame.layers for frame in path])).layers
                path.append(Frame(number, layers))
        while path:
            frame = path.pop()
            settle(frame.number, frame.grads)
        return total

    def settle(
        self,
        number: int,
        path: Sequence[Frame],
        grads: Layers | None,
        dlogp_N: torch.Tensor,
        dentropy_N: torch.Tensor,
    ) -> Sequence[torch.Tensor | None]:
        """The weights' gradients from this span, given those of its keys and values (None for a
        leaf); those of its ancestors' are left with them."""
        span = self.forest.spans[number]
        part = self.part(span)
        past = joined([frame.layers for frame in path])
        leaves = [tensor.requires_grad_() for pair in past for tensor in pair]
        with torch.enable_grad():
            found = self.run(span, past)
        pairs = [(found.logp_N, dlogp_N[part]), (found.entropy_N, dentropy_N[part])]
        for own, given in zip(found.layers if grads else (), grads or (), strict=True):
            pairs += zip(own, given, strict=True)
        pairs = [(out, grad) for out, grad in pairs if out.requires_grad and out.numel()]
        if not pairs:
            return []
        outs, douts = zip(*pairs, strict=True)
        inputs = [*self.weights, *leaves]
        gotten = torch.autograd.grad(outs, inputs, douts, allow_unused=True)
        self._leave(path, gotten[len(self.weights) :])
        return gotten[: len(self.weights)]

    def _leave(self, path: Sequence[Frame], gotten: Sequence[torch.Tensor | None]) -> None:
        first = 0
        for frame in path:
            sums = [tensor for pair in frame.grads for tensor in pair]
            last = first + sums[0].shape[2]
            for held, grad in zip(sums, gotten, strict=True):
                if grad is not None:
                    held += grad[:, :, first:last]
            first = last


@contextmanager
def without_checkpoints(module: torch.nn.Module) -> Iterator[None]:
    """Not in training mode, in which layers that are checkpointed ignore the past; nothing is
    dropped at random either way."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def joined(pieces: Sequence[Layers]) -> Layers:
    """Keys and values of a whole path."""
    return [
        (torch.cat([k for k, _ in layer], dim=2), torch.cat([v for _, v in layer], dim=2))
        for layer in zip(*pieces, strict=True)
    ]


class Walked(torch.autograd.Function):
    """A walk as one operation: scores of nodes from weights."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, walk: Walk, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N]` logprobs and entropies."""
        ctx.walk = walk  # type: ignore[attr-defined]
        logp_N, entropy_N = walk.forward()
        if not walk.entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return logp_N, entropy_N

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx,
        dlogp_N: torch.Tensor,
        dentropy_N: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the weights, each once."""
        walk: Walk = ctx.walk  # type: ignore[attr-defined]
        with without_checkpoints(walk.module):
            return None, *walk.backward(dlogp_N, dentropy_N)
