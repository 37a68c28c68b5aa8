"""Logprobs of rows under the policy. `padded` is the plain scorer; others replace this one object.

Axes: `B` rows, `T` tokens, `S` scored columns, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated

import torch
from annotated_types import Ge
from torch.nn.utils.rnn import pad_sequence

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.tensors import Scores
from agentrl.core.types import Row
from agentrl.engines.attention import unwrapped


def padded(
    values: Sequence[Sequence[float]], dtype: torch.dtype, *, fill: float = 0
) -> torch.Tensor:
    """Ragged lists as one right-padded `[B,T]` tensor, `fill` behind the ends."""
    lists = [torch.tensor(v, dtype=dtype) for v in values]
    return pad_sequence(lists, batch_first=True, padding_value=fill)


@register("scorer", "padded")
@dataclass(frozen=True, kw_only=True)
class Padded:
    """Right-padded rows in one forward pass; logits only in columns that predict a sample.

    The model is told which tokens are padding only if that changes a number: a causal model never
    looks right, and a mask makes attention compute the future too.
    """

    chunk: Annotated[int, Ge(1)] = 2048
    """Positions whose float32 log-softmax is held at once."""
    _looks_left: set[type] = field(default_factory=set, init=False, repr=False, compare=False)
    """Kinds of models that were seen to need no mask."""

    def check(self, module: torch.nn.Module) -> list[str]:
        """Nothing can be wrong. Finds out whether padding has to be masked."""
        if looks_left(module):
            self._looks_left.add(type(unwrapped(module)))
        return []

    def split(self, rows: Sequence[Row], budget: int) -> list[list[int]]:
        """At most `budget` padded tokens; shortest first, so that little is padded."""
        keyed = groupby(range(len(rows)), key=lambda i: (rows[i].group, rows[i].trajectory))
        trajectories = [list(part) for _, part in keyed]
        parts: list[list[int]] = []
        widths = [max(len(rows[i].ids) for i in part) for part in trajectories]
        for width, trajectory in sorted(
            zip(widths, trajectories, strict=True), key=lambda pair: pair[0]
        ):
            if parts and width * (len(parts[-1]) + len(trajectory)) <= budget:
                parts[-1].extend(trajectory)
            else:
                parts.append(list(trajectory))
        return parts

    def score(
        self, module: torch.nn.Module, rows: Sequence[Row], *, entropy_grad: bool = False
    ) -> Scores:
        """Logprobs and entropies of the sampled tokens, `[B,T]`, in row order.

        Entropies are detached unless `entropy_grad`, which keeps all probabilities for the backward
        pass.

        Raises:
            DataError: a row begins with a sampled token, which nothing predicts.
        """
        device = next(module.parameters()).device
        ids_BT = padded([row.ids for row in rows], torch.long).to(device)
        seen_BT = None
        if type(unwrapped(module)) not in self._looks_left:
            seen_BT = padded([[1] * len(row.ids) for row in rows], torch.long).to(device)
        mask_BT = padded([row.mask for row in rows], torch.bool).to(device)
        if mask_BT[:, 0].any():
            raise DataError("a row begins with a sampled token: its prompt must not be empty")
        columns_S = mask_BT.any(dim=0).nonzero()[:, 0]
        logits_BSV = module(
            input_ids=ids_BT,
            attention_mask=seen_BT,
            use_cache=False,
            logits_to_keep=columns_S - 1,
        ).logits
        sampled_BS = mask_BT[:, columns_S]
        temperature_B = torch.tensor([row.temperature for row in rows], device=device)
        logits_NV = logits_BSV[sampled_BS]
        divisor_N = temperature_B[:, None].expand_as(sampled_BS)[sampled_BS]
        logp_N, entropy_N = tempered(
            logits_NV, divisor_N, ids_BT[mask_BT], chunk=self.chunk, entropy_grad=entropy_grad
        )
        empty_BT = torch.zeros(ids_BT.shape, dtype=torch.float32, device=device)
        return Scores(
            logp_BT=empty_BT.to(logp_N).masked_scatter(mask_BT, logp_N),
            entropy_BT=empty_BT.to(logp_N).masked_scatter(mask_BT, entropy_N),
        )


def looks_left(module: torch.nn.Module) -> bool:
    """Whether rows that are padded on the right need no mask: by a forward pass with one and a
    forward pass without. A router's auxiliary loss would count padding."""
    model = unwrapped(module)
    if not hasattr(model, "config"):
        return False
    if model.config.is_encoder_decoder or getattr(model.config, "output_router_logits", False):
        return False
    vocabulary = model.config.get_text_config().vocab_size
    ids_BT = torch.randint(vocabulary, (2, 24), generator=torch.Generator().manual_seed(0))
    seen_BT = torch.ones_like(ids_BT)
    seen_BT[1, 9:] = 0
    device = next(module.parameters()).device
    found = []
    with evaluating(module):
        for mask_BT in (seen_BT.to(device), None):
            out = module(input_ids=ids_BT.to(device), attention_mask=mask_BT, use_cache=False)
            found.append(out.logits.float().log_softmax(-1)[seen_BT.bool()])
    gap_NV = (found[0] - found[1]).abs()
    is_half = out.logits.dtype in (torch.bfloat16, torch.float16)
    return bool(gap_NV.mean() <= 5e-2 if is_half else gap_NV.max() <= 1e-4)


def tempered(
    logits_NV: torch.Tensor,
    temperature_N: torch.Tensor,
    ids_N: torch.Tensor,
    *,
    chunk: int,
    entropy_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob of one id, and entropy, of each tempered distribution, `chunk` of them at once, in
    float32 or what is wider."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    logps, entropies = [], []
    for first in range(0, len(ids_N), chunk):
        part = slice(first, first + chunk)
        logp_NV = torch.log_softmax(logits_NV[part].to(wide) / temperature_N[part, None], dim=-1)
        logps.append(logp_NV.gather(1, ids_N[part, None])[:, 0])
        if entropy_grad:  # entr has no finite gradient at probability 0
            entropies.append(-(logp_NV.exp() * logp_NV).sum(-1))
        else:
            entropies.append(torch.special.entr(logp_NV.detach().exp()).sum(-1))
    if not logps:
        return temperature_N[:0], temperature_N[:0]
    return torch.cat(logps), torch.cat(entropies)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
