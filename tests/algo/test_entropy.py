"""Entropy control: the bonus, its controller, and the threshold of the high-entropy mask."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.aggregate import Constant, TokenMean
from agentrl.algo.entropy import Adaptive, Bonus, TemperatureControl, entropy_threshold, tempered
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Aggregate, Entropy, Stateful
from agentrl.core.tensors import Scores
from agentrl.train.objective import Objective
from support.credit import batch

MASK = torch.tensor([[True, True, False], [True, False, False]])
ENTROPIES = torch.tensor([[0.5, 1.5, 9.0], [1.0, 9.0, 9.0]], dtype=torch.float64)


def loss_with(entropy: Entropy | None, aggregate: Aggregate) -> torch.Tensor:
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    objective = Objective(loss=PpoClip(), aggregate=aggregate, entropy=entropy)
    loss, _ = objective(batch(MASK, zeros), Scores(logp_BT=zeros, entropy_BT=ENTROPIES))
    return loss


@pytest.mark.parametrize("aggregate", [TokenMean(), Constant(length=8)])
def test_the_bonus_is_the_mean_entropy_whatever_the_aggregator(aggregate: Aggregate) -> None:
    assert float(loss_with(Bonus(coef=0.1), aggregate)) == pytest.approx(-0.1 * (0.5 + 1.5 + 1) / 3)


def test_without_a_coefficient_nothing_is_added_and_no_gradient_is_asked_for() -> None:
    for entropy in (None, Bonus()):
        assert float(loss_with(entropy, TokenMean())) == 0.0
        objective = Objective(loss=PpoClip(), aggregate=TokenMean(), entropy=entropy)
        assert not objective.entropy_grad
        assert not objective.touches_idle_rows
    objective = Objective(loss=PpoClip(), aggregate=TokenMean(), entropy=Bonus(coef=0.1))
    assert objective.entropy_grad
    assert objective.touches_idle_rows


def test_the_adaptive_coefficient_rises_below_the_target_and_falls_above() -> None:
    control = Adaptive(target=0.3, start=0.01)
    assert control.coef == 0.0, "nothing was seen yet"
    seen = []
    for entropy in (0.2, 0.3, 0.31, 0.5, 0.5, 0.5, 0.1):
        control.observe(entropy)
        seen.append(control.coef)
    # held: .015, .02, .015, .01, .005, 0, .005; applied only after an entropy of at most .3
    assert seen == pytest.approx([0.015, 0.02, 0, 0, 0, 0, 0.005])


def test_the_adaptive_coefficient_stays_within_its_bounds() -> None:
    control = Adaptive(target=0.3, delta=0.4, low=0.1, start=0.1)
    for entropy, held in ((0.1, 0.5), (0.1, 0.9), (0.1, 1.0), (0.1, 1.0)):
        control.observe(entropy)
        assert control.coef == pytest.approx(held)
    for _ in range(5):
        control.observe(0.9)
    control.observe(0.1)
    assert control.coef == pytest.approx(0.5)


def test_a_step_that_trained_nothing_changes_nothing() -> None:
    control = Adaptive(target=0.3, start=0.2)
    control.observe(0.1)
    before = control.state()
    control.observe(math.nan)
    assert control.state() == before


@given(st.lists(st.floats(0, 3), max_size=8), st.lists(st.floats(0, 3), max_size=8))
def test_a_restored_controller_goes_on_as_if_never_stopped(
    before: list[float], after: list[float]
) -> None:
    whole, first, second = (Adaptive(target=0.7, start=0.02) for _ in range(3))
    assert isinstance(first, Stateful)
    for entropy in before:
        whole.observe(entropy)
        first.observe(entropy)
    second.restore(first.state())
    for entropy in after:
        whole.observe(entropy)
        second.observe(entropy)
    assert second.coef == whole.coef
    assert second.state() == whole.state()


@pytest.mark.parametrize("state", [None, {}, {"coef": "high"}, {"coef": 0.1, "entropy": "x"}])
def test_a_strange_state_is_refused(state: object) -> None:
    with pytest.raises(ConfigError, match="expected the state of an adaptive bonus"):
        Adaptive().restore(state)  # type: ignore[arg-type]


def test_a_start_outside_the_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start: must be within low=0\.1"):
        Adaptive(low=0.1)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30), st.floats(0.01, 1))
def test_the_threshold_is_the_quantile(entropies: list[float], top: float) -> None:
    expected = torch.quantile(torch.tensor(entropies, dtype=torch.float64), 1 - top)
    assert entropy_threshold(entropies, top) == pytest.approx(float(expected), abs=1e-12)


def test_a_fifth_of_ten_tokens_are_the_two_with_the_highest_entropy() -> None:
    entropies = [0.3, 0.1, 2.0, 0.2, 1.5, 0.0, 0.4, 0.6, 0.5, 0.7]
    least = entropy_threshold(entropies, 0.2)
    assert [h for h in entropies if h >= least] == [2.0, 1.5]
    assert entropy_threshold(entropies, 1.0) == 0.0
    assert entropy_threshold([], 0.2) == -math.inf


def test_the_tempered_entropy_rises_with_the_temperature() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    entropies = [float(torch.special.entr((logits / t).softmax(0)).sum()) for t in (1, 0.85, 0.6)]
    assert entropies == pytest.approx([0.8324, 0.7569, 0.5568], abs=1e-4)


def test_the_temperature_moves_against_the_mean_entropy_within_its_bounds() -> None:
    control = TemperatureControl()
    assert tempered(control, 0.85) == 0.85
    control.observe(0.1)
    first = 0.85 * math.exp(0.1 * 0.2)
    assert control.temper(0.85) == pytest.approx(first)
    control.observe(1.1)
    assert control.temper(0.85) == pytest.approx(first * math.exp(0.1 * (0.3 - 0.2)))
    control.observe(math.nan)
    assert control.temper(0.85) == pytest.approx(first * math.exp(0.1 * (0.3 - 0.2)))
    for entropy, bound in ((0.0, 1.2), (9.0, 0.6)):
        control = TemperatureControl(gain=5.0)
        control.temper(1.0)
        for _ in range(9):
            control.observe(entropy)
        assert control.temper(1.0) == bound


def test_the_temperature_goes_on_from_its_state() -> None:
    control = TemperatureControl()
    control.temper(1.0)
    control.observe(0.7)
    assert isinstance(control, Stateful)
    other = TemperatureControl()
    other.restore(control.state())
    for one in (control, other):
        one.observe(0.1)
    assert other.temper(1.0) == control.temper(1.0) != 1.0
    with pytest.raises(ConfigError, match="expected the state of a temperature control"):
        other.restore({"coef": 1.0})


def test_another_entropy_control_leaves_the_temperature_alone() -> None:
    for entropy in (None, Bonus(), Adaptive()):
        assert tempered(entropy, 0.7) == 0.7


def test_a_lowest_temperature_above_the_highest_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"low: must be at most high=0\.5"):
        TemperatureControl(low=0.9, high=0.5)
