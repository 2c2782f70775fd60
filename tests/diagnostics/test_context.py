"""Bounds in their places: at least 0, in order, and not defined where they are not."""

import math

import pytest

from pyro_mivae.diagnostics.context import in_order

NAN = (math.nan, math.nan)


@pytest.mark.parametrize(
    ("lower", "upper", "ceilings", "expected"),
    [
        (0.2, 0.5, [], (0.2, 0.5, 0.0)),
        (0.2, 0.5, [0.3], (0.2, 0.3, 0.0)),
        (0.2, 0.5, [0.1], (0.1, 0.1, 0.0)),
        (-0.5, -0.2, [], (0.0, 0.0, 0.0)),
        (0.2, 0.9, [math.nan], (0.2, 0.9, 1.0)),
        (0.2, math.nan, [0.5], (0.2, 0.5, 0.0)),
        (math.nan, 0.5, [], (math.nan, 0.5, math.nan)),
        (0.2, math.nan, [], (0.2, math.nan, math.nan)),
        (math.nan, math.nan, [math.nan], (math.nan, math.nan, math.nan)),
        (math.nan, -0.1, [], (math.nan, 0.0, math.nan)),
    ],
)
def test_bounds_are_put_in_order_and_nan_stays(lower, upper, ceilings, expected):
    low, high, open_ = in_order((lower, 0.1), (upper, 0.1), [(c, 0.1) for c in ceilings])
    assert (low[0], high[0], open_) == pytest.approx(expected, nan_ok=True)
