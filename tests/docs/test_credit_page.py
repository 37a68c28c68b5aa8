"""docs/credit.md: the exact advantage is exact, the figures come out again, every estimator is
placed."""

import json
import runpy
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest

from agentrl.core.registry import names

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "credit_page.py"))
KEPT = json.loads((ROOT / "docs" / "credit" / "measured.json").read_text())


def test_the_page_and_the_plot_are_what_was_measured() -> None:
    assert (ROOT / "docs" / "credit.md").read_text() == SCRIPT["page"](KEPT)
    plot = ROOT / "docs" / "credit" / "correlation.svg"
    assert plot.read_text() == SCRIPT["plot"](KEPT["rows"])


@pytest.mark.parametrize("mdp", list(SCRIPT["MDPS"]))
def test_the_committed_numbers_come_out_again_from_a_small_sample(mdp: str) -> None:
    expected = [row for row in KEPT["small"] if row["mdp"] == mdp]
    found = SCRIPT["measure"](SCRIPT["SMALL"], [mdp], 1)
    assert len(found) == len(expected) == len(SCRIPT["ENTRIES"])
    for one, other in zip(found, expected, strict=True):
        assert one["entry"] == other["entry"]
        for key in ("bias", "deviation", "correlation"):
            assert one[key] == pytest.approx(other[key], rel=1e-6, abs=1e-6), (one, key)


def test_no_estimator_is_both_compared_and_said_to_claim_something_else() -> None:
    compared = {entry.name for entry in SCRIPT["ENTRIES"]}
    assert compared.isdisjoint(SCRIPT["OTHERS"])
    assert compared | SCRIPT["OTHERS"].keys() <= set(names("advantage"))


@pytest.mark.parametrize("mdp", list(SCRIPT["MDPS"]))
def test_the_exact_advantage_is_that_of_long_play(mdp: str) -> None:
    values = []
    for seed in range(SCRIPT["POLICIES"]):
        rng = Random(f"{mdp} {seed}")
        exact = SCRIPT["Exact"].drawn(SCRIPT["MDPS"][mdp](), rng)
        for state, left, before in SCRIPT["token_states"](exact):
            mean = sum(
                exact.chance(state, before, token) * exact.advantage(state, left, before, token)
                for token in "01"
            )
            assert mean == pytest.approx(0.0, abs=1e-12)
        earned = [exact.play(rng)[0].env_return for _ in range(2000)]
        values.append(exact.value(exact.mdp.start, exact.mdp.horizon))
        error = stdev(earned) / len(earned) ** 0.5
        assert fmean(earned) == pytest.approx(values[-1], abs=4 * error)
    assert len(set(values)) == len(values)


def test_right_values_without_lambda_are_the_exact_advantage_where_nothing_slips() -> None:
    (number,) = [
        n
        for n, entry in enumerate(SCRIPT["ENTRIES"])
        if entry.name == "token_gae" and entry.settings["lam"] == 0.0 and not entry.error
    ]
    for row in KEPT["rows"]:
        if row["entry"] == number and row["mdp"] != "grid":
            assert row["correlation"] == pytest.approx(1.0)
            assert row["deviation"] == pytest.approx(0.0, abs=1e-9)
