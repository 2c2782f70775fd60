"""Pictures look alike, on light and on dark pages."""

import io
import sys

import pytest
import torch
from PIL import Image

from pyro_mivae import plots
from pyro_mivae.plots.style import DARK, INK, PALETTE, percent

from .drawn import texts


def legend(ax):
    return texts(ax.get_legend().get_texts())


def test_texts_are_drawn_literally():
    """A dollar sign is a dollar sign, of ticks, legends and texts alike."""
    hostile = ["$5-$10", r"$\foo{$", r"\$5", "a_b^2$$"]
    drawn = []
    for options in ({}, {"parse_math": False}):
        figure, ax = plots.new_figure()
        for place, text in enumerate(hostile):
            ax.plot([0, 1], label=text)
            ax.text(0.5, place / 4, text, **options)
        ax.set_yticks(range(4), hostile, **options)
        legend = ax.legend()
        for artist in legend.get_texts():
            artist.set(**options)
        drawn.append(plots.render_png(figure))
        assert [t.get_text() for t in legend.get_texts()] == hostile
    assert drawn[0] == drawn[1]
    figure, ax = plots.new_figure()
    ax.xaxis.set_major_formatter(lambda value, place: hostile[place % 4])
    assert plots.render_png(figure)


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.0994, "9.9 %"), (0.0996, "10 %"), (1, "100 %")],
)
def test_percent(share, written):
    assert percent(share) == written


def test_a_figure_turns_dark_and_back(ax):
    plots.plot_contributions(ax, ["a", "b"], [1.0, 2.0], [1.5, 2.5])
    figure, label = ax.figure, ax.get_yticklabels()[0]
    before = plots.render_png(figure)
    dark = Image.open(io.BytesIO(plots.render_png(figure, dark=True)))
    assert label.get_color() == INK
    assert plots.render_png(figure) == before
    light = Image.open(io.BytesIO(before))
    assert light.width == dark.width == 1000
    assert light.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert dark.getpixel((0, 0))[3] == 0
    inks = {tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in DARK.values()}
    opaque = {p[:3] for _, p in dark.convert("RGBA").getcolors(10**6) if p[3] == 255}
    assert inks & opaque


@pytest.mark.parametrize("label", ["1", "z12  ·  10.25 nats"])
def test_row_labels_are_inside_the_picture(label):
    figure, ax = plots.grid_figure(6, 9, (1, 28, 28), label_width=1.2)
    plots.plot_grid(ax, torch.rand(6, 9, 1, 28, 28), [label] * 6)
    png = Image.open(io.BytesIO(plots.render_png(figure))).convert("L")
    edge = png.crop((0, 0, 4, png.height))
    assert edge.getextrema() == (255, 255)


def test_height_is_trimmed_and_width_is_not():
    figure, ax = plots.new_figure(8.0)
    plots.plot_grid(ax, torch.rand(1, 10, 1, 8, 8))
    assert Image.open(io.BytesIO(plots.render_png(figure))).size[0] == 1000
    assert Image.open(io.BytesIO(plots.render_png(figure))).size[1] < 200


def test_ten_distinct_colors():
    assert len(set(PALETTE)) == 10


def test_plotting_leaves_pyplot_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    figure, ax = plots.new_figure(1.0)
    plots.plot_samples(ax, torch.rand(10, 1, 8, 8))
    plots.render_png(figure, dark=True)
