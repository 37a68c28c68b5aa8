"""After an update the engine gets the weights, and proves it.

The parity probe compares the engine's logprobs of fixed tokens with the trainer's; a push that did
not arrive, or arrived in part, stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Engine
from agentrl.train.score import evaluating

EXACT = 1e-4
"""Largest difference of any logprob (nats) between engine and trainer in float32."""
ROUNDED = 5e-2
"""Largest mean difference in a shorter type."""


async def push(
    engine: Engine,
    module: torch.nn.Module,
    version: int,
    probe_ids: Sequence[int],
    *,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> float:
    """Hand the engine version `version` and compare logprobs of `probe_ids`.

    Args:
        tensors: all weights under their canonical names; None where the engine samples from
            `module` itself.

    Returns:
        The largest absolute difference in nats in float32, the mean one in a shorter type.

    Raises:
        TrainingError: the engine does not sample from the weights that were trained.
    """
    await engine.load_weights(tensors or {}, version)
    theirs = await engine.probe(probe_ids)
    with evaluating(module):
        parameter = next(module.parameters())
        ids_1T = torch.tensor([list(probe_ids)], device=parameter.device)
        logp_TV = module(input_ids=ids_1T, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        ours = logp_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()
    gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    # An engine that samples in a shorter type than the trainer's says so.
    is_exact = parameter.dtype == torch.float32 and getattr(engine, "is_exact", True)
    mean = fsum(gaps) / len(gaps)
    within = all(gap <= EXACT for gap in gaps) if is_exact else mean <= ROUNDED
    if not within:
        raise TrainingError(
            f"weight push {version} failed its parity probe: the engine's logprobs differ from the "
            f"trainer's by {mean:.2e} nats on average over {len(gaps)} tokens"
        )
    return max(gaps) if is_exact else mean
