"""Elliptical bonuses, by the published worked numbers and against the direct inverse."""

import numpy as np
import pytest

from agentrl.explore.bonuses.e3b import Ellipse, Elliptical
from support.walks import walk, walks


def test_the_worked_numbers_and_the_direct_inverse() -> None:
    e1, e2 = np.eye(4)[0], np.eye(4)[1]
    ellipse, direct = Ellipse(4, 0.1), 0.1 * np.eye(4)
    found = []
    for phi in (e1, e1, e2, e1):
        found.append(ellipse.add(phi))
        direct += np.outer(phi, phi)
        assert np.allclose(ellipse.inverse, np.linalg.inv(direct))
    assert found == pytest.approx([10, 0.9091, 10, 0.4762], abs=5e-5)


def test_the_inverse_stays_right_over_many_texts() -> None:
    rng = np.random.default_rng(0)
    ellipse, direct = Ellipse(16, 0.1), 0.1 * np.eye(16)
    for phi in rng.standard_normal((300, 16)):
        phi /= np.linalg.norm(phi)
        assert ellipse.add(phi) == pytest.approx(phi @ np.linalg.inv(direct) @ phi)
        direct += np.outer(phi, phi)
    assert np.allclose(ellipse.inverse, np.linalg.inv(direct))


def test_an_episode_that_sees_new_things_gets_more_than_one_that_stands_still() -> None:
    looks = ["a red door ahead", "a blue key ahead", "an old grey box", "lava everywhere"]
    moving = walk("abcd", heard=looks, opening="an empty room")
    standing = walk("aaaa", heard=["an empty room"] * 4, opening="an empty room")
    [[first, second]] = Elliptical().rate([walks(episodes=[moving, standing])])
    assert all(0.5 < rating <= 1.0 for rating in first)
    assert second == sorted(second, reverse=True)
    assert second[0] == pytest.approx(0.0909, abs=1e-4)


def test_every_episode_begins_anew() -> None:
    bonus = Elliptical()
    group = walks(episodes=[walk("a", heard=["a red door ahead"], opening="an empty room")])
    before = bonus.rate([group])
    bonus.observe([group])
    assert bonus.rate([group, group]) == before * 2
