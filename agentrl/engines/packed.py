"""One forward pass over pieces of many sequences, laid end to end; keys and values lie in slots.

The attention function is registered with transformers and gets the pass as the keyword `packed` of
the model's `forward`. It writes the pieces' keys and values into their slots and lets each token
see its own slot up to itself. Neighbouring slots with pieces alike are read as one view. Axes: `T`
tokens of the pass, `M` rows of a span, `C` tokens of a row, `H` query heads, `K` key heads, `R`
query heads of a key head, `L` positions, `D` numbers of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import AttentionInterface

from agentrl.core.errors import EngineError
from agentrl.engines.rows import whole_grains
from agentrl.engines.slots import Pool

NAME = "agentrl_packed"
SHORT = 64
"""Longest piece (tokens) that is padded to its neighbours; longer ones are computed alone."""
LONGEST = 512
"""Longest piece: the mask of one has as many lines for each query head of a key head."""
MASK = 1 << 22
"""Most elements of the mask of a span."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` tokens of the sequence in `slot`, from position `start` on."""

    slot: int
    start: int
    count: int

    @property
    def end(self) -> int:
        """Positions that are filled afterwards."""
        return self.start + self.count


class Packed:
    """The pieces of one pass, in the order of its tokens."""

    def __init__(self, pool: Pool, pieces: Sequence[Piece]) -> None:
        self.pool = pool
        counts_P = np.array([piece.count for piece in pieces])
        slots_T = np.repeat([piece.slot for piece in pieces], counts_P)
        firsts_P = np.cumsum(counts_P) - counts_P
        offsets_P = np.array([piece.start for piece in pieces]) - firsts_P
        positions_T = np.arange(counts_P.sum()) + np.repeat(offsets_P, counts_P)
        heads = np.arange(pool.shape.heads)
        flat_TK = (slots_T[:, None] * pool.shape.heads + heads) * pool.length + positions_T[:, None]
        device = pool.shape.device
        self.position_ids = torch.from_numpy(positions_T)[None].to(device)
        self.flat = torch.from_numpy(flat_TK.reshape(-1)).to(device)
        """Where a key of a token lies in a layer's pool seen as `[S*K*L, D]`."""
        self.last = firsts_P + counts_P - 1
        """The last token of each piece."""
        self.spans = [
            (_Span if span[0].count == 1 else _Padded)(pool, span) for span in _spans(pool, pieces)
        ]

    def attend(
        self,
        layer: int,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """`[T,H,D]`, after the keys and values were stored."""
        shape = self.pool.shape
        for pool, new in zip(self.pool.content[:, layer], (key_KTD, value_KTD), strict=True):
            width = new.shape[-1]
            flat = pool.view(-1, shape.width)[:, :width]
            flat.index_put_((self.flat,), new.transpose(0, 1).reshape(-1, width))
        keys, values = self.pool.content[:, layer]
        keys, values = keys[..., : shape.key_dim], values[..., : shape.value_dim]
        query_THD = query_HTD.transpose(0, 1)
        parts = []
        first = 0
        for span in self.spans:
            part = query_THD[first : first + span.tokens]
            parts.append(span.attend(part, keys, values, scale))
            first += span.tokens
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _spans(pool: Pool, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Runs of pieces that are computed together: neighbouring slots, one token each or few."""
    span: list[Piece] = []
    longest = 0
    for piece in pieces:
        longest = max(longest, piece.end)
        size = (len(span) + 1) * SHORT * pool.shape.queries * longest
        if span and not (
            piece.slot == span[-1].slot + 1
            and (piece.count == 1) == (span[-1].count == 1)
            and max(piece.count, span[-1].count) <= SHORT
            and (piece.count == 1 or size <= MASK)
        ):
            yield span
            span, longest = [], piece.end
        span.append(piece)
    yield span


class _Span:
    """Rows in neighbouring slots, one token each."""

    def __init__(self, pool: Pool, pieces: Sequence[Piece]) -> None:
        self.tokens = sum(piece.count for piece in pieces)
        self.slots = slice(pieces[0].slot, pieces[0].slot + len(pieces))
        self.length = min(whole_grains(max(piece.end for piece in pieces)), pool.length)
        self.mask = self._mask(pool, pieces)

    def _mask(self, pool: Pool, pieces: Sequence[Piece]) -> torch.Tensor | None:
        ends_M = np.array([piece.end for piece in pieces])
        return _hidden(ends_M[:, None, None], self.length, pool)

    def attend(
        self, query_THD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """`[T,H,D]` of the span's tokens."""
        keys_MKLD = keys[self.slots, :, : self.length]
        values_MKLD = values[self.slots, :, : self.length]
        query_MKCD = self._rows(query_THD, keys_MKLD.shape[1])
        out_MKCD = sdpa(query_MKCD, keys_MKLD, values_MKLD, attn_mask=self.mask, scale=scale)
        return self._tokens(out_MKCD, query_THD.shape[1])

    def _rows(self, query_THD: torch.Tensor, heads: int) -> torch.Tensor:
        return query_THD.reshape(len(query_THD), heads, -1, query_THD.shape[-1])

    def _tokens(self, out_MKCD: torch.Tensor, heads: int) -> torch.Tensor:
        return out_MKCD.reshape(len(out_MKCD), heads, -1)


class _Padded(_Span):
    """Rows in neighbouring slots, a few tokens each: padded to the longest by repeated tokens."""

    def _mask(self, pool: Pool, pieces: Sequence[Piece]) -> torch.Tensor:
        counts_M = np.array([piece.count for piece in pieces])
        steps_C = np.arange(counts_M.max())
        firsts_M = np.cumsum(counts_M) - counts_M
        device = pool.shape.device
        picked_MC = firsts_M[:, None] + np.minimum(steps_C, counts_M[:, None] - 1)
        self.picked = torch.from_numpy(picked_MC).to(device)
        kept_MC = steps_C < counts_M[:, None]
        self.kept = torch.from_numpy(kept_MC.reshape(-1).nonzero()[0]).to(device)
        starts_M = np.array([piece.start for piece in pieces])
        ends_MC = np.repeat(starts_M[:, None] + steps_C + 1, pool.shape.queries, axis=1)
        return _hidden(ends_MC[:, None], self.length, pool)

    def _rows(self, query_THD: torch.Tensor, heads: int) -> torch.Tensor:
        m, c = self.picked.shape
        query_MCKRD = query_THD[self.picked].reshape(m, c, heads, -1, query_THD.shape[-1])
        return query_MCKRD.transpose(1, 2).reshape(m, heads, -1, query_THD.shape[-1])

    def _tokens(self, out_MKCD: torch.Tensor, heads: int) -> torch.Tensor:
        m, k, _, d = out_MKCD.shape
        c = self.picked.shape[1]
        out_MCKRD = out_MKCD.reshape(m, k, c, -1, d).transpose(1, 2)
        return out_MCKRD.reshape(m * c, heads, d)[self.kept]


def _hidden(ends: np.ndarray, length: int, pool: Pool) -> torch.Tensor:
    """What is added to scores: 0 for positions before `ends`, minus infinity from there on."""
    line = torch.zeros(2 * length, dtype=pool.shape.dtype, device=pool.shape.device)
    line[length:] = -torch.inf
    starts = torch.from_numpy(length - np.minimum(ends, length).reshape(-1)).to(line.device)
    return line.unfold(0, length, 1).index_select(0, starts).view(*ends.shape, length)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Packed | None = None,
    scaling: float | None = None,
    **known: object,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: all `[1,heads,T,D]`; returns `[1,T,H,D]`."""
    if packed is None:
        raise EngineError(
            "the model was called while an engine samples from it: training and sampling must not "
            "overlap on one module"
        )
    bent = [name for name in BENDING if known.get(name) is not None]
    bent += ["a mask of its own"] if attention_mask is not None else []
    bent += ["sight of later tokens"] if known.get("is_causal") is False else []
    if bent:
        raise EngineError(f"its attention has {', '.join(bent)}, which slots do not honour")
    layer: int = module.layer_idx  # type: ignore[assignment]
    return packed.attend(layer, query[0], key[0], value[0], scaling)[None], None


BENDING = (
    "sliding_window",
    "softcap",
    "s_aux",
    "sinks",
    "position_bias",
    "indices",
    "block_indices",
    "cu_seq_lens_q",
)
"""Keywords that change what attention computes, and which `Packed` does not honour."""

AttentionInterface.register(NAME, _attention)
