"""All nodes in one forward pass; attention by torch's `flex_attention`, for GPUs.

Nodes stand depth-first, so that a node sees those before it whose subtree has not ended yet: two
comparisons, from which torch finds the blocks of pairs that are to be computed. On a CPU torch has
the forward pass alone, which is what was compared with padded rows; on a GPU this was never run, so
`auto` does not take it, and whoever asks for it is protected by checks of logprobs and of the
gradients of attention before training. Axes as in `attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from agentrl.train.trie.attention import apart
from agentrl.train.trie.forest import Forest
from agentrl.train.trie.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn.attention.flex_attention import BlockMask


class Ancestors:
    """Which nodes of a tree see which."""

    def __init__(self, forest: Forest, device: torch.device) -> None:
        lengths = [span.stop - span.start for span in forest.spans]
        ends_T = np.repeat([span.end for span in forest.spans], lengths)
        self.end_T = torch.from_numpy(ends_T).to(device)
        """Where the subtree of each node ends."""
        self.depth_T = torch.from_numpy(forest.depth_T).to(device)
        self._blocks: dict[int | None, BlockMask] = {}

    def blocks(self, window: int | None) -> BlockMask:
        """The mask of a layer; a window counts along the path."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            end_T, depth_T, count = self.end_T, self.depth_T, len(self.end_T)

            def sees(
                _batch: torch.Tensor, _head: torch.Tensor, q: torch.Tensor, k: torch.Tensor
            ) -> torch.Tensor:
                is_above = (k <= q) & (q < end_T[k])
                return is_above if window is None else is_above & (depth_T[q] - depth_T[k] < window)

            self._blocks[window] = create_block_mask(
                sees, None, None, count, count, device=end_T.device
            )
        return self._blocks[window]

    def attend(
        self,
        q_HTD: torch.Tensor,
        k_HTD: torch.Tensor,
        v_HTD: torch.Tensor,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """`[1,H,T,D]`; keys and values may have fewer heads."""
        found = _flex(q_HTD.device.type)(
            q_HTD, k_HTD, v_HTD, block_mask=self.blocks(window), scale=scale, enable_gqa=True
        )
        return cast("torch.Tensor", found)


@cache
def _flex(device: str) -> Callable[..., object]:
    """Compiled where there is a kernel to be made; elsewhere torch computes all pairs."""
    from torch.nn.attention.flex_attention import flex_attention

    plain = cast("Callable[..., object]", flex_attention)
    return plain if device == "cpu" else torch.compile(plain)


@dataclass(frozen=True)
class Flex(Segment):
    """As `segment`, with one call of `flex_attention` in each layer."""

    def refusal(self, module: torch.nn.Module) -> str:
        """Attention must go through transformers' `sdpa`; its gradient must exist, and be that of
        gathered paths."""
        if reason := super().refusal(module):
            return reason
        weight = next(module.parameters())
        if weight.device.type == "cpu":
            return "torch's flex_attention has no backward pass on a CPU"

        def attend(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Forest, scale: float
        ) -> torch.Tensor:
            return Ancestors(tree, weight.device).attend(q, k, v, scale)

        gap, limit = apart(attend, weight.dtype, weight.device, width=64)
        return "" if gap < limit else f"its attention, or a gradient of it, is off by {gap:.1g}"

    def how(self, forest: Forest, device: torch.device) -> dict[str, object]:
        """What attention is told."""
        return {"tree": forest, "ancestors": Ancestors(forest, device)}
