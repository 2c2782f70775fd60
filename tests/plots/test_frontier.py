"""The plane of rate and distortion holds every model, and lines of the same ELBO."""

import math

import pytest

from pyro_mivae.errors import OptionError
from pyro_mivae.plots import new_figure, plot_rate_distortion, render_png

ROWS = [
    {"beta": b, "mi_weight": w, "rate": 8 / b + w, "distortion": 20 + b + s, "mi_lower": 4 / b}
    for b in (0.5, 1.0, 2.0)
    for w in (0.0, 1.0)
    for s in (0.0, 0.1)
]


def test_lines_follow_one_option_and_another_tells_them_apart():
    figure, ax = new_figure(4.0)
    plot_rate_distortion(ax, ROWS, along="beta", apart="mi_weight")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["λ = 0", "λ = 1"]
    first = next(line for line in ax.lines if line.get_label() == "λ = 0")
    assert first.get_xdata() == pytest.approx([16.0, 8.0, 4.0])  # in the order of beta
    assert first.get_ydata() == pytest.approx([20.55, 21.05, 22.05])  # means over seeds
    assert sum(len(points.get_offsets()) for points in ax.collections) == len(ROWS)
    texts = [text.get_text() for text in ax.texts]
    assert {"β 0.5", "β 1", "β 2"} <= set(texts)
    assert render_png(figure).startswith(b"\x89PNG")


def test_grey_lines_are_of_the_same_elbo():
    ax = plot_rate_distortion(new_figure()[1], ROWS, along="beta", apart="mi_weight")
    lines = [line for line in ax.lines if str(line.get_label()).startswith("_")]
    totals = {round(x + y, 6) for line in lines for x, y in zip(*line.get_data(), strict=True)}
    assert len(totals) == len(lines) > 2
    shown = {-float(t.get_text()) for t in ax.texts if not t.get_text().startswith("β")}
    assert shown
    assert shown <= totals


def test_what_is_not_finite_is_left_out():
    broken = dict.fromkeys(ROWS[0], math.nan) | {"beta": 9.0, "mi_weight": 0.0}
    ax = plot_rate_distortion(new_figure()[1], [*ROWS, broken], along="beta")
    assert "β 9" not in [text.get_text() for text in ax.texts]
    with pytest.raises(OptionError, match="no row has a rate and a distortion"):
        plot_rate_distortion(new_figure()[1], [broken], along="beta")


def test_names_a_column_that_is_missing():
    with pytest.raises(OptionError, match="a row lacks gamma"):
        plot_rate_distortion(new_figure()[1], ROWS, along="gamma")


def line(sums, rates=(16.5, 9.0, 2.5)):
    pairs = zip((0.25, 1.0, 4.0), rates, sums, strict=False)
    return [{"beta": b, "rate": r, "distortion": s - r, "mi_lower": r / 2} for b, r, s in pairs]


CASES = {
    "spread": line((29.7, 27.3, 28.5)),
    "narrow": line((26.9, 26.6, 27.2), (11.0, 10.5, 10.0)),
    "steep": line((50.0, 30.0, 90.0), (2.0, 1.5, 1.0)),
    "large": line((1234.0, 1100.0, 1150.0), (90.0, 60.0, 30.0)),
    "one": line((27.3,), (9.0,)),
    "one twice": [
        row | {"rate": row["rate"] + s} for row in line((27.3,), (9.0,)) for s in (0, 0.1)
    ],
    "apart": ROWS,
    "at the right": line((26.8, 26.95, 27.16), (0.86, 0.5, 0.09)),
}


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_what_is_written_of_the_grey_lines_can_be_read(rows):
    figure, ax = new_figure(4.0)
    plot_rate_distortion(ax, rows, along="beta")
    figure.draw_without_rendering()
    grey = [text for text in ax.texts if not text.get_text().startswith("β")]
    assert len({text.get_text() for text in grey}) == len(grey) > 0
    frame = ax.get_window_extent()
    for text in grey:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        others = [other for other in ax.texts if other is not text]
        assert not any(box.overlaps(other.get_window_extent()) for other in others)
    for limits in (ax.get_xlim(), ax.get_ylim()):
        assert limits[1] - limits[0] >= 1.0
