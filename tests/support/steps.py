"""Rows with advantages, and one optimiser step on them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from agentrl.algo.aggregate import TokenMean
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.protocols import Aggregate, Entropy, Kl, Loss, Scorer
from agentrl.core.types import Sum
from agentrl.train.objective import Objective
from agentrl.train.parallel.single import Single
from agentrl.train.prepare import TrainRow
from agentrl.train.score import Padded
from agentrl.train.update import update
from support.models import row

SHAPES = (((2, 3), (1, 2)), ((5, 4),), ((1, 2), (2, 2), (7, 5)), ((3, 1),), ((2, 6), (2, 1)))
"""Trajectories, each a list of rows, each (prompt length, sampled length)."""


def train_rows(*, seed: int = 0, vocabulary: int = 300, temperature: float = 1.0) -> list[TrainRow]:
    """Rows of `SHAPES` with random ids, and a random advantage for each trajectory.

    Every second sampled token of the longest rows is left untrained, as if branches shared it.
    """
    rng = random.Random(seed)
    made = []
    for number, shapes in enumerate(SHAPES):
        advantage = rng.uniform(-2, 2)
        for prompt, sampled in shapes:
            ids = [rng.randrange(6, vocabulary) for _ in range(prompt + sampled)]
            mask = [False] * prompt + [True] * sampled
            trained = [m and (sampled < 5 or t % 2 == 0) for t, m in enumerate(mask)]
            made.append(
                TrainRow(
                    row=row(ids, mask, trajectory=number, temperature=temperature),
                    advantages=TokenAdvantages(
                        tuple(advantage if m else 0.0 for m in trained), tuple(trained)
                    ),
                    old_logprobs=tuple(rng.uniform(-7, -4) if m else 0.0 for m in mask),
                )
            )
    return made


def step(
    module: torch.nn.Module,
    rows: Sequence[TrainRow],
    *,
    optimiser: torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
    aggregate: Aggregate | None = None,
    kl: Kl | None = None,
    entropy: Entropy | None = None,
    budget: int = 10_000,
    grad_clip: float = 1e9,
    scorer: Scorer | None = None,
) -> dict[str, Sum]:
    """One update; without an optimiser by plain gradient descent with step size 1."""
    backend = Single()
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    backend.wrap(module, lambda _: optimiser or torch.optim.SGD(trainable, lr=1.0))
    return update(
        rows,
        objective=Objective(
            loss=loss or PpoClip(), aggregate=aggregate or TokenMean(), kl=kl, entropy=entropy
        ),
        scorer=scorer or Padded(),
        parallel=backend,
        module=module,
        budget=budget,
        grad_clip=grad_clip,
    )


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything that is trained."""
    return {
        name: weight.detach().clone()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
