"""Grids put every datum into its cell, in the order that they promise."""

import math

import pytest
import torch
from matplotlib.collections import LineCollection, PolyCollection

from pyro_mivae import plots
from pyro_mivae.errors import ShapeError

from .drawn import texts


def cells(ax, rows, columns):
    """The drawn mosaic, cut into its cells: (rows, columns, height, width, RGBA)."""
    mosaic = torch.as_tensor(ax.images[0].get_array().filled())
    height, width = mosaic.shape[0] // rows, mosaic.shape[1] // columns
    return mosaic.reshape(rows, height, columns, width, 4).transpose(1, 2)


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (3, 48, 48), (1, 9, 21), (2, 64, 32)])
def test_every_image_is_in_its_cell(ax, shape):
    images = torch.rand(2, 3, *shape)
    plots.plot_grid(ax, images, ["a", "b"])
    drawn = cells(ax, 2, 3)
    inside = drawn[0, 0, ..., 3] == 1
    colors = drawn[:, :, inside][..., :3].mean((2, 3))
    torch.testing.assert_close(colors, images.flatten(2).mean(-1), atol=1e-4, rtol=0)
    height, width = shape[-2:]
    rows, columns = int(inside.any(1).sum()), int(inside.any(0).sum())
    assert rows * width == columns * height  # no distortion
    assert rows % height == 0  # whole pixels, not blurred
    assert texts(ax.get_yticklabels()) == ["a", "b"]


def test_rgb_stays_rgb_and_values_are_clipped(ax):
    red = torch.zeros(1, 1, 3, 8, 8)
    red[:, :, 0] = 7.0
    plots.plot_grid(ax, red)
    centre = cells(ax, 1, 1)[0, 0, 16, 16].tolist()
    assert centre == [1.0, 0.0, 0.0, 1.0]


def test_small_images_are_enlarged_sharply_and_large_ones_smoothed(ax):
    assert (
        plots.plot_grid(ax, torch.rand(1, 1, 1, 8, 8)).images[0].get_interpolation() == "nearest"
    )
    other = plots.plot_grid(plots.new_figure()[1], torch.rand(1, 1, 1, 64, 64))
    assert other.images[0].get_interpolation() == "auto"


def test_standardised_images_keep_their_range(ax):
    image = torch.tensor([-1.0, 0.0, 1.0]).expand(1, 1, 3, 8, 3).repeat_interleave(3, -1)
    plots.plot_grid(ax, image)
    shades = cells(ax, 1, 1)[0, 0, 16, [5, 17, 28], 0]
    torch.testing.assert_close(shades, torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("shape", "lanes"),
    [((20,), 0), ((1,), 0), ((2, 2, 2), 0), ((60,), 1), ((6, 3), 6), ((8, 60), 8)],
)
def test_other_data_are_drawn_as_bars_or_lines(ax, shape, lanes):
    plots.plot_grid(ax, torch.randn(4, 5, *shape), list("abcd"))
    zeros, drawn = ax.collections
    assert isinstance(drawn, LineCollection if lanes else PolyCollection)
    assert len(drawn.get_paths()) == len(zeros.get_segments()) == 20 * max(1, lanes)
    assert not ax.images


def test_bars_begin_at_zero_and_share_one_scale(ax):
    plots.plot_grid(ax, torch.tensor([[[2.0, 4.0]], [[1.0, -4.0]]]))
    (upper, lower), (base, _) = ((p.vertices for p in c.get_paths()) for c in ax.collections[::-1])
    zero = base[0, 1]
    assert upper[:, 1].min() < upper[1, 1] < upper[0, 1] == pytest.approx(zero)
    rise = [zero - upper[1, 1], zero - upper[5, 1], 1 + zero - lower[1, 1], 1 + zero - lower[5, 1]]
    assert [r / rise[2] for r in rise] == pytest.approx([2, 4, 1, -4], rel=1e-4)
    assert ax.get_xlabel() == "height of a cell: −4 to 4"


def test_each_channel_has_a_lane_and_one_scale_in_all_cells(ax):
    quiet, loud = torch.linspace(0, 1, 9), torch.linspace(0, 100, 9)
    first = torch.stack([quiet, loud])
    plots.plot_grid(ax, torch.stack([first, first / 2])[:, None])
    lines = [s[:, 1] for s in ax.collections[1].get_segments()]
    tall = [line.max() - line.min() for line in lines]
    assert tall == pytest.approx([tall[0], tall[0], tall[0] / 2, tall[0] / 2], rel=1e-4)
    places = [math.floor(2 * line.min()) for line in lines]
    assert places == [math.floor(2 * line.max()) for line in lines] == [0, 1, 2, 3]
    assert ax.get_xlabel() == "height of a channel: 0 to 1, 0 to 100"


def test_reconstructions_stand_below_their_originals(ax):
    x = torch.rand(6, 1, 8, 8)
    plots.plot_reconstructions(ax, x, {"decoded": 1 - x, "c alone": torch.zeros_like(x)})
    assert texts(ax.get_yticklabels()) == ["original", "decoded", "c alone"]
    drawn = cells(ax, 3, 6)
    inside = drawn[0, 0, ..., 3] == 1
    shades = drawn[:, :, inside][..., 0].mean(-1)
    torch.testing.assert_close(shades[0] + shades[1], torch.ones(6))
    assert not shades[2].any()


def test_reconstructions_of_another_shape(ax):
    with pytest.raises(ShapeError, match="rows of the originals"):
        plots.plot_reconstructions(ax, torch.rand(6, 1, 8, 8), torch.rand(5, 1, 8, 8))


def test_parts_stand_above_a_line_and_what_moves_below(ax):
    x = torch.rand(5, 1, 8, 8)
    shades = [torch.full_like(x, shade) for shade in (0.2, 0.4, 0.6)]
    rows = {"both": shades[0], "c alone": shades[1]}
    plots.plot_parts(ax, x, rows, [shades[2], x], ["c moves", "c moves"])
    names = ["original", "both", "c alone", "c moves", "c moves"]
    assert texts(ax.get_yticklabels()) == names
    drawn = cells(ax, 5, 5)[:, 0, 16, 16, 0]
    assert drawn[1:4].tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert drawn[4] == drawn[0]
    (line,) = ax.lines
    assert list(line.get_ydata()) == [3, 3]


def test_parts_of_which_none_moves(ax):
    x = torch.rand(5, 1, 8, 8)
    plots.plot_parts(ax, x, {"all": x})
    assert not ax.lines


def test_parts_that_do_not_fit(ax):
    x = torch.rand(5, 1, 8, 8)
    with pytest.raises(ShapeError, match="'c moves' has shape.*rows of the originals"):
        plots.plot_parts(ax, x, {"all": x}, [x[:4]], ["c moves"])
    with pytest.raises(ShapeError, match="1 names for 2 traversals"):
        plots.plot_parts(ax, x, {"all": x}, [x, x], ["c moves"])


def test_conditional_samples_are_ordered_by_occupancy(ax):
    shades = torch.tensor([0.2, 0.4, 0.6])
    samples = shades[:, None, None, None, None].expand(3, 4, 1, 8, 8)
    plots.plot_conditional_samples(ax, samples, torch.tensor([0.3, 0.0, 0.7]))
    assert texts(ax.get_yticklabels()) == ["C  ·  70 %", "A  ·  30 %", "B  ·  0 %"]
    assert cells(ax, 3, 4)[:, 0, 16, 16, 0].tolist() == pytest.approx([0.6, 0.2, 0.4])


def test_traversals_are_ordered_by_nats_the_undefined_last(ax):
    shades = torch.tensor([0.1, 0.2, 0.3])
    rows = shades[:, None, None, None, None].expand(3, 5, 1, 8, 8)
    plots.plot_traversals(ax, rows, torch.tensor([math.nan, 0.5, 1.25]))
    assert texts(ax.get_yticklabels()) == ["z2  ·  1.25 nats", "z1  ·  0.50 nats", "z0"]
    assert cells(ax, 3, 5)[:, 0, 16, 16, 0].tolist() == pytest.approx([0.3, 0.2, 0.1])


def test_traversals_show_their_values_and_mark_the_own_one(ax):
    rows = torch.rand(2, 5, 1, 8, 8)
    values = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.04]])
    nats, own = torch.tensor([0.5, 1.5]), torch.tensor([-1.2, 3.9])
    plots.plot_traversals(ax, rows, nats, values=values, own=own)
    assert texts(ax.texts) == ["0.0 to 4.0", "−2.0 to 2.0"]  # the order of the rows
    frames = [(line.get_xdata().min(), line.get_ydata().min()) for line in ax.lines]
    assert frames == [(4, 0), (1, 1)]


def test_samples_fill_whole_rows(ax):
    plots.plot_samples(ax, torch.rand(23, 1, 8, 8))
    assert ax.get_xlim() == (0, 10)
    assert ax.get_ylim() == (2, 0)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: plots.plot_grid(ax, torch.rand(0, 2, 8, 8)), "not empty"),
        (lambda ax: plots.plot_grid(ax, torch.rand(2, 2, 8, 8), ["a"]), "1 row labels for 2 rows"),
        (
            lambda ax: plots.plot_traversals(ax, torch.rand(2, 2, 8, 8), torch.rand(3)),
            "give one per row",
        ),
        (lambda ax: plots.plot_latent_space(ax, torch.rand(4)), r"allowed is \(n, d\)"),
        (
            lambda ax: plots.plot_latent_space(ax, torch.rand(4, 2), torch.arange(3)),
            r"groups has shape \(3,\); allowed is \(n,\), n = 4",
        ),
        (
            lambda ax: plots.plot_confusion_matrix(ax, torch.arange(3), torch.arange(4)),
            r"allowed is \(n,\), n = 3",
        ),
        (lambda ax: plots.plot_information_bar(ax, {"z": torch.rand(2, 2)}), "site 'z'"),
    ],
)
def test_shapes_that_do_not_fit(ax, draw, message):
    with pytest.raises(ShapeError, match=message):
        draw(ax)


def test_interpolations_have_a_name_on_each_side(ax):
    plots.plot_interpolations(ax, torch.rand(2, 5, 1, 8, 8), ["a", "b"], ["b", "c"])
    assert texts(ax.get_yticklabels()) == ["a", "b"]
    assert texts(ax.texts) == ["b", "c"]
    assert [text.xy[1] for text in ax.texts] == [0.5, 1.5]
    with pytest.raises(ShapeError, match="2 starts and 1 ends for 2 rows"):
        plots.plot_interpolations(ax, torch.rand(2, 5, 1, 8, 8), ["a", "b"], ["b"])


def test_radii_stand_above_their_columns(ax):
    plots.plot_radii(ax, torch.rand(2, 3, 1, 8, 8), [0.0, 0.5, 1.0], ["a", "b"])
    assert texts(ax.get_xticklabels()) == ["0", "0.5", "1"]
    assert list(ax.get_xticks()) == [0.5, 1.5, 2.5]
    with pytest.raises(ShapeError, match="a name per row and a multiple per column"):
        plots.plot_radii(ax, torch.rand(2, 3, 1, 8, 8), [0.0, 0.5], ["a", "b"])
