"""The critic: what the states of a row are worth, learned beside the policy by its own optimiser.

The state of a sampled token is everything before it, so its value is read at the token before. What
the critic should have said comes back from the estimator (`AdvantageOut.returns`). Axes: `B` rows,
`T` tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from agentrl.algo.spread import spread
from agentrl.core.config import Config
from agentrl.core.critic import Critic as Settings
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Parallel
from agentrl.core.shapes import name_of
from agentrl.core.types import AdvantageOut, Group, Level, Row, Sum, merge_metrics
from agentrl.engines.attention import unwrapped
from agentrl.train.prepare import FILLER, TrainRow, as_many, micro_batches
from agentrl.train.score import Padded, evaluating, padded
from agentrl.train.trainable import load_trainable, save_trainable
from agentrl.train.update import agree

FOLDER = "critic"
"""Of a checkpoint's trainer files: weights and optimiser of the critic."""
WEIGHTS = "values.safetensors"
BACKENDS = ("single", "ddp")
"""Those that can hold a second module."""


class ValueModel(torch.nn.Module):
    """A decoder with a linear head that says 0 at first; its adapters, if it has any, are trained
    and what they adapt is not."""

    def __init__(self, trunk: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, ids_BT: torch.Tensor, seen_BT: torch.Tensor) -> torch.Tensor:
        """`[B,T]`: what the state behind each token is worth."""
        out = self.trunk(input_ids=ids_BT, attention_mask=seen_BT, use_cache=False)
        values_BT: torch.Tensor = self.head(out.last_hidden_state.float())[..., 0]
        return values_BT


@dataclass(frozen=True, kw_only=True)
class Critic:
    """A value model, the backend that trains it, and the settings of both."""

    settings: Settings
    module: torch.nn.Module
    """What `parallel.wrap` returned."""
    model: ValueModel
    parallel: Parallel
    budget: int
    """Tokens of a micro-batch."""

    def valued(self, rows: Sequence[TrainRow]) -> list[TrainRow]:
        """Rows with `values` and `value_after` under the weights as they are now."""
        found: dict[int, TrainRow] = {}
        with evaluating(self.module):
            for part in micro_batches(rows, self.budget, Padded()):
                behind_BT = self._behind([item.row for item in part]).tolist()
                for item, behind_T in zip(part, behind_BT, strict=True):
                    own = (0.0, *behind_T[: len(item.row.ids)])
                    found[id(item)] = replace(item, values=own[:-1], value_after=own[-1])
        return [found[id(item)] for item in rows]

    def _behind(self, rows: Sequence[Row]) -> torch.Tensor:
        device = self.model.head.weight.device
        ids_BT = padded([row.ids for row in rows], torch.long).to(device)
        seen_BT = padded([[1] * len(row.ids) for row in rows], torch.long).to(device)
        return cast(torch.Tensor, self.module(ids_BT, seen_BT))

    def fit(self, parts: Sequence[Sequence[TrainRow]]) -> dict[str, Sum]:
        """One optimiser step for each part, `settings.epochs` times over; metrics of all ranks.

        `critic/explained_variance` is `1 - Var(R - V) / Var(R)` with the values before the step.

        Raises:
            TrainingError: the loss or the gradient is not finite, on any rank.
        """
        metrics = self._explained([item for part in parts for item in part])
        steps = [self._step(part) for _ in range(self.settings.epochs) for part in parts]
        return {**metrics, **merge_metrics(steps)}

    def _explained(self, rows: Sequence[TrainRow]) -> dict[str, Sum]:
        pairs = [(r, v) for item in {id(i): i for i in rows}.values() for r, v in _known(item)]
        n, r, rr, e, ee = self.parallel.total(
            [
                float(len(pairs)),
                math.fsum(r for r, _ in pairs),
                math.fsum(r * r for r, _ in pairs),
                math.fsum(r - v for r, v in pairs),
                math.fsum((r - v) ** 2 for r, v in pairs),
            ]
        )
        if not n:
            return {}
        spread_of_targets = rr - r * r / n
        left = ee - e * e / n
        found = {"critic/return": Sum(r, n), "critic/value": Sum(r - e, n)}
        if spread_of_targets > 1e-12 * max(rr, 1.0):
            found["critic/explained_variance"] = Sum(1.0 - left / spread_of_targets)
        return found

    def _step(self, rows: Sequence[TrainRow]) -> dict[str, Sum]:
        aimed = [item for item in rows if any(True for _ in _known(item))]
        (n,) = self.parallel.total([float(sum(1 for item in aimed for _ in _known(item)))])
        if not n:
            return {}
        batches = as_many(micro_batches(aimed, self.budget, Padded()), self.parallel)
        self.module.train()
        parts, broken = [], ""
        try:
            for i, part in enumerate(batches):
                is_last = i == len(batches) - 1
                with self.parallel.micro_batch(is_last=is_last):
                    loss, metrics = self._loss(part, n)
                    if not broken and not torch.isfinite(loss):
                        broken = f"{float(loss.detach())} (of the critic)"
                    if is_last:
                        agree(self.parallel, broken)
                    self.parallel.backward(loss)
                if part != [FILLER]:
                    parts.append(metrics)
            norm = self.parallel.step(self.settings.grad_clip)
        finally:
            for weight in self.module.parameters():
                weight.grad = None
            self.module.eval()
        merged = merge_metrics(self.parallel.exchange(merge_metrics(parts)))
        return {**merged, "critic/grad_norm": Sum(norm)}

    def _loss(self, rows: Sequence[TrainRow], n: float) -> tuple[torch.Tensor, dict[str, Sum]]:
        """`0.5 max((V - R)^2, (V_old + clip(V - V_old) - R)^2)`, summed and over `n`."""
        behind_BT = self._behind([item.row for item in rows])
        device = behind_BT.device
        blank = [tuple(math.nan for _ in item.row.ids) for item in rows]
        targets = [item.targets or nans for item, nans in zip(rows, blank, strict=True)]
        target_BT = padded(targets, torch.float32, fill=math.nan).to(device)
        old_BT = padded([i.values or (0.0,) * len(i.row.ids) for i in rows], torch.float32)
        is_known_BT = ~target_BT.isnan()
        target_BT = target_BT.nan_to_num(0.0)
        value_BT = torch.cat([torch.zeros_like(behind_BT[:, :1]), behind_BT[:, :-1]], dim=1)
        per_token, is_clipped_BT = clipped_error(
            value_BT, old_BT.to(device), target_BT, self.settings.clip
        )
        loss = torch.where(is_known_BT, per_token, 0.0).sum()
        count = float(is_known_BT.sum())
        clipped = float((is_clipped_BT & is_known_BT).sum())
        metrics = {
            "critic/loss": Sum(float(loss.detach()), count),
            "critic/clipped": Sum(clipped, count),
        }
        return loss / n, metrics

    def save(self, folder: Path) -> None:
        """Weights and optimiser, into a checkpoint's trainer files. All ranks call it."""
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        if self.parallel.rank == 0:
            save_trainable(self.model, place / WEIGHTS)
        self.parallel.save(place)

    def load(self, folder: Path) -> None:
        """What `save` wrote. Raises `CheckpointError` if it is not there or of another model."""
        load_trainable(self.model, folder / FOLDER / WEIGHTS)
        self.parallel.load(folder / FOLDER)


def clipped_error(
    value: torch.Tensor, old: torch.Tensor, target: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`0.5 max((v - R)^2, (clip(v, old - c, old + c) - R)^2)`, and where the clip decided
    (PPO's released code; Engstrom et al. 2020, arXiv 2005.12729)."""
    near = torch.minimum(torch.maximum(value, old - clip), old + clip)
    plain, held = (value - target).square(), (near - target).square()
    return 0.5 * torch.maximum(plain, held), held > plain


def _known(item: TrainRow) -> list[tuple[float, float]]:
    """Target and value of each token that has a target."""
    if item.targets is None:
        return []
    pairs = zip(item.targets, item.values or (), strict=True)
    return [(target, value) for target, value in pairs if not math.isnan(target)]


def build_critic(config: Config, policy: torch.nn.Module) -> Critic | None:
    """A critic that begins as a copy of the policy's decoder; None where the config has none."""
    if config.critic is None:
        return None
    settings, causal = config.critic, unwrapped(policy)
    trunk = copy.deepcopy(causal.get_decoder())
    model = ValueModel(trunk, causal.config.get_text_config().hidden_size)
    model.to(next(trunk.parameters()).device)
    parallel = replace(config.parallel)  # type: ignore[type-var]
    parallel.start()
    module = parallel.wrap(
        model,
        lambda own: torch.optim.AdamW(
            [weight for weight in own.parameters() if weight.requires_grad],
            lr=settings.lr,
            weight_decay=0.0,
        ),
    )
    return Critic(
        settings=settings,
        module=module,
        model=model,
        parallel=parallel,
        budget=config.optim.tokens_per_microbatch,
    )


def check_critic(config: Config) -> None:
    """Refuse values that nobody asks for, or that are asked for and not learned.

    Raises:
        ConfigError: with what to set.
    """
    name, wants = type(config.advantage).__name__, "values" in config.advantage.needs
    if wants and config.critic is None:
        raise ConfigError(
            f"advantage: {name} needs values, and the run has no critic: set critic={{}} for one "
            "with default settings, or critic.lr=... (it is as large as the policy)"
        )
    if config.critic is None:
        return
    if not wants:
        raise ConfigError(
            f"critic: {name} asks for no values, so there is nothing to learn: set critic=none, or "
            "advantage=token_gae, turn_gae or bilevel_gae"
        )
    backend = name_of("parallel", config.parallel)
    if backend not in BACKENDS:
        raise ConfigError(
            f"critic: is trained under parallel={' and '.join(BACKENDS)} only, so far; got "
            f"parallel={backend}"
        )


def aimed(items: Sequence[TrainRow], groups: Sequence[Group], out: AdvantageOut) -> list[TrainRow]:
    """Rows with the critic's targets. A token that branches share gets the mean of their targets,
    in the row of the first."""
    if out.returns is None:
        return list(items)
    goals = replace(out, values=out.returns, level=Level.TOKEN, keep=None)
    found = spread([item.row for item in items], groups, goals)
    return [
        replace(
            item,
            targets=tuple(
                value if is_own else math.nan
                for value, is_own in zip(goal.values, goal.mask, strict=True)
            ),
        )
        for item, goal in zip(items, found, strict=True)
    ]
