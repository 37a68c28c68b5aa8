"""Losses that compare siblings: numbers worked by hand, their optimum, and TRL's own formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from agentrl.algo.aggregate import SequenceMeanTokenMean
from agentrl.algo.losses.copg import ContrastivePolicyGradient
from agentrl.algo.losses.dpo import DirectPreference
from agentrl.algo.losses.ipo import IdentityPreference
from agentrl.core.errors import TrainingError
from agentrl.core.protocols import GroupLoss
from agentrl.core.tensors import Siblings
from agentrl.train.objective import Objective
from support.credit import batch, scores


def of(
    loss: GroupLoss,
    margins: Sequence[float],
    rewards: Sequence[float],
    *,
    groups: Sequence[int] | None = None,
    lengths: Sequence[float] | None = None,
) -> tuple[list[float], list[float]]:
    """Losses `[N]`, and the gradient of their mean in the margins, times N."""
    margins_N = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
    losses_N, _ = loss(
        Siblings(
            margins_N=margins_N,
            rewards_N=torch.tensor(rewards, dtype=torch.float64),
            lengths_N=torch.tensor(lengths or [1.0] * len(margins), dtype=torch.float64),
            group_N=torch.tensor(groups or [0] * len(margins)),
        )
    )
    [gradient] = torch.autograd.grad(losses_N.sum(), margins_N)
    return losses_N.tolist(), gradient.tolist()


def test_the_pair_of_copg() -> None:
    losses, gradient = of(ContrastivePolicyGradient(beta=0.5), [0.2, -0.1], [1.0, 0.0])
    assert losses == pytest.approx([-0.2775] * 2)
    # both orders of the pair: twice the coefficients .85 of the paper's gradient
    assert gradient == pytest.approx([-1.7, 1.7])


def test_on_policy_copg_is_twice_leave_one_out() -> None:
    rewards = [1.0, 0.25, 0.0, 0.0]
    _, gradient = of(ContrastivePolicyGradient(), [0.3] * 4, rewards)
    loo = [r - (sum(rewards) - r) / 3 for r in rewards]
    assert gradient == pytest.approx([-2 * a for a in loo])


def test_gradient_descent_on_copg_finds_the_regularised_optimum_from_uniform_data() -> None:
    ref = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    rewards = torch.tensor([1.0, 0.2, 0.0, 0.6], dtype=torch.float64)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=0.5)
    for _ in range(400):
        siblings = Siblings(
            margins_N=logits.log_softmax(0) - ref.log(),
            rewards_N=rewards,
            lengths_N=torch.ones(4),
            group_N=torch.zeros(4),
        )
        losses_N, _ = ContrastivePolicyGradient(beta=0.5)(siblings)
        optimiser.zero_grad()
        losses_N.mean().backward()
        optimiser.step()
    optimum = (ref.log() + rewards / 0.5).softmax(0)
    torch.testing.assert_close(logits.softmax(0), optimum, atol=1e-3, rtol=0)


def test_ipo_is_copg_where_the_better_one_is_worth_half_more() -> None:
    margins, beta = [0.7, -0.4], 0.3
    ipo, ipo_gradient = of(IdentityPreference(beta=beta, per_token=False), margins, [0.5, 0.0])
    copg, copg_gradient = of(ContrastivePolicyGradient(beta=beta), margins, [0.5, 0.0])
    assert [2 / beta * v + 1 / (4 * beta**2) for v in copg] == pytest.approx(ipo)
    assert [2 / beta * g for g in copg_gradient] == pytest.approx(ipo_gradient)


def test_the_numbers_of_dpo() -> None:
    losses, gradient = of(DirectPreference(), [1.0, -0.5], [1.0, 0.0])
    assert losses == pytest.approx([0.62096] * 2, abs=1e-5)
    slope = 0.1 / (1 + math.exp(0.15))  # of one pair; its loss stands at both trajectories
    assert gradient == pytest.approx([-2 * slope, 2 * slope])


def test_dpo_pushes_the_best_up_and_the_worst_down_and_leaves_the_others() -> None:
    _, gradient = of(DirectPreference(), [0.0] * 4, [0.3, 1.0, 0.0, 0.6])
    assert gradient == pytest.approx([0.0, -0.05 * 4, 0.05 * 4, 0.0])


def test_ties_share_a_pair_and_equal_rewards_make_none() -> None:
    _, gradient = of(DirectPreference(), [0.0] * 4, [1.0, 1.0, 0.0, 0.0])
    assert gradient == pytest.approx([-0.1, -0.1, 0.1, 0.1])
    for loss in (DirectPreference(), IdentityPreference()):
        losses, gradient = of(loss, [0.4, -0.2, 0.1], [0.5] * 3)
        assert losses == [0.0] * 3
        assert gradient == [0.0] * 3


@pytest.mark.parametrize(
    "loss", [ContrastivePolicyGradient(), DirectPreference(), IdentityPreference()]
)
def test_groups_are_compared_apart(loss: GroupLoss) -> None:
    margins, rewards, lengths = [0.1, -0.3, 0.2, 0.5, -0.1], [1.0, 0.0, 0.4, 0.3, 0.9], [3.0] * 5
    both = of(loss, margins, rewards, groups=[0, 0, 0, 1, 1], lengths=lengths)
    first = of(loss, margins[:3], rewards[:3], lengths=lengths[:3])
    second = of(loss, margins[3:], rewards[3:], lengths=lengths[3:])
    for got, left, right in zip(both, first, second, strict=True):
        assert got == pytest.approx(left + right)
    assert sum(both[1][:3]) == pytest.approx(0.0)


def test_a_lone_trajectory_has_nothing_to_be_compared_with() -> None:
    for loss in (ContrastivePolicyGradient(), DirectPreference(), IdentityPreference()):
        assert of(loss, [0.7], [1.0]) == ([0.0], [0.0])


def test_a_loss_that_compares_siblings_asks_for_the_reference() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    of_dpo = Objective(loss=DirectPreference(), aggregate=SequenceMeanTokenMean())
    with pytest.raises(TrainingError, match="no reference logprobs"):
        of_dpo(batch(mask, torch.zeros(2, 3)), scores(torch.zeros(2, 3)))


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_a_step_equals_trl_s_loss(kind: str) -> None:
    """Pairs of whole trajectories through our objective and through TRL's trainer."""
    from support.dpo_peer import dpo_loss

    generator = torch.Generator().manual_seed(4)
    lengths_B = torch.tensor([5, 2, 7, 4, 1, 6])  # chosen and rejected by turns
    mask_BT = torch.arange(7) < lengths_B[:, None]
    logp_BT, ref_BT = (
        -3 * torch.rand(6, 7, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    rewards_B = torch.tensor([1.0, 0.0] * 3, dtype=torch.float64)
    step = batch(mask_BT, rewards_B[:, None] * mask_BT, ref_BT=ref_BT)
    step = type(step)(**{**vars(step), "group_B": torch.arange(6) // 2})
    loss = DirectPreference(beta=0.3) if kind == "sigmoid" else IdentityPreference(beta=0.3)
    mine_BT = logp_BT.clone().requires_grad_()
    mine, metrics = Objective(loss=loss, aggregate=SequenceMeanTokenMean())(step, scores(mine_BT))
    theirs_BT = logp_BT.clone().requires_grad_()
    reference = dpo_loss(theirs_BT, ref_BT, mask_BT, beta=0.3, kind=kind)
    torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-7)
    mine.backward()
    reference.backward()
    assert mine_BT.grad is not None
    assert theirs_BT.grad is not None
    torch.testing.assert_close(mine_BT.grad, theirs_BT.grad, rtol=1e-6, atol=1e-7)
    assert metrics["pairs/margin"].weight == pytest.approx(3.0)
    assert math.isfinite(metrics["pairs/accuracy"].mean)
