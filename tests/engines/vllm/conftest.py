"""Two real servers for the whole test run: one model with tied embeddings, one without."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.real_vllm import Served, interpreter, serve


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter that has vLLM."""
    python = interpreter()
    if python is None:
        pytest.skip("no vLLM in .venv-vllm (or AGENTRL_VLLM_VENV): make test-vllm installs it")
    return python


@pytest.fixture(scope="session")
def tied(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Qwen3-shaped model whose head is its embedding; takes adapters."""
    folder = tmp_path_factory.mktemp("served") / "tied"
    served = serve(vllm_python, folder, "qwen3", tied=True, lora_rank=8)
    yield served
    served.close()


@pytest.fixture(scope="session")
def untied(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Qwen2-shaped model with a head of its own; takes no adapters."""
    folder = tmp_path_factory.mktemp("served") / "untied"
    served = serve(vllm_python, folder, "qwen2", tied=False)
    yield served
    served.close()
