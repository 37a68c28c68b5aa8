"""Counter-based random numbers and the draw of tokens."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.engines.draw import draw, uniforms

WORD = 2**64


def splitmix64(seed: int, position: int) -> float:
    """The generator of Steele, Lea and Flood (2014) in plain integers: its `position`-th output."""
    z = (seed + 0x9E3779B97F4A7C15 * (position + 1)) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return ((z ^ (z >> 31)) >> 11) / 2**53


def test_the_reference_gives_the_published_first_outputs() -> None:
    # java.util.SplittableRandom and Vigna's splitmix64.c, seed 1234567
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64(1234567, n) for n in range(3)] == [(n >> 11) / 2**53 for n in published]


@given(st.lists(st.integers(0, WORD - 1), min_size=1), st.integers(0, 5000))
def test_uniforms_are_splitmix64(seeds: list[int], position: int) -> None:
    got = uniforms(np.array(seeds, dtype=np.uint64), position).tolist()
    assert got == [splitmix64(seed, position) for seed in seeds]


def test_uniforms_are_uniform_along_positions_and_along_seeds() -> None:
    along_positions = [float(uniforms(np.array([7], dtype=np.uint64), n)) for n in range(4000)]
    along_seeds = uniforms(np.arange(4000, dtype=np.uint64), 0).tolist()
    for numbers in (along_positions, along_seeds):
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        assert float(((counts - 200) ** 2 / 200).sum()) < 43.8  # chi-square, 19 dof, p = 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.06


def drawn(logits: list[float], temperature: float, uniform: float) -> tuple[int, float]:
    ids, logprobs = draw(
        torch.tensor([logits]),
        torch.tensor([temperature]),
        torch.tensor([uniform], dtype=torch.float64),
    )
    return int(ids), float(logprobs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_softmax(temperature: float) -> None:
    n = 20_000
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -3.0])
    uniform_B = uniforms(np.arange(n, dtype=np.uint64), 3)
    ids_B, logprobs_B = draw(logits.expand(n, 5), torch.full((n,), temperature), uniform_B)
    expected = (logits / temperature).softmax(-1) * n
    counts = torch.bincount(ids_B, minlength=5)
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5  # 4 dof, p = 0.001
    exact = (logits / temperature).log_softmax(-1)[ids_B]
    torch.testing.assert_close(logprobs_B, exact)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.1, 3),
)
def test_the_draw_inverts_the_distribution_function(
    logits: list[float], uniform: float, temperature: float
) -> None:
    token, logprob = drawn(logits, temperature, uniform)
    exact = (torch.tensor(logits).double() / temperature).softmax(-1)
    before = float(exact[:token].sum())
    assert before - 1e-5 <= uniform <= before + float(exact[token]) + 1e-5
    assert logprob == pytest.approx(math.log(exact[token]), abs=1e-4)


@pytest.mark.parametrize("uniform", [0.0, 1e-300, 0.5, 1 - 2**-53])
def test_tokens_without_probability_are_never_drawn(uniform: float) -> None:
    never = -math.inf
    assert drawn([never, 3.0, never], 1.0, uniform)[0] == 1
    assert drawn([never, never, 0.0, 0.0, never], 1.0, uniform)[0] in (2, 3)


def test_the_edges_draw_the_first_and_the_last_possible_token() -> None:
    never = -math.inf
    logits = [never, 0.0, 1.0, 0.3, never]
    assert drawn(logits, 1.0, 0.0)[0] == 1
    assert drawn(logits, 1.0, 1 - 2**-53)[0] == 3


def test_a_temperature_of_zero_takes_the_likeliest_and_tells_its_logprob_at_one() -> None:
    token, logprob = drawn([0.0, 2.0, 1.0], 0.0, 0.999)
    assert token == 1
    assert logprob == pytest.approx(2.0 - math.log(1 + math.e + math.e**2))


def test_each_row_has_its_own_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0]]).expand(2, 2)
    _, logprobs = draw(logits, torch.tensor([0.5, 2.0]), torch.tensor([0.9, 0.9]).double())
    expected = [-math.log1p(math.exp(-2)), -math.log1p(math.exp(-0.5))]
    assert logprobs.tolist() == pytest.approx(expected)


def test_logits_that_are_not_finite_give_logprobs_that_are_not() -> None:
    assert math.isnan(drawn([math.nan, 0.0], 1.0, 0.3)[1])
