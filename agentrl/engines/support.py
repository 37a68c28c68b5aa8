"""Whether a model can be sampled through slots: what its config says, and a numerical check."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from agentrl.core.errors import EngineError
from agentrl.engines.attention import sampling, unwrapped
from agentrl.engines.packed import NAME, Packed, Piece
from agentrl.engines.rows import whole_grains
from agentrl.engines.slots import Pool, Shape

EXACT = 1e-4
"""Largest difference of any logprob (nats) between the two ways of computing it, in float32."""
ROUNDED = 5e-2
"""Largest mean difference in a shorter type."""
CHECKED = ((70, 5), (1, 1), (9, 14), (10, 10))
"""Tokens of two sequences in the passes of the check: alone, one each, a few each."""


@torch.no_grad()
def measure(module: torch.nn.Module) -> Shape:
    """The shape of the model's keys and values.

    Raises:
        EngineError: slots cannot stand for the model's own cache; it says why.
    """
    if why := _refusal(module):
        raise EngineError(why)
    ids_1T = torch.arange(1, 5, device=next(module.parameters()).device)[None]
    recorder = _Recorder()
    with sampling(module, NAME):
        module(input_ids=ids_1T, use_cache=False, packed=recorder)
    shape = recorder.shape(int(unwrapped(module).config.get_text_config().num_hidden_layers))
    _compare(module, shape)
    return shape


def _refusal(module: torch.nn.Module) -> str | None:
    """What its config says against it."""
    model = unwrapped(module)
    if not type(model).__module__.startswith("transformers."):
        return "its code is not transformers' own"
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    takes = inspect.signature(model.forward).parameters
    reasons = {
        "it has an encoder": bool(getattr(model.config, "is_encoder_decoder", False)),
        f"it has layers of {', '.join(sorted(layers))}": bool(layers),
        f"it sees a window of {window} tokens": window is not None,
        "it keeps a state": bool(getattr(model, "_is_stateful", False)),
        "its attention scores are capped": bool(getattr(config, "attn_logit_softcapping", None)),
        "its scores depend on distance (ALiBi)": bool(getattr(config, "alibi", False)),
        "its positions have several axes (mRoPE)": "mrope_section" in rope,
        "its rotation depends on the longest row": rope.get("rope_type") in ("dynamic", "longrope"),
        "it does not take its attention from transformers' AttentionInterface": (
            not model._supports_attention_backend
        ),
        "it computes no logits for chosen positions": not {"logits_to_keep", "position_ids"}
        <= takes.keys(),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class _Recorder:
    """Stands for `Packed`: computes plain causal attention and keeps the shapes."""

    def __init__(self) -> None:
        self.seen: dict[int, Shape] = {}

    def attend(
        self,
        layer: int,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scale: float | None,
    ) -> torch.Tensor:
        """`[T,H,D]`."""
        heads, _, key_dim = key_KTD.shape
        queries = len(query_HTD) // heads
        self.seen[layer] = Shape(
            0, heads, queries, key_dim, value_KTD.shape[-1], key_KTD.dtype, key_KTD.device
        )
        key, value = (x.repeat_interleave(queries, dim=0) for x in (key_KTD, value_KTD))
        out_HTD = scaled_dot_product_attention(query_HTD, key, value, is_causal=True, scale=scale)
        return out_HTD.transpose(0, 1)

    def shape(self, layers: int) -> Shape:
        """What all layers agree on."""
        kinds = set(self.seen.values())
        if sorted(self.seen) != list(range(layers)) or len(kinds) != 1:
            raise EngineError("its layers keep different things")
        return kinds.pop()._replace(layers=layers)


def logits_by_pieces(
    module: torch.nn.Module,
    shape: Shape,
    sequences: Sequence[Sequence[int]],
    passes: Sequence[Sequence[int]],
) -> list[torch.Tensor]:
    """`[T,V]` logits of each sequence, computed in passes of so many tokens of each through slots
    of their own."""
    pool = Pool(shape, len(sequences), whole_grains(max(len(ids) for ids in sequences)))
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    starts = [0] * len(sequences)
    for counts in filter(any, passes):
        pieces = [Piece(i, starts[i], count) for i, count in enumerate(counts) if count]
        packed = Packed(pool, pieces)
        ids = [token for p in pieces for token in sequences[p.slot][p.start : p.end]]
        with sampling(module, NAME):
            logits_TV = module(
                input_ids=torch.tensor([ids], device=shape.device),
                position_ids=packed.position_ids,
                use_cache=False,
                packed=packed,
            ).logits[0]
        for piece, part in zip(pieces, logits_TV.split([p.count for p in pieces]), strict=True):
            found[piece.slot].append(part)
            starts[piece.slot] = piece.end
    return [torch.cat(parts) for parts in found]


def _compare(module: torch.nn.Module, shape: Shape) -> None:
    """Random tokens in ragged pieces against the model's own forward pass."""
    generator = torch.Generator().manual_seed(0)
    size = int(unwrapped(module).get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    lengths = [sum(counts) for counts in zip(*CHECKED, strict=True)]
    sequences = [torch.randint(size, (n,), generator=generator).tolist() for n in lengths]
    ours = logits_by_pieces(module, shape, sequences, CHECKED)
    for ids, logits_TV in zip(sequences, ours, strict=True):
        own_TV = module(input_ids=torch.tensor([ids], device=shape.device), use_cache=False).logits
        if not own_TV.isfinite().all():
            return  # the weights are broken: nothing can be compared, and every request will say so
        gap_TV = (logits_TV.float().log_softmax(-1) - own_TV[0].float().log_softmax(-1)).abs()
        is_exact = shape.dtype == torch.float32
        gap = float(gap_TV.max() if is_exact else gap_TV.mean())
        if not gap <= (EXACT if is_exact else ROUNDED):
            raise EngineError(f"logprobs through slots differ from its own by {gap:.1e} nats")
