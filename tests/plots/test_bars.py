"""Bars are as long as the nats and shares that they are given."""

import math

import pytest
import torch

from pyro_mivae import plots
from pyro_mivae.errors import ShapeError

from .drawn import texts


def test_the_sandwich_lies_between_its_bounds(ax):
    rows = {"wide": (1.0, 3.0), "point": (2.0, 2.001), "none": (math.nan, math.nan)}
    rows |= {"at least": (2.0, math.inf), "at most": (math.nan, 2.0)}
    plots.plot_sandwich(ax, rows, marks={"rate": 5.0, "no": math.nan}, colors={"wide": "#bd1f01"})
    assert texts(ax.get_yticklabels()) == ["wide", "point", "at least", "at most"]
    assert texts(ax.texts) == ["rate 5.00", "1.00 – 3.00", "2.00", "≥ 2.00", "≤ 2.00"]
    wide = ax.patches[0]
    assert (wide.get_x(), wide.get_width()) == (1.0, 2.0)
    mark, point = ax.lines
    assert (mark.get_xdata()[0], point.get_marker()) == (5.0, "D")
    spans = [(p.get_x(), p.get_x() + p.get_width(), p.get_alpha()) for p in ax.patches[1:]]
    least, most = spans[:8], spans[8:]
    assert least[0][0] == 2.0
    assert max(end for _, end, _ in most) == pytest.approx(2.0)
    assert [a for *_, a in least] == [a for *_, a in most] == [1 - s / 8 for s in range(8)]


def test_a_sandwich_of_nothing(ax):
    with pytest.raises(ShapeError, match="nothing to draw"):
        plots.plot_sandwich(ax, {"a": (math.nan, math.nan)})


def test_contributions_are_solid_up_to_the_lower_bound(ax):
    plots.plot_contributions(
        ax, ["a", "b"], [1.0, math.nan], [1.5, 0.5], cost=[2.0, math.nan], color="#3f90da"
    )
    pieces = [(p.get_x(), p.get_width(), p.get_alpha()) for p in ax.patches]
    assert pieces == [(0, 1.0, None), (1.0, 0.5, 0.4), (0, 0.0, None), (0.0, 0.5, 0.4)]
    (stroke,) = ax.lines
    assert list(stroke.get_xdata()) == [2.0, 2.0]
    assert texts(ax.get_yticklabels()) == ["a", "b"]
    with pytest.raises(ShapeError, match="2 names for 1 lower and 2 upper bounds and 2 costs"):
        plots.plot_contributions(ax, ["a", "b"], [1.0], [1.0, 2.0])


def test_information_bar_has_a_piece_per_dimension_the_largest_first(ax):
    nats = {"z": torch.tensor([0.5, 2.0]), "c": torch.tensor(1.5), "w": torch.tensor(math.nan)}
    plots.plot_information_bar(ax, nats)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([2.0, 0.5, 1.5])
    assert [bar.get_x() for bar in ax.patches] == pytest.approx([0.0, 2.0, 2.5])
    assert texts(ax.texts) == ["z  2.50 nats", "c  1.50 nats", "w  not defined"]
