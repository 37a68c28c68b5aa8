"""Attention in a packed tree: a token sees its ancestors and itself, and no tensor is T x T.

The keys of a span are seen by itself (causally) and by all of its descendants (wholly), which
stand behind it without a gap. So one causal call for each span, with the queries from its start to
the end of its subtree and only its own keys, sees every pair once: no mask, no gathering of
ancestors. Parts are merged by their log-sum-exp, and each part's backward, fed with the merged
output and log-sum-exp, is exact, as in ring attention (Liu et al. 2023, arXiv 2310.01889).

Where torch lacks that kernel, or the layer has a window that a path outgrows, each span attends to
its gathered path under a mask. transformers' `sdpa` hands calls that carry a tree to `attend`; all
others go on as they were. Axes: `H` heads, `T` nodes, `D` head width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from agentrl.core.errors import ConfigError
from agentrl.train.trie.forest import Forest, bare

if TYPE_CHECKING:
    from agentrl.train.trie.flex import Ancestors

logger = logging.getLogger(__name__)

Attention: TypeAlias = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
"""What transformers calls in each layer."""


@cache
def install() -> None:
    """Let `sdpa` attend in trees. By its own name a module would have to be switched for the
    backward pass too, in which gradient checkpointing runs its layers again."""
    from transformers import AttentionInterface  # seconds, which a config need not wait for
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain: Attention = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def sdpa(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        tree: Forest | None = None,
        ancestors: Ancestors | None = None,
        **settings: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if tree is None:
            return plain(module, query, key, value, attention_mask, **settings)
        known = ("s_aux", "softcap", "position_bias")
        if odd := [name for name in known if settings.get(name) is not None]:
            raise ConfigError(
                f"scorer.executor: attention with {odd[0]} ({type(module).__name__}) cannot be "
                "taken apart into spans; set scorer=padded"
            )
        scale = cast("float | None", settings.get("scaling")) or query.shape[-1] ** -0.5
        window = cast("int | None", settings.get("sliding_window"))
        if ancestors is not None:
            return ancestors.attend(query, key, value, scale, window).transpose(1, 2), None
        return attend(query, key, value, tree, scale, window).transpose(1, 2), None

    AttentionInterface.register("sdpa", sdpa)


def attend(
    q_HTD: torch.Tensor,
    k_HTD: torch.Tensor,
    v_HTD: torch.Tensor,
    tree: Forest,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """`[1,H,T,D]`; keys and values may have fewer heads. A window counts along the path."""
    if window is not None and window > int(tree.depth_T.max()):
        window = None
    fits = q_HTD.shape[-1] == v_HTD.shape[-1] and q_HTD.device.type == "cpu"
    if window is None and fits and can_merge(q_HTD.dtype):
        return cast("torch.Tensor", Merged.apply(q_HTD, k_HTD, v_HTD, tree, scale))  # type: ignore[no-untyped-call]
    return gathered(q_HTD, k_HTD, v_HTD, tree, scale, window)


def gathered(
    q_HTD: torch.Tensor,
    k_HTD: torch.Tensor,
    v_HTD: torch.Tensor,
    tree: Forest,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Each span on the keys of its whole path, under a mask."""
    parts = []
    for number, span in enumerate(tree.spans):
        path = [slice(*tree.spans[s][:2]) for s in tree.path(number)]
        own = slice(span.start, span.stop)
        keys = torch.cat([k_HTD[:, :, piece] for piece in (*path, own)], dim=2)
        values = torch.cat([v_HTD[:, :, piece] for piece in (*path, own)], dim=2)
        length, seen = span.stop - span.start, keys.shape[2]
        mask = torch.ones(length, seen, dtype=torch.bool, device=keys.device).tril(seen - length)
        if window is not None:
            mask = mask.triu(seen - length - window + 1)
        parts.append(
            scaled_dot_product_attention(
                q_HTD[:, :, own], keys, values, attn_mask=mask, scale=scale, enable_gqa=True
            )
        )
    return torch.cat(parts, dim=2)


class Merged(torch.autograd.Function):
    """One causal call for each span, merged."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        q_HTD: torch.Tensor,
        k_HTD: torch.Tensor,
        v_HTD: torch.Tensor,
        tree: Forest,
        scale: float,
    ) -> torch.Tensor:
        """`[1,H,T,D]`, laid out as `[1,T,H,D]`."""
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        _, heads, count, width = q_HTD.shape
        out_HTD = q_HTD.new_empty(1, count, heads, width).transpose(1, 2)
        sums_HT = torch.empty(0)
        for start, stop, end, parent in tree.spans:
            part, lse = kernel(
                q_HTD[:, :, start:end],
                k_HTD[:, :, start:stop],
                v_HTD[:, :, start:stop],
                0.0,
                True,
                scale=scale,
            )
            if not sums_HT.numel():
                sums_HT = lse.new_empty(1, count, heads).transpose(1, 2)
            out, sums = out_HTD[:, :, start:end], sums_HT[:, :, start:end]
            if parent < 0:
                out.copy_(part)
                sums.copy_(lse)
            else:
                out.lerp_(part, (lse - sums).sigmoid_().to(part.dtype)[..., None])
                torch.logaddexp(sums, lse, out=sums)
        ctx.save_for_backward(q_HTD, k_HTD, v_HTD, out_HTD, sums_HT)
        ctx.tree, ctx.scale = tree, scale  # type: ignore[attr-defined]
        return out_HTD

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_HTD: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        q, k, v, out, sums = ctx.saved_tensors  # type: ignore[attr-defined]
        grads = tuple(
            torch.zeros_like(x.transpose(1, 2), memory_format=torch.contiguous_format)
            for x in (q, k, v)
        )
        dq, dk, dv = (grad.transpose(1, 2) for grad in grads)
        for start, stop, end, _ in ctx.tree.spans:  # type: ignore[attr-defined]
            rows, keys = slice(start, end), slice(start, stop)
            found = kernel(
                grad_HTD[:, :, rows],
                q[:, :, rows],
                k[:, :, keys],
                v[:, :, keys],
                out[:, :, rows],
                sums[:, :, rows],
                0.0,
                True,
                scale=ctx.scale,  # type: ignore[attr-defined]
            )
            dq[:, :, rows] += found[0]
            dk[:, :, keys] = found[1]
            dv[:, :, keys] = found[2]
        return dq, dk, dv, None, None


@cache
def can_merge(dtype: torch.dtype) -> bool:
    """Whether torch's kernel for the CPU does what `Merged` needs of it, gradients included: it is
    no public function. Tried on a small tree."""
    if not hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        return False
    gap, limit = apart(Merged.apply, dtype, torch.device("cpu"))
    if not gap < limit:
        logger.warning(
            "torch %s computes attention by parts with an error of %.1g: the token trie gathers "
            "whole paths instead, which is slower",
            torch.__version__,
            gap,
        )
    return gap < limit


def apart(
    how: Callable[..., torch.Tensor], dtype: torch.dtype, device: torch.device, *, width: int = 8
) -> tuple[float, float]:
    """The largest difference between a way to attend in trees and gathered paths, gradients
    included, on a small tree; and what it may be."""
    tree = Forest.of([bare((1, 2, 3, 4)), bare((1, 2, 3, 5, 6)), bare((1, 7)), bare((8,))])
    rng = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, heads, tree.unique, width, generator=rng).to(device, dtype).requires_grad_()
        for heads in (4, 2, 2, 4)
    )
    pairs = []
    with torch.enable_grad():
        for attended in (gathered, how):
            out = attended(q, k, v, tree, 0.3)
            pairs.append((out, *torch.autograd.grad(out, (q, k, v), grad)))
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(*pairs, strict=True))
    return gap, min(100 * torch.finfo(dtype).eps, 0.1)
