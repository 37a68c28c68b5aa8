"""The surrogates beside PPO's equal TRL's on the same tensors, where TRL has them."""

import pytest

from agentrl.algo.aggregate import SequenceMeanTokenMean, SequenceMeanTokenSum, TokenMean
from agentrl.algo.losses.cispo import ClippedWeight
from agentrl.algo.losses.gmpo import GeometricMean
from agentrl.algo.losses.gspo import SequenceRatio
from agentrl.algo.losses.sapo import SoftGate
from agentrl.algo.losses.vespo import VariationalSequence
from support import peers
from support.against_trl import both, given

pytestmark = pytest.mark.trl


@pytest.mark.parametrize(("low", "high"), [(3e-4, 4e-4), (0.1, 0.15)])
def test_gspo_equals_trl(low: float, high: float) -> None:
    both(
        given(),
        trl={
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": low,
            "epsilon_high": high,
        },
        loss=SequenceRatio(low=low, high=high),
        aggregate=SequenceMeanTokenMean(),
    )


def test_luspo_is_gspo_with_sums_over_tokens() -> None:
    both(
        given(),
        trl={"loss_type": "luspo", "importance_sampling_level": "sequence"},
        loss=SequenceRatio(low=0.2, high=0.28),
        aggregate=SequenceMeanTokenSum(),
    )


@pytest.mark.parametrize("cap", [5.0, 1.1])
def test_cispo_equals_trl(cap: float) -> None:
    both(
        given(),
        trl={"loss_type": "cispo", "epsilon_high": cap},
        loss=ClippedWeight(cap=cap),
        aggregate=TokenMean(),
    )


def test_sapo_equals_trl() -> None:
    both(
        given(),
        trl={"loss_type": "sapo", "sapo_temperature_pos": 1.3, "sapo_temperature_neg": 0.7},
        loss=SoftGate(tau_positive=1.3, tau_negative=0.7),
        aggregate=SequenceMeanTokenMean(),
    )


def test_vespo_equals_trl() -> None:
    both(
        given(),
        trl={"loss_type": "vespo"},
        loss=VariationalSequence(),
        aggregate=TokenMean(),
    )


def test_gmpo_equals_trl() -> None:
    both(
        given(),
        trl={"epsilon": 0.3, "epsilon_high": 0.4},
        trainer=peers.gmpo_trainer,
        loss=GeometricMean(low=0.3, high=0.4),
        aggregate=SequenceMeanTokenMean(),
    )
