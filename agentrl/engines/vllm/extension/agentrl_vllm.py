"""What runs inside a vLLM server: it receives the weights that a run pushes.

This module lives alone in a folder that is put on the server's PYTHONPATH, and imports nothing of
agentrl, which the server's environment need not have. The server is started with
`--worker-extension-cls agentrl_vllm.Extension`; importing it registers the weight-transfer backend
`agentrl_shm`, by which `agentrl.engines.vllm.weights` hands over a file in shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.utils import get_tensor_load_numel

BACKEND = "agentrl_shm"


@dataclass
class Nothing(WeightTransferInitInfo):  # type: ignore[misc]
    """There is nobody to meet beforehand."""


@dataclass
class SharedFile(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Where the weights lie."""

    path: str
    """A safetensors file with every weight under its name in the checkpoint, tied ones once."""


class SharedMemoryEngine(WeightTransferEngine[Nothing, SharedFile]):  # type: ignore[misc]
    """Loads whole checkpoints from a file that trainer and server both see.

    A push begins a layer-wise reload, loads, and ends it. One that fails leaves weights of two
    versions behind, and the server must then be started anew: it refuses further pushes.
    """

    init_info_cls = Nothing
    update_info_cls = SharedFile

    failed: str | None = None
    """Why a push failed half way."""

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """There is nobody to meet."""

    def start_weight_update(self) -> None:
        """Begin the layer-wise reload. Raises `RuntimeError` after a push that failed."""
        if self.failed is not None:
            raise RuntimeError(f"an earlier push failed half way, start anew: {self.failed}")
        self.failed = "it was not finished"
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedFile) -> None:
        """Load every weight of the file.

        Raises:
            FileNotFoundError: server and trainer do not share this memory.
            ValueError: the file's names or shapes are not the model's, or some are missing.
        """
        path = Path(update_info.path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: trainer and server do not share their memory")
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            self.model.load_weights((name, file.get_tensor(name)) for name in names)
        if missing := unloaded(self.model):
            raise ValueError(f"the push lacks weights of {len(missing)} layers: {missing[:5]}")

    def finish_weight_update(self) -> None:
        """End the layer-wise reload, and rebuild what was computed from the weights."""
        finalize_layerwise_reload(self.model, self.model_config)
        self.renew_heads()
        self.failed = None

    def renew_heads(self) -> None:
        """Pack the weights of LM heads for the CPU's kernels again.

        vLLM packs a copy of them when it loads a layer. A head that is tied to the embedding loads
        nothing in a reload, and would go on with the copy of the old weights.
        """
        if self.device.type != "cpu":
            return
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)

    def shutdown(self) -> None:
        """Nothing is held."""


def unloaded(model: torch.nn.Module) -> list[str]:
    """Layers of a model in reload that lack some of their weights.

    A tied head gets none, since the embedding has them; of an embedding the rows beyond the
    vocabulary, which are there for the kernels, are never loaded.
    """
    missing = []
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        held = [weight for weight in layer._parameters.values() if weight is not None]
        if not held or not info.can_load():
            continue
        if isinstance(layer, VocabParallelEmbedding):
            is_short = not info.load_numel and not isinstance(layer, ParallelLMHead)
        else:
            is_short = info.load_numel < sum(map(get_tensor_load_numel, held))
        if is_short:
            missing.append(name)
    return missing


class Extension:
    """Mixed into vLLM's worker class, whose methods these are."""

    list_loras: Callable[[], set[int]]
    add_lora: Callable[[LoRARequest], bool]

    def agentrl_swap_adapter(self, path: str) -> None:
        """Put the adapter in the folder `path` in the place of the one that is loaded.

        vLLM's own way, `/v1/load_lora_adapter` with `load_inplace`, marks the adapter so that it is
        read from its folder anew for every token.
        """
        [number] = self.list_loras()
        self.add_lora(LoRARequest(f"adapter-{number}", number, path, load_inplace=True))


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
