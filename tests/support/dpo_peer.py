"""TRL's own DPO loss, where given tensors stand in for the model's forward pass."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import torch


def dpo_loss(
    logp_BT: torch.Tensor, ref_BT: torch.Tensor, mask_BT: torch.Tensor, *, beta: float, kind: str
) -> torch.Tensor:
    """`DPOTrainer`'s loss of rows that are chosen and rejected by turns."""
    from accelerate import Accelerator
    from trl import DPOTrainer

    order = torch.cat([torch.arange(0, len(mask_BT), 2), torch.arange(1, len(mask_BT), 2)])
    mask = mask_BT[order]

    def forward(**_: object) -> SimpleNamespace:
        zeros = torch.zeros_like(logp_BT)
        return SimpleNamespace(
            log_probs=torch.where(mask, logp_BT[order], 0.0),
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )

    reference = torch.where(mask, ref_BT[order], 0.0).sum(-1).chunk(2)
    # What the constructor would set beside a model, a tokenizer and a dataset.
    peer = DPOTrainer.__new__(DPOTrainer)
    peer.model = torch.nn.Module()  # in training mode
    peer.accelerator = Accelerator(cpu=True)
    peer.precompute_ref_logps, peer.ld_alpha, peer.beta = True, None, beta
    peer.f_divergence_type, peer.loss_types, peer.loss_weights = "reverse_kl", [kind], [1.0]
    peer.use_weighting = peer.aux_loss_enabled = False
    peer._metrics = {"train": defaultdict(list)}
    peer._total_train_tokens, peer._tp_size = 0, 1
    prompt = torch.zeros(len(mask), 1, dtype=torch.long)
    whole = torch.cat([prompt, mask.long()], 1)
    inputs = {
        "input_ids": whole,
        "attention_mask": torch.ones_like(whole),
        "completion_mask": whole,
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
    }
    loss: torch.Tensor = peer._compute_loss(forward, inputs, False)
    return loss
