"""TRL's own trainers on a tiny model, fed with given tokens, logprobs, entropies and rewards.

Nothing of TRL's arithmetic is written again here. A real trainer plays a scripted `rollout_func`;
its `_generate_and_score_completions` makes advantages and importance weights, its `_compute_loss`
the loss. Given tensors stand in for the model's forward alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

from agentrl.engines.policy import LoadedPolicy
from support.models import tiny_policy

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

PROMPT = (5, 6)
"""The prompt of every row."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the sampler, the model and the judge are made to say: float64 `[B,T]`, and rewards."""

    mask_BT: torch.Tensor
    old_BT: torch.Tensor
    new_BT: torch.Tensor
    ref_BT: torch.Tensor
    sampler_BT: torch.Tensor
    entropy_BT: torch.Tensor
    rewards_PG: Sequence[Sequence[float | None]]

    @property
    def inputs(self) -> list[dict[str, object]]:
        """The dataset's rows, repeated as TRL's sampler repeats them."""
        return [{"prompt": "x", "reward": reward} for row in self.rewards_PG for reward in row]

    def rollout(self, prompts: object = None, trainer: object = None) -> dict[str, list[Any]]:
        """What a `rollout_func` returns: rows are cut behind the last token of their mask."""
        mask = self.mask_BT.int().tolist()
        ends = [max((t + 1 for t, m in enumerate(row) if m), default=1) for row in mask]
        ends[ends.index(max(ends))] = self.mask_BT.shape[1]  # TRL's tensors are as wide as ours
        return {
            "prompt_ids": [list(PROMPT)] * len(mask),
            "completion_ids": [list(range(10, 10 + end)) for end in ends],
            "logprobs": [
                row[:end] for row, end in zip(self.sampler_BT.tolist(), ends, strict=True)
            ],
            "env_mask": [row[:end] for row, end in zip(mask, ends, strict=True)],
        }


def paid(*, reward: list[float | None], **_: object) -> list[float | None]:
    """The reward of the dataset's row."""
    return reward


@cache
def _policy() -> LoadedPolicy:
    return tiny_policy()


@contextmanager
def trainer(
    given: Given, *, beta: float = 0.0, is_vllm: bool = False, **settings: Any
) -> Iterator[GRPOTrainer]:
    """Stock GRPO, with `GRPOConfig` settings.

    `is_vllm` takes the branch of a trainer that samples with vLLM, whose tokens are given here.
    """
    from trl import GRPOConfig, GRPOTrainer

    with _opened(GRPOTrainer, GRPOConfig, given, beta, is_vllm, settings) as peer:
        yield peer


@contextmanager
def gmpo_trainer(
    given: Given, *, beta: float = 0.0, is_vllm: bool = False, **settings: Any
) -> Iterator[GRPOTrainer]:
    """TRL's experimental GMPO."""
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

    with _opened(GMPOTrainer, GMPOConfig, given, beta, is_vllm, settings) as peer:
        yield peer


@contextmanager
def _opened(
    trainer: type[GRPOTrainer],
    config: type[GRPOConfig],
    given: Given,
    beta: float,
    is_vllm: bool,
    settings: dict[str, Any],
) -> Iterator[GRPOTrainer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        peer = trainer(
            model=_policy().module,  # type: ignore[arg-type]
            args=config(**_arguments(given) | settings),
            rollout_func=given.rollout,
            **_data(given),
        )
    peer.beta = beta  # set here, so that no reference is loaded: its logprobs are given
    peer.ref_model = torch.nn.Module()  # type: ignore[assignment]
    peer.use_vllm = is_vllm
    peer._last_loaded_step = peer.state.global_step
    try:
        yield peer
    finally:
        vars(_policy().module).pop("forward", None)


@contextmanager
def rloo_trainer(given: Given, *, beta: float = 0.0, **settings: Any) -> Iterator[RLOOTrainer]:
    """Stock RLOO; it has no `rollout_func`, so its `_generate` is what gives the tokens."""
    from trl import RLOOConfig, RLOOTrainer

    peer = RLOOTrainer(
        model=_policy().module,  # type: ignore[arg-type]
        args=RLOOConfig(**_arguments(given) | {"beta": 0.0} | settings),
        **_data(given),
    )
    rows = given.rollout()
    texts = ["x"] * len(given.inputs)
    peer._generate = lambda prompts: (rows["prompt_ids"], rows["completion_ids"], texts)  # type: ignore[method-assign]
    peer.beta = beta
    peer.ref_model = torch.nn.Module()  # type: ignore[assignment]
    try:
        yield peer
    finally:
        vars(_policy().module).pop("forward", None)


def _arguments(given: Given) -> dict[str, Any]:
    return {
        "output_dir": "never-written",
        "per_device_train_batch_size": len(given.inputs),
        "num_generations": len(given.rewards_PG[0]),
        "max_steps": 1,
        "num_iterations": 2,  # otherwise the old logprobs would be the new ones, detached
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "activation_checkpointing": False,
    }


def _data(given: Given) -> dict[str, Any]:
    from datasets import Dataset

    return {
        "reward_funcs": paid,
        "processing_class": _policy().tokenizer,
        "train_dataset": Dataset.from_list([{"prompt": "x"}] * len(given.rewards_PG)),
    }


def experience(peer: GRPOTrainer | RLOOTrainer, given: Given) -> dict[str, torch.Tensor]:
    """What TRL makes of the rows before its loss: advantages, importance weights, masks."""

    def forward(model: object, *_: object, **__: object) -> tuple[torch.Tensor, None, None]:
        return (given.ref_BT if model is peer.ref_model else given.old_BT), None, None

    peer._get_per_token_logps_and_entropies = forward  # type: ignore[method-assign]
    assert peer.model is not None
    peer.model.train()
    peer.current_gradient_accumulation_steps = peer.args.gradient_accumulation_steps  # as train()
    found: dict[str, torch.Tensor] = peer._generate_and_score_completions(given.inputs)
    return found


def loss(
    peer: GRPOTrainer | RLOOTrainer,
    inputs: dict[str, torch.Tensor],
    logp_BT: torch.Tensor,
    entropy_BT: torch.Tensor,
) -> torch.Tensor:
    """TRL's loss of these rows where the model's forward gives these logprobs and entropies."""

    def forward(*_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor, None]:
        return logp_BT, entropy_BT, None

    peer._get_per_token_logps_and_entropies = forward  # type: ignore[method-assign]
    value: torch.Tensor = peer._compute_loss(peer.model, inputs)  # type: ignore[no-untyped-call]
    return value
