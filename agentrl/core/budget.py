"""What a correct answer is worth by its length, where lengths are budgeted (HBPO)."""

from __future__ import annotations

import math


def worth(tokens: float, cap: int, peak: float = 4.0) -> float:
    """`peak cos(pi n / (2 cap))`: `peak` for nothing, 0 at `cap` tokens (Lyu et al. 2025, HBPO,
    arXiv 2507.15844)."""
    return peak * math.cos(math.pi * tokens / (2 * cap))
