"""Attention by parts against one explicit mask over all nodes."""

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agentrl.train.trie.attention import Merged, attend, can_merge, gathered
from agentrl.train.trie.forest import Forest
from support.trees import bushy, rows_of

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

TREES = [Forest.of(rows_of(Random(seed), 10, longest=40)) for seed in range(2)]
TREES.append(Forest.of(bushy(Random(0), depth=4, length=8)))


def explicit(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Forest, window: int | None = None
) -> torch.Tensor:
    sees = torch.zeros(tree.unique, tree.unique, dtype=torch.bool)
    for node in range(tree.unique):
        at = node
        while at >= 0:
            near = window is None or tree.depth_T[node] - tree.depth_T[at] < window
            sees[node, at] = bool(near)
            at = int(tree.parent_T[at])
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.mT * 0.4).masked_fill(~sees, -torch.inf)
    return scores.softmax(-1) @ v


def inputs(tree: Forest, dtype: torch.dtype, heads: int = 2) -> Inputs:
    rng = torch.Generator().manual_seed(0)
    laid_out = [
        torch.randn(1, tree.unique, n, 16, generator=rng, dtype=dtype) for n in (4, heads, heads)
    ]
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in laid_out)
    return q, k, v


def assert_same(
    tree: Forest, how: object, dtype: torch.dtype, limit: float, heads: int = 2
) -> None:
    tensors = inputs(tree, dtype, heads)
    expected = explicit(*tensors, tree)
    got = how(*tensors, tree, 0.4)  # type: ignore[operator]
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    torch.testing.assert_close(got, expected, rtol=0, atol=limit)
    pairs = (torch.autograd.grad(out, tensors, grad) for out in (got, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=limit * float(b.abs().max()))


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{len(tree.spans)} spans")
@pytest.mark.parametrize("how", [Merged.apply, gathered], ids=["merged", "gathered"])
def test_parts_make_the_whole(tree: Forest, how: object) -> None:
    assert_same(tree, how, torch.float64, 1e-13)
    assert_same(tree, how, torch.float32, 3e-6)
    assert_same(tree, how, torch.float64, 1e-13, heads=4)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_a_window_counts_along_the_path(window: int) -> None:
    for tree in TREES:
        tensors = inputs(tree, torch.float64)
        got = attend(*tensors, tree, 0.4, window)
        torch.testing.assert_close(got, explicit(*tensors, tree, window), rtol=0, atol=1e-13)


def test_the_kernel_of_this_torch_merges() -> None:
    assert all(can_merge(dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16))


def test_without_the_kernel_paths_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Merged.forward

    def wrong(*args: object) -> torch.Tensor:
        return broken(*args) * 1.001  # type: ignore[arg-type]

    tree = TREES[-1]
    tensors = inputs(tree, torch.float64)
    expected = attend(*tensors, tree, 0.4)
    monkeypatch.setattr(Merged, "forward", staticmethod(wrong))
    can_merge.cache_clear()
    try:
        assert not can_merge(torch.float64)
        got = attend(*tensors, tree, 0.4)
    finally:
        monkeypatch.undo()
        can_merge.cache_clear()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


def test_no_tensor_is_as_large_as_nodes_squared() -> None:
    tree = Forest.of(bushy(Random(0), depth=7, length=8))
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
            return out

    with torch.no_grad(), Sizes():  # type: ignore[no-untyped-call]
        attend(*inputs(tree, torch.float32), tree, 0.4)
    assert np.max(sizes) <= 4 * 16 * tree.unique < tree.unique**2
