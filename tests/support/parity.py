"""Five steps on given rows under any training backend, and what they must agree on.

The same code runs in one process (the reference) and in each rank of a launch (`support.ranks`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import torch

from agentrl.algo.aggregate import SequenceMeanTokenMean, TokenMean
from agentrl.algo.kl import K3
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.config import Lora, Optim
from agentrl.core.protocols import Parallel, Scorer
from agentrl.core.types import Sum
from agentrl.train.lora import add_lora
from agentrl.train.objective import Objective
from agentrl.train.optim import build_optimiser
from agentrl.train.prepare import TrainRow, with_old, with_reference
from agentrl.train.score import Padded
from agentrl.train.trie.scorer import Trie
from agentrl.train.update import update
from support.models import row, tiny_policy

if TYPE_CHECKING:
    from peft import PeftModel

STEPS = 5
TRAJECTORIES = 7


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, how, and which trajectories lie on which rank."""

    name: str
    lora: bool = False
    tied: bool = True
    first: int = 5
    """Trajectories of rank 0; rank 1 has the other ones of 7."""
    budget: int = 10_000
    """Padded tokens of a micro-batch: few give many micro-batches, most of them on rank 0."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    updates: int = 1
    kl: bool = False
    by_trajectory: bool = False
    """Aggregate over trajectories, not over tokens."""
    checkpointing: bool = False
    grad_clip: float = 1e9
    executor: Literal["segment", "dfs"] | None = None
    """Score by the token trie, on rows that share prompts."""

    @property
    def scorer(self) -> Scorer:
        return Padded() if self.executor is None else Trie(executor=self.executor)


CASES = (
    Case(name="full, tied"),
    Case(name="full, untied, many micro-batches", tied=False, budget=24, grad_clip=0.3),
    Case(name="full, a rank without rows", first=7, budget=24, by_trajectory=True),
    Case(name="full, two updates, KL", updates=2, kl=True, budget=40, tied=False),
    Case(name="full, gradient checkpointing", checkpointing=True, budget=40),
    Case(name="full, AdamW", optimiser="adamw", grad_clip=0.3),
    Case(name="LoRA, tied", lora=True, budget=40, grad_clip=0.3),
    Case(name="LoRA, untied, a rank without rows", lora=True, tied=False, first=7),
    Case(name="LoRA, two updates, KL", lora=True, updates=2, kl=True, budget=40),
    Case(name="LoRA, gradient checkpointing", lora=True, checkpointing=True, by_trajectory=True),
    Case(name="LoRA, AdamW", lora=True, optimiser="adamw", tied=False),
    Case(name="trie, a rank without rows", executor="segment", first=7, budget=24),
    Case(
        name="trie, gradient checkpointing, two updates, KL",
        executor="segment",
        budget=24,
        checkpointing=True,
        updates=2,
        kl=True,
    ),
    Case(name="trie, LoRA", executor="segment", lora=True, tied=False, budget=40),
    Case(name="trie, depth-first, KL", executor="dfs", budget=24, kl=True, updates=2),
    Case(name="trie, depth-first, LoRA", executor="dfs", lora=True, budget=24, first=7),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Loss and gradient norm of each update, and the weights after the last."""

    metrics: list[dict[str, Sum]]
    weights: dict[str, torch.Tensor]

    @property
    def losses(self) -> list[float]:
        return [step["loss/policy"].total for step in self.metrics]

    @property
    def norms(self) -> list[float]:
        return [step["loss/grad_norm"].total for step in self.metrics]


def build(case: Case, seed: int = 0) -> torch.nn.Module:
    """The module of a case, adapters not at zero, so that both their factors have a gradient."""
    module = tiny_policy(seed, tie_word_embeddings=case.tied).module
    if case.checkpointing:
        enable = cast("Callable[..., None]", module.activation_checkpointing_enable)
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if case.lora:
        module = add_lora(module, Lora(rank=4, alpha=8.0), seed)
        rng = torch.Generator().manual_seed(seed)
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0.0, 0.05, generator=rng)
    return module


def optimiser_of(case: Case) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """What `wrap` is handed."""
    if case.optimiser == "adamw":
        return lambda module: build_optimiser(module, Optim(lr=1e-3))
    return lambda module: torch.optim.SGD(
        [weight for weight in module.parameters() if weight.requires_grad], lr=0.1
    )


def rows_of_step(
    step: int, *, vocabulary: int = 300, share_prompts: bool = False
) -> list[TrainRow]:
    """Seven trajectories of one or two rows, the advantages mostly positive."""
    rng = random.Random(step)
    made = []
    for number in range(TRAJECTORIES):
        advantage = rng.uniform(-0.5, 2.0)
        for _ in range(rng.choice((1, 1, 2))):
            prompt, sampled = rng.randint(1, 5), rng.randint(1, 7)
            ids = [rng.randrange(6, vocabulary) for _ in range(prompt + sampled)]
            if share_prompts:
                ids[:prompt] = range(6, 6 + prompt)
            mask = [False] * prompt + [True] * sampled
            made.append(
                TrainRow(
                    row=row(ids, mask, trajectory=number),
                    advantages=TokenAdvantages(
                        tuple(advantage if m else 0.0 for m in mask), tuple(mask)
                    ),
                )
            )
    return made


def with_advantage(item: TrainRow, value: float) -> TrainRow:
    """The row with another advantage."""
    mask = item.advantages.mask
    return replace(item, advantages=TokenAdvantages(tuple(value if m else 0.0 for m in mask), mask))


def share_of(case: Case, rows: Sequence[TrainRow], parallel: Parallel) -> list[TrainRow]:
    """This rank's rows; one process alone has all of them."""
    if parallel.world == 1:
        return list(rows)
    if parallel.world == 2:
        return [r for r in rows if (r.row.trajectory < case.first) == (parallel.rank == 0)]
    return [r for r in rows if r.row.trajectory % parallel.world == parallel.rank]


def train_steps(
    case: Case, parallel: Parallel, module: torch.nn.Module, steps: range
) -> list[dict[str, Sum]]:
    """Metrics of each update; `module` is what `parallel.wrap` returned."""
    found = []
    for step in steps:
        made = rows_of_step(step, share_prompts=case.executor is not None)
        rows = share_of(case, made, parallel)
        if case.updates > 1:
            rows = with_old(rows, case.scorer, module, case.budget, parallel)
        if case.kl:
            rows = with_references(case, rows, parallel, module)
        found += [one_update(case, part, parallel, module) for part in halves(case, rows)]
    return found


def halves(case: Case, rows: Sequence[TrainRow]) -> list[list[TrainRow]]:
    """The rows of each update of a step."""
    if case.updates == 1:
        return [list(rows)]
    return [[r for r in rows if r.row.trajectory % 2 == half] for half in (0, 1)]


def one_update(
    case: Case, rows: Sequence[TrainRow], parallel: Parallel, module: torch.nn.Module
) -> dict[str, Sum]:
    return update(
        rows,
        objective=Objective(
            loss=PpoClip(),
            aggregate=SequenceMeanTokenMean() if case.by_trajectory else TokenMean(),
            kl=K3(beta=0.1) if case.kl else None,
        ),
        scorer=case.scorer,
        parallel=parallel,
        module=module,
        budget=case.budget,
        grad_clip=case.grad_clip,
    )


def with_references(
    case: Case, rows: Sequence[TrainRow], parallel: Parallel, module: torch.nn.Module
) -> list[TrainRow]:
    """Under the adapter switched off, or under a whole copy with other weights."""
    if case.lora:
        adapted = cast("PeftModel", getattr(module, "module", module))
        off = cast("AbstractContextManager[object]", adapted.disable_adapter())
        return with_reference(rows, case.scorer, module, case.budget, off, parallel)
    whole = build(replace(case, checkpointing=False), 1)
    return with_reference(rows, case.scorer, whole, case.budget)


def run_case(case: Case, parallel: Parallel) -> Outcome:
    """All steps of a case from its first weights on."""
    module = parallel.wrap(build(case), optimiser_of(case))
    metrics = train_steps(case, parallel, module, range(STEPS))
    weights = {name: tensor.detach().clone() for name, tensor in parallel.gather().items()}
    return Outcome(metrics=metrics, weights=weights)
