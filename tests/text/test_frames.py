"""Coordinates in pixels, in resized pictures and as shares, to canonical thousandths and back."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError
from agentrl.text.frames import THOUSANDTHS, Pixels, Shares, distance_in, distance_of, resized
from agentrl.text.gui import MalformedError, Point
from support.screen_actions import points

small, large = st.integers(1, 1000), st.integers(1000, 20_000)


@given(points, large, large)
def test_a_frame_of_1000_pixels_or_more_keeps_every_canonical_point(
    point: Point, width: int, height: int
) -> None:
    frame = Pixels(width=width, height=height)
    assert frame.place(*frame.say(point)) == point


@given(st.data(), small, small)
def test_canonical_points_keep_every_pixel_of_a_frame_of_at_most_1000(
    data: st.DataObject, width: int, height: int
) -> None:
    frame = Pixels(width=width, height=height)
    pixel = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    assert frame.say(frame.place(*pixel)) == pixel


@given(points, st.integers(1, 20_000))
def test_both_ways_round_to_the_nearest(point: Point, size: int) -> None:
    frame = Pixels(width=size, height=size)
    x, _ = frame.say(point)
    assert abs(Fraction(point.x * size, 1000) - x) <= Fraction(1, 2)
    assert abs(Fraction(x * 1000, size) - frame.place(x, 0).x) <= Fraction(1, 2)


@given(points)
def test_shares_and_thousandths_keep_every_canonical_point(point: Point) -> None:
    assert Shares().place(*Shares().say(point)) == point
    assert THOUSANDTHS.say(point) == point == THOUSANDTHS.place(*point)


def test_halves_are_rounded_up_and_edges_are_kept() -> None:
    frame = Pixels(width=2000, height=500)
    assert frame.place(1, 0) == Point(1, 0)  # 0.5 thousandths
    assert frame.say(Point(1000, 1)) == (2000, 1)  # 0.5 pixels
    assert frame.place(2000, 500) == Point(1000, 1000)


@pytest.mark.parametrize("x", [-1, -0.001, 390.01, math.nan, math.inf, -math.inf])
def test_a_place_outside_of_the_frame_is_refused(x: float) -> None:
    with pytest.raises(MalformedError, match="from 0 to 390"):
        Pixels(width=390, height=844).place(x, 5)
    with pytest.raises(MalformedError, match="from 0 to 1,"):
        Shares().place(0, x)


@given(st.integers(28, 6000), st.integers(28, 6000), st.sampled_from([28, 32]))
def test_pictures_are_resized_as_transformers_does(width: int, height: int, multiple: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    limits = {"min_pixels": 100 * multiple**2, "max_pixels": 1280 * multiple**2}
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ConfigError, match="200 times"):
            resized(width, height, multiple=multiple, **limits)
        return
    frame = resized(width, height, multiple=multiple, **limits)
    assert (frame.height, frame.width) == smart_resize(height, width, multiple, **limits)


def test_known_screens_are_resized_as_models_see_them() -> None:
    arpo = resized(1920, 1080, max_pixels=2_116_800)
    assert (arpo.width, arpo.height) == (1932, 1092)
    phone = resized(390, 844, max_pixels=12_845_056)
    assert (phone.width, phone.height) == (392, 840)
    assert phone.place(196, 420) == Point(500, 500)
    qwen3 = resized(390, 844, multiple=32, max_pixels=12_845_056)
    assert (qwen3.width, qwen3.height) == (384, 832)


@given(st.integers(1, 10_000), st.integers(1000, 5000))
def test_a_distance_survives_a_side_of_1000_pixels_or_more(amount: int, size: int) -> None:
    assert distance_of(size, distance_in(size, amount)) == amount


def test_a_distance_is_at_least_one_and_at_most_ten_screens() -> None:
    assert distance_in(10, 1) == 1
    assert distance_of(5000, 0.1) == 1
    with pytest.raises(MalformedError, match="at most 8440 pixels, got 9000"):
        distance_of(844, 9000)
