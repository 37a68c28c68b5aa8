"""All nodes in one forward pass; attention goes span by span (`attention.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentrl.engines.attention import unwrapped
from agentrl.train.score import tempered
from agentrl.train.trie.attention import install
from agentrl.train.trie.executors import refused_by_config
from agentrl.train.trie.forest import Forest, Wanted


@dataclass(frozen=True)
class Segment:
    """One packed sequence, positions counted along each path, logits of parents only."""

    def refusal(self, module: torch.nn.Module) -> str:
        """Attention must go through transformers' `sdpa`."""
        if reason := refused_by_config(module):
            return reason
        used = getattr(unwrapped(module).config.get_text_config(), "_attn_implementation", None)
        return "" if used == "sdpa" else f"its attention is {used!r}, and trees need 'sdpa'"

    def score(
        self,
        module: torch.nn.Module,
        forest: Forest,
        wanted: Wanted,
        *,
        chunk: int,
        entropy_grad: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A mask of four dimensions is what transformers hands on untouched: without one it would
        take jumps of the position for the starts of packed documents."""
        install()
        device = next(module.parameters()).device
        logits_RV = module(
            input_ids=torch.from_numpy(forest.ids_T).to(device)[None],
            position_ids=torch.from_numpy(forest.depth_T).to(device)[None],
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            use_cache=False,
            logits_to_keep=torch.from_numpy(wanted.parents_R).to(device),
            **self.how(forest, device),
        ).logits[0]
        return distributions(logits_RV, wanted, slice(None), chunk, entropy_grad)

    def how(self, forest: Forest, device: torch.device) -> dict[str, object]:
        """What attention is told."""
        return {"tree": forest}


def distributions(
    logits_RV: torch.Tensor, wanted: Wanted, part: slice, chunk: int, entropy_grad: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprobs and entropies of a part of `N`, whose parents' logits these are."""
    device = logits_RV.device
    row_N = torch.from_numpy(wanted.row_N[part]).to(device)
    if len(row_N) != len(logits_RV):
        logits_RV = logits_RV.index_select(0, row_N - row_N[:1])
    return tempered(
        logits_RV,
        torch.from_numpy(wanted.temperature_N[part]).to(device, torch.float32),
        torch.from_numpy(wanted.ids_N[part]).to(device),
        chunk=chunk,
        entropy_grad=entropy_grad,
    )
