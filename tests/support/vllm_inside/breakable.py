"""Worker extension of the tests' servers: ours, and switches that only tests reach.

Lives alone in a folder that goes on the server's PYTHONPATH, beside that of `agentrl_vllm`.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import agentrl_vllm


class Extension(agentrl_vllm.Extension):  # type: ignore[misc]
    """Mixed into vLLM's worker class."""

    weight_transfer_engine: Any

    def agentrl_renew_heads(self, answer: str) -> None:
        """Whether a push packs the LM head anew (`yes`), or leaves it as vLLM does (`no`)."""
        engine = self.weight_transfer_engine
        renewed = agentrl_vllm.SharedMemoryEngine.renew_heads if answer == "yes" else _nothing
        engine.renew_heads = MethodType(renewed, engine)

    def agentrl_break_pushes(self) -> None:
        """From now on a push breaks off behind its first layer."""
        engine = self.weight_transfer_engine
        load = engine.model.load_weights

        def broken(weights: Any) -> None:
            load([pair for pair, _ in zip(weights, range(4), strict=False)])
            raise RuntimeError("broken by a test")

        engine.model.load_weights = broken


def _nothing(engine: object) -> None:
    """What vLLM does for a tied head."""
