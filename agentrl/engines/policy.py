"""The policy: a causal language model and its tokenizer, from a folder, a hub name or a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto import CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.types import Json

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

disable_progress_bar()  # a bar for a file that loads in milliseconds hides what matters

LOADABLE = (
    ArithmeticError,
    ImportError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What transformers raises for files and settings that it cannot use."""

FROM_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
LEGACY = ("rope_theta", "rope_scaling")
"""Settings that transformers still takes, under names that a config no longer lists."""


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
            base = cast("PreTrainedModel", adapted.get_base_model())
            base.save_pretrained(folder, state_dict=_merged_state(adapted, base))
        else:
            cast("PreTrainedModel", self.module).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def save_base(policy: LoadedPolicy, folder: Path) -> None:
    """Like `policy.save`, but a LoRA policy without its adapter."""
    adapted = cast("PeftModel", policy.module)
    base = cast("PreTrainedModel", adapted.get_base_model())
    state = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in base.state_dict().items()
        if "lora_" not in name
    }
    base.save_pretrained(folder, state_dict=state)
    policy.tokenizer.save_pretrained(folder)


def _merged_state(adapted: PeftModel, base: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The base model's weights with the adapters added, under the base model's names.

    Taking an adapter out again rounds, so the weights in training are put back as they were.
    """
    tuner = cast("BaseTuner", adapted.base_model)
    under = {n: p for n, p in base.named_parameters() if ".base_layer." in n}
    kept = {name: weight.detach().clone() for name, weight in under.items()}
    tuner.merge_adapter()
    try:
        return {
            name.replace(".base_layer", ""): tensor.clone() if name in kept else tensor
            for name, tensor in base.state_dict().items()
            if "lora_" not in name
        }
    finally:
        tuner.unmerge_adapter()
        with torch.no_grad():
            for name, weight in under.items():
                weight.copy_(kept[name])


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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises `ConfigError` if there is none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder))
    except LOADABLE as error:
        raise ConfigError(f"{folder} holds no tokenizer: {_brief(error)}") from error
    return tokenizer


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run.device: 'cuda' was asked for, and torch sees no GPU; use cpu or auto"
        )
    return torch.device(name)


def _load(name: str, device: torch.device) -> LoadedPolicy:
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or folder.exists()):
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError(f"model: no folder {name}{did_you_mean(folder.name, siblings)}")
    source = str(folder) if folder.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        module, found = cast(
            "tuple[PreTrainedModel, dict[str, set[str]]]",
            AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            ),
        )
    except LOADABLE as error:
        where = "the folder" if folder.is_dir() else "a local folder of that name, or the hub,"
        raise ConfigError(
            f"model: cannot load {name!r}: {where} does not hold a causal language model with its "
            f"tokenizer ({_brief(error)})"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"model: {name!r} lacks {len(missing)} weights of a {type(module).__name__}, which "
            f"would be random: {', '.join(missing[:3])}"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _loaded(module, tokenizer, folder if folder.is_dir() else None, device)


def _build(
    config: dict[str, Json], device: torch.device, seed: int, tokenizer: PreTrainedTokenizerBase
) -> LoadedPolicy:
    kind = config.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError("model: an inline config needs its model_type, e.g. {model_type: qwen3}")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"model.model_type: transformers knows no {kind!r}{did_you_mean(kind, CONFIG_MAPPING)}"
        )
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    _check_keys(kind, config)
    try:
        settings = AutoConfig.for_model(
            kind, **config, vocab_size=len(tokenizer), bos_token_id=None, **ends
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    except LOADABLE as error:
        raise ConfigError(f"model: cannot build a {kind!r} model: {_brief(error)}") from error
    return _loaded(module, tokenizer, None, device)


def _check_keys(kind: str, config: Mapping[str, Json]) -> None:
    """Refuse what the architecture does not have: transformers would take it and ignore it."""
    plain = AutoConfig.for_model(kind)
    known = {*plain.to_dict(), *plain.attribute_map, *LEGACY} - {*FROM_TOKENIZER}
    for key in config:
        if key in FROM_TOKENIZER:
            raise ConfigError(f"model.{key}: comes from the tokenizer; set tokenizer.vocabulary")
        if key not in known:
            raise ConfigError(
                f"model.{key}: a {kind!r} model has no such setting{did_you_mean(key, known)}"
            )


def _without_dropout(module: torch.nn.Module) -> None:
    """The sampler and the trainer must see one distribution, so nothing is dropped at random."""
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0  # type: ignore[assignment]


def _loaded(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | None,
    device: torch.device,
) -> LoadedPolicy:
    module.to(device).eval()  # type: ignore[arg-type]
    _without_dropout(module)
    return policy_of(module, tokenizer, folder)


def policy_of(
    module: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | None = None,
) -> LoadedPolicy:
    """A module that is loaded already, as a policy; nothing of it is changed."""
    config = module.config.get_text_config()
    ends = getattr(module, "generation_config", GenerationConfig()).eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return LoadedPolicy(
        module=module,
        tokenizer=tokenizer,
        folder=folder,
        context_length=int(getattr(config, "max_position_embeddings", None) or 4096),
        stop_ids=frozenset(int(i) for i in listed if i is not None),
    )


def _brief(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
