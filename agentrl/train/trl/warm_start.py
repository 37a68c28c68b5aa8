"""Supervised fine-tuning on demonstrations by TRL's `SFTTrainer`."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from agentrl.core.config import Sft
from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.types import Row
from agentrl.engines.policy import LoadedPolicy

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SftResult:
    """How the warm start went: dev losses by step, the best of them, what stopped it."""

    steps: int
    best_step: int
    dev_losses: tuple[tuple[int, float], ...]
    is_exhausted: bool
    """The dev loss still fell when `sft.max_steps` was reached."""


@dataclass(kw_only=True)
class _BestByDevLoss:
    """Remembers the best weights and says when the dev loss has stopped falling."""

    module: torch.nn.Module
    patience: int
    losses: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    is_stopped: bool = False

    @property
    def best_step(self) -> int:
        return min(self.losses, key=lambda pair: pair[1])[0] if self.losses else 0

    def note(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(f"sft: the dev loss is {loss} after {step} steps; lower sft.lr")
        self.losses.append((step, loss))
        if self.best_step == step:
            self.best = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        since = [s for s, _ in self.losses if s > self.best_step]
        self.is_stopped = len(since) >= self.patience


def sft(
    policy: LoadedPolicy,
    train_rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: Sft,
    *,
    seed: int,
    say: Callable[[str], None] = logger.info,
    world: int = 1,
) -> SftResult:
    """Train on the masked tokens of demonstrations until the dev loss stops falling.

    The policy's module ends with the weights of the lowest dev loss, those before the first step
    included. Of `world` processes each gets the same rows and trains its share of every batch.

    Raises:
        ConfigError: trl or datasets is not installed.
        TrainingError: the dev loss is not finite.
    """
    try:
        from transformers import PrinterCallback, TrainerCallback
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise ConfigError(
            f"sft needs trl and datasets, and one is missing ({error}): pip install trl datasets, "
            "or set sft=none and start from a model that knows the action format"
        ) from error
    if settings.batch_rows >= len(train_rows):
        # One batch holds all rows: empty ones make it come apart evenly, and change no number.
        empty = replace(train_rows[0], mask=(False,) * len(train_rows[0].mask))
        train_rows = [*train_rows, *[empty] * (-len(train_rows) % world)]
    watch = _BestByDevLoss(module=policy.module, patience=settings.patience)

    class Watch(TrainerCallback):
        """Feeds dev losses to `watch` and stops the trainer when it says so."""

        def on_evaluate(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **kwargs: Any,
        ) -> None:
            loss = float(kwargs["metrics"]["eval_loss"])
            watch.note(state.global_step, loss)
            say(f"sft step {state.global_step}: dev loss {loss:.4f}")
            control.should_training_stop |= watch.is_stopped  # max_steps may have set it

    with tempfile.TemporaryDirectory() as scratch, _unpatched(policy.module):
        trainer = SFTTrainer(
            model=cast("PreTrainedModel", policy.module),
            processing_class=policy.tokenizer,
            args=SFTConfig(
                output_dir=scratch,
                max_steps=settings.max_steps,
                learning_rate=settings.lr,
                lr_scheduler_type="constant",
                per_device_train_batch_size=min(settings.batch_rows, len(train_rows)) // world,
                per_device_eval_batch_size=len(dev_rows),
                eval_strategy="steps",
                eval_steps=min(settings.eval_every, settings.max_steps),
                eval_on_start=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                seed=seed % 2**32,
                max_length=None,
                bf16=False,
                use_cpu=policy.device.type == "cpu",
                # Off by this name, and by the one that later releases of transformers have.
                gradient_checkpointing=None,  # type: ignore[arg-type]
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=_dataset(train_rows),
            eval_dataset=_dataset(dev_rows),
            callbacks=[Watch()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.args._n_gpu = min(trainer.args.n_gpu, 1)  # never DataParallel behind our back
        trainer.train()
        steps = trainer.state.global_step
    if watch.best:
        policy.module.load_state_dict(watch.best)
    policy.module.eval()
    policy.module.zero_grad(set_to_none=True)
    return SftResult(
        steps=steps,
        best_step=watch.best_step,
        dev_losses=tuple(watch.losses),
        is_exhausted=not watch.is_stopped,
    )


@contextmanager
def _unpatched(module: torch.nn.Module) -> Iterator[None]:
    """Takes back what TRL does to a module.

    Its patched `forward` holds on to this very module, so that a copy of the module would compute
    with the weights of the original.
    """
    find_base = getattr(module, "get_base_model", None)
    base = cast("PreTrainedModel", module if find_base is None else find_base())
    use_cache = base.config.use_cache
    try:
        yield
    finally:
        vars(base).pop("forward", None)
        base.config.use_cache = use_cache


def _dataset(rows: Sequence[Row]) -> Dataset:
    """Token ids as they are, labels on the masked tokens alone."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "input_ids": list(row.ids),
                "labels": [i if m else -100 for i, m in zip(row.ids, row.mask, strict=True)],
            }
            for row in rows
        ]
    )
