"""Random numbers by counter, and the draw of a token from logits.

A token's random number depends on its request's seed and its position alone, so that a request
samples the same whatever else is in the batch. Axes: `B` requests, `V` vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def uniforms(seeds_B: np.ndarray, position: int | np.ndarray) -> torch.Tensor:
    """`[B]` float64 numbers in [0, 1): SplitMix64 (Steele et al. 2014) at counter `position`, which
    is one for all or `[B]`."""
    with np.errstate(over="ignore"):
        z = seeds_B.astype(np.uint64) + _GAMMA * np.asarray(position + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) / 2.0**53)


def draw(
    logits_BV: torch.Tensor, temperature_B: torch.Tensor, uniform_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row by the inverse distribution function, and its tempered logprob.

    Returns:
        ids `[B]` and float32 logprobs `[B]` under softmax(logits / temperature). A temperature of 0
        means the most likely token, with its logprob at temperature 1.
    """
    is_greedy_B = temperature_B == 0
    divisor_B = temperature_B.masked_fill(is_greedy_B, 1)
    scaled_BV = logits_BV.float()
    if (divisor_B != 1).any():
        scaled_BV = scaled_BV / divisor_B[:, None]
    logprobs_BV = torch.log_softmax(scaled_BV, dim=-1)
    cumulative_BV = logprobs_BV.exp().cumsum(dim=-1, dtype=torch.float64)
    target_B1 = (uniform_B.to(logits_BV.device) * cumulative_BV[:, -1])[:, None]
    ids_B = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
    ids_B = ids_B.clamp(max=logits_BV.shape[-1] - 1)
    if is_greedy_B.any():
        ids_B = torch.where(is_greedy_B, logprobs_BV.argmax(dim=-1), ids_B)
    return ids_B, logprobs_BV.gather(1, ids_B[:, None])[:, 0]
