"""The policy: a causal language model and its tokenizer, from a folder, a hub name or a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.types import Json

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

disable_progress_bar()  # a bar for a file that loads in milliseconds hides what matters

LOADABLE = (OSError, ValueError, KeyError)


@dataclass(kw_only=True)
class LoadedPolicy:
    """What engines sample from and backends train (`core.protocols.Policy`)."""

    module: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    folder: Path | None
    context_length: int
    stop_ids: frozenset[int]
    """End-of-text ids of the model's generation_config."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def parameter_count(self) -> int:
        """Distinct weights, tied ones once."""
        return sum(p.numel() for p in self.module.parameters())

    def save(self, folder: Path) -> None:
        """Weights and tokenizer as a Hugging Face folder (a LoRA run saves its adapter merged)."""
        if hasattr(self.module, "merge_adapter"):
            adapted = cast("PeftModel", self.module)
            tuner = cast("BaseTuner", adapted.base_model)
            base = cast("PreTrainedModel", adapted.get_base_model())
            tuner.merge_adapter()
            state = {
                name.replace(".base_layer", ""): tensor
                for name, tensor in base.state_dict().items()
                if "lora_" not in name
            }
            base.save_pretrained(folder, state_dict=state)
            tuner.unmerge_adapter()
        else:
            cast("PreTrainedModel", self.module).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_policy(
    model: str | Mapping[str, Json],
    *,
    seed: int,
    device: str = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LoadedPolicy:
    """Load a model by path or name, or build one from an inline config.

    Args:
        model: a folder, a hub name, or a transformers config with its `model_type`.
        seed: of the initial weights of a model that is built.
        device: `auto` takes the GPU where there is one.
        tokenizer: of a model that is built; one that is loaded brings its own.

    Raises:
        ConfigError: nothing can be loaded under this name, or the config is not one.
    """
    place = _device(device)
    if isinstance(model, str):
        return _load(model, place)
    if tokenizer is None:
        raise ConfigError("model: one that is built from an inline config needs a tokenizer")
    return _build(dict(model), place, seed, tokenizer)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run.device: 'cuda' was asked for, and torch sees no GPU; use cpu or auto"
        )
    return torch.device(name)


def _load(name: str, device: torch.device) -> LoadedPolicy:
    folder = Path(name)
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or folder.exists()):
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError(f"model: no folder {name}{did_you_mean(folder.name, siblings)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        module = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except LOADABLE as error:
        where = "the folder" if folder.is_dir() else "a local folder of that name, or the hub,"
        raise ConfigError(
            f"model: cannot load {name!r}: {where} does not hold a causal language model with its "
            f"tokenizer ({_first_line(error)})"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _loaded(module, tokenizer, folder if folder.is_dir() else None, device)


def _build(
    config: dict[str, Json], device: torch.device, seed: int, tokenizer: PreTrainedTokenizerBase
) -> LoadedPolicy:
    kind = config.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError("model: an inline config needs its model_type, e.g. {model_type: qwen3}")
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        settings = AutoConfig.for_model(
            kind, **config, vocab_size=len(tokenizer), bos_token_id=None, **ends
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    except LOADABLE as error:
        raise ConfigError(f"model: cannot build a {kind!r} model: {_first_line(error)}") from error
    return _loaded(module, tokenizer, None, device)


def _loaded(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | None,
    device: torch.device,
) -> LoadedPolicy:
    module.to(device).eval()  # type: ignore[arg-type]
    config = module.config
    ends = getattr(module, "generation_config", GenerationConfig()).eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return LoadedPolicy(
        module=module,
        tokenizer=tokenizer,
        folder=folder,
        context_length=int(getattr(config, "max_position_embeddings", None) or 4096),
        stop_ids=frozenset(int(i) for i in listed if i is not None),
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
