"""The `trie` scorer: every distinct token of a micro-batch once, scores as `padded` gives them.

Losses never see a tree: numbers of nodes are gathered into the rows' columns, and the backward of
the gather adds up what each row wants of a shared token, so every loss is exact. In code:
`Trie(executor="segment").score(module, rows)`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.tensors import Scores
from agentrl.core.types import Row, Sum
from agentrl.engines.attention import unwrapped
from agentrl.train.score import Padded, evaluating, padded
from agentrl.train.trie.dfs import Dfs
from agentrl.train.trie.executors import Executor
from agentrl.train.trie.flex import Flex
from agentrl.train.trie.forest import Forest, Wanted, bare, split
from agentrl.train.trie.segment import Segment
from agentrl.train.trie.sharing import KEY

logger = logging.getLogger(__name__)

EXECUTORS: dict[str, Executor] = {"segment": Segment(), "flex": Flex(), "dfs": Dfs()}
AUTO = ("segment", "dfs")
"""What `auto` tries, in this order."""


@register("scorer", "trie")
@dataclass(kw_only=True)
class Trie:
    """Rows as one token tree: what rows begin with in common is computed once."""

    executor: Literal["auto", "segment", "flex", "dfs", "padded"] = "auto"
    """How the tree is computed: `segment` in one forward pass; `flex` too, by torch's
    flex_attention, which needs a GPU and was not run on one yet; `dfs` depth-first in little memory
    and more time (each node two or three times); `padded` not at all. `auto` takes the first of
    `segment` and `dfs` that computes the model exactly."""
    chunk: Annotated[int, Ge(1)] = 2048
    """Positions whose float32 log-softmax is held at once."""
    _chosen: WeakKeyDictionary[torch.nn.Module, str] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )
    _padded: Padded = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._padded = Padded(chunk=self.chunk)

    def check(self, module: torch.nn.Module) -> list[str]:
        """Choose the executor for a module: by its config, then by a small tree on which it must
        score as `padded` does.

        Returns:
            Why `auto` does not take the first.

        Raises:
            ConfigError: the executor that was asked for cannot score this module exactly.
        """
        told = []
        named = () if self.executor == "padded" else (self.executor,)
        for name in AUTO if self.executor == "auto" else named:
            executor = EXECUTORS[name]
            reason = executor.refusal(module) or self._differs(executor, module)
            if not reason:
                self._chosen[unwrapped(module)] = name
                break
            if self.executor == name:
                raise ConfigError(
                    f"scorer.executor: {name!r} cannot score a {type(unwrapped(module)).__name__}: "
                    f"{reason}; set scorer.executor=auto, or scorer=padded"
                )
            told.append(f"scorer: not by {name!r}: {reason}")
        else:
            self._chosen[unwrapped(module)] = "padded"
            self._padded.check(module)
            if self.executor == "auto":
                told.append("scorer: rows are padded, and shared prefixes computed for each")
        return told

    def _differs(self, executor: Executor, module: torch.nn.Module) -> str:
        """How scores of a forced tree differ from those of padded rows, or nothing."""
        rows = forced_rows(unwrapped(module).config.get_text_config().vocab_size)
        with evaluating(module):
            expected, found = Padded().score(module, rows), self._by(executor, module, rows)
        gap_BT = (expected.logp_BT - found.logp_BT).abs()
        is_half = next(module.parameters()).dtype in (torch.bfloat16, torch.float16)
        gap, limit = (gap_BT.mean(), 5e-2) if is_half else (gap_BT.max(), 1e-4)
        if gap <= limit:
            return ""
        worst = int(gap_BT.argmax())
        row, token = divmod(worst, gap_BT.shape[1])
        return (
            f"on a small tree its logprobs differ from those of padded rows by {float(gap):.2g} "
            f"(limit {limit:g}; most at token {token} of row {row}: "
            f"{float(found.logp_BT[row, token]):.4f}, expected "
            f"{float(expected.logp_BT[row, token]):.4f})"
        )

    def split(self, rows: Sequence[Row], budget: int) -> list[list[int]]:
        """At most `budget` distinct tokens, siblings together (padded tokens, of padded rows)."""
        is_padded = set(self._chosen.values()) == {"padded"} or self.executor == "padded"
        return Padded().split(rows, budget) if is_padded else split(rows, budget)

    def score(
        self, module: torch.nn.Module, rows: Sequence[Row], *, entropy_grad: bool = False
    ) -> Scores:
        """What `padded` gives, and how many tokens shared their computation.

        Raises:
            DataError: a row begins with a sampled token, which nothing predicts.
            ConfigError: as `check`, for a module that was not checked.
        """
        model = unwrapped(module)
        if model not in self._chosen:
            for line in self.check(module):
                logger.warning("%s", line)
        name = self._chosen[model]
        if name == "padded":
            return self._padded.score(module, rows, entropy_grad=entropy_grad)
        return self._by(EXECUTORS[name], module, rows, entropy_grad=entropy_grad)

    def _by(
        self,
        executor: Executor,
        module: torch.nn.Module,
        rows: Sequence[Row],
        *,
        entropy_grad: bool = False,
    ) -> Scores:
        forest = Forest.of(rows)
        wanted = Wanted.of(rows, forest)
        logp_N, entropy_N = executor.score(
            module, forest, wanted, chunk=self.chunk, entropy_grad=entropy_grad
        )
        device = logp_N.device
        mask_BT = padded([row.mask for row in rows], torch.bool).to(device)
        place_M = torch.from_numpy(wanted.place_M).to(device)
        empty_BT = torch.zeros(mask_BT.shape, dtype=logp_N.dtype, device=device)
        return Scores(
            logp_BT=empty_BT.masked_scatter(mask_BT, logp_N[place_M]),
            entropy_BT=empty_BT.masked_scatter(mask_BT, entropy_N[place_M]),
            metrics={KEY: Sum(float(forest.real), float(forest.unique))},
        )


def forced_rows(vocabulary: int) -> list[Row]:
    """Six rows of 42 distinct tokens in two trees: branches at three depths, a prefix, a copy."""
    ids = [int(i) for i in np.random.default_rng(0).integers(vocabulary, size=64)]
    trunk, other = ids[:10], ids[10:18]
    fork = [*trunk, *ids[20:26]]
    return [
        bare([*fork, *ids[30:38]]),
        bare([*fork, *ids[40:44]]),
        bare([*trunk, *ids[50:56]]),
        bare(trunk),
        bare(trunk),
        bare(other),
    ]
