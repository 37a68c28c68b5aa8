"""One optimiser step: what moves the weights, and what leaves them alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from agentrl.algo.aggregate import LocalTokenMean
from agentrl.algo.entropy import Bonus
from agentrl.algo.kl import K3
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.errors import TrainingError
from agentrl.core.tensors import LossOut
from agentrl.train.prepare import TrainRow, with_old
from agentrl.train.score import Padded
from support.models import row, tiny_policy
from support.steps import step, train_rows, weights


def with_advantage(rows: Sequence[TrainRow], value: float) -> list[TrainRow]:
    return [
        replace(
            item,
            advantages=TokenAdvantages(
                tuple(value * m for m in item.advantages.mask), item.advantages.mask
            ),
        )
        for item in rows
    ]


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(now, before[name]) for name, now in weights(module).items())


def has_gradients(module: torch.nn.Module) -> bool:
    return any(weight.grad is not None for weight in module.parameters())


@dataclass
class RootLoss:
    """Finite, with a gradient that is not."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        return LossOut(loss_BT=(logp - logp.detach()).abs().sqrt())


def test_a_step_makes_good_tokens_likelier_and_bad_ones_less_so() -> None:
    for sign in (1.0, -1.0):
        module = tiny_policy().module
        rows = with_advantage(train_rows(), sign)
        rows = [replace(item, old_logprobs=None) for item in rows]
        before = sum(map(sum, (r.old_logprobs or () for r in with_old(rows, Padded(), module, 99))))
        step(module, rows, optimiser=torch.optim.SGD(module.parameters(), lr=0.1))
        after = sum(map(sum, (r.old_logprobs or () for r in with_old(rows, Padded(), module, 99))))
        assert (after - before) * sign > 0


def test_a_loss_that_is_not_a_number_ends_the_run_and_leaves_the_weights_alone() -> None:
    module = tiny_policy().module
    before = weights(module)
    rows = train_rows()
    rows[-1] = with_advantage(rows[-1:], math.nan)[0]
    with pytest.raises(TrainingError, match=r"the loss is nan at micro-batch \d of \d"):
        step(module, rows, budget=20)
    assert not changed(module, before)
    assert not has_gradients(module)
    assert not module.training


def test_a_gradient_that_is_not_a_number_ends_the_run_and_leaves_the_weights_alone() -> None:
    module = tiny_policy().module
    before = weights(module)
    with pytest.raises(TrainingError, match=r"gradient norm is nan; the step was not taken"):
        step(module, train_rows(), loss=RootLoss())
    assert not changed(module, before)
    assert not has_gradients(module)
    assert not module.training


@pytest.mark.parametrize("rows", [[], with_advantage(train_rows(), 0.0)], ids=["none", "equal"])
def test_without_a_trained_advantage_no_step_is_taken_and_it_is_counted(
    rows: list[TrainRow],
) -> None:
    module = tiny_policy().module
    before = weights(module)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    metrics = step(module, rows, optimiser=optimiser)
    assert {key: value.total for key, value in metrics.items()} == {"loss/idle_steps": 1.0}
    assert not changed(module, before)


def test_equal_groups_beside_others_weigh_in_the_mean_but_move_nothing_themselves() -> None:
    rows = train_rows()
    live, idle = rows[:2], with_advantage(rows[2:], 0.0)
    together, alone = tiny_policy().module, tiny_policy().module
    before = weights(alone)
    step(together, [*live, *idle])
    step(alone, live)
    share = sum(r.n_trained for r in live) / sum(r.n_trained for r in rows)
    for name, start in before.items():
        torch.testing.assert_close(
            weights(together)[name] - start,
            share * (weights(alone)[name] - start),
            rtol=1e-4,
            atol=1e-6,
        )


def test_a_divergence_is_paid_by_equal_groups_too() -> None:
    module = tiny_policy().module
    before = weights(module)
    rows = [replace(r, ref_logprobs=r.old_logprobs) for r in with_advantage(train_rows(), 0.0)]
    metrics = step(module, rows, kl=K3(beta=0.1))
    assert changed(module, before)
    assert metrics["loss/kl"].mean > 0


def test_an_entropy_bonus_is_paid_to_equal_groups_too() -> None:
    module = tiny_policy().module
    rows = with_advantage(train_rows(), 0.0)
    first = step(module, rows, entropy=Bonus(coef=1.0))["loss/entropy"].mean
    for _ in range(3):
        step(module, rows, entropy=Bonus(coef=1.0))
    assert step(module, rows, entropy=Bonus(coef=1.0))["loss/entropy"].mean > first
    before = weights(module)
    assert "loss/idle_steps" in step(module, rows, entropy=Bonus(coef=0.0))
    assert not changed(module, before)


def test_the_local_token_mean_averages_the_micro_batches() -> None:
    rows = train_rows()
    start = weights(tiny_policy().module)
    moved: list[dict[str, torch.Tensor]] = []
    parts = [[r for r in rows if r.key == key] for key in dict.fromkeys(r.key for r in rows)]
    for chosen, budget in ((rows, 1), *((part, 10_000) for part in parts)):
        module = tiny_policy().module
        step(module, chosen, aggregate=LocalTokenMean(), budget=budget)
        moved.append({name: w - start[name] for name, w in weights(module).items()})
    whole, *alone = moved  # a budget of 1 gives every trajectory its own micro-batch
    for name, change in whole.items():
        mean = torch.stack([one[name] for one in alone]).mean(0)
        torch.testing.assert_close(change, mean, rtol=1e-4, atol=1e-6)


def test_a_divergence_without_a_reference_is_refused() -> None:
    with pytest.raises(TrainingError, match="no reference logprobs"):
        step(tiny_policy().module, train_rows(), kl=K3())


def test_long_gradients_are_scaled_down_and_reported_as_they_were() -> None:
    free, clipped = tiny_policy().module, tiny_policy().module
    before = weights(free)
    norm = step(free, train_rows())["loss/grad_norm"].total
    assert step(clipped, train_rows(), grad_clip=norm / 10)["loss/grad_norm"].total == (
        pytest.approx(norm)
    )
    for name, start in before.items():
        torch.testing.assert_close(
            weights(clipped)[name] - start, (weights(free)[name] - start) / 10, rtol=1e-3, atol=1e-6
        )


def test_without_old_logprobs_the_ratio_is_one() -> None:
    rows = [replace(item, old_logprobs=None) for item in train_rows()]
    metrics = step(tiny_policy().module, rows)
    assert metrics["loss/ratio"].mean == pytest.approx(1.0)
    assert metrics["loss/clip_low"].total == metrics["loss/clip_high"].total == 0


def test_nothing_off_the_mask_reaches_the_weights() -> None:
    rows = train_rows()
    noisy = []
    for item in rows:
        mask, tail = item.row.mask, 3
        noise = [0.0 if m else 9.0 for m in mask] + [9.0] * tail
        longer = row(
            (*item.row.ids, 7, 8, 9), (*mask, *(False,) * tail), trajectory=item.row.trajectory
        )
        values, trained = item.advantages
        noisy.append(
            TrainRow(
                row=replace(longer, sampler_logprobs=tuple(noise)),
                advantages=TokenAdvantages((*values, 0.0, 0.0, 0.0), (*trained, *(False,) * tail)),
                old_logprobs=tuple(
                    a + b for a, b in zip((*(item.old_logprobs or ()), 0, 0, 0), noise, strict=True)
                ),
                ref_logprobs=tuple(noise),
            )
        )
    plain, other = tiny_policy().module, tiny_policy().module
    quiet = [replace(item, ref_logprobs=(0.0,) * len(item.row.ids)) for item in rows]
    assert all(len(item.row.ids) == len(item.advantages.values) for item in noisy)
    a, b = (step(m, r, kl=K3(beta=0.1)) for m, r in ((plain, quiet), (other, noisy)))
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(other)[name], weight, rtol=0, atol=1e-5)
    for key, value in a.items():
        if key == "loss/trained_share":  # which counts the tokens that are off the mask
            assert b[key].weight == value.weight + 3 * len(rows)
        else:
            assert b[key].mean == pytest.approx(value.mean, rel=1e-4, abs=1e-6), key
