"""Each plot draws what it is given, in the order that it promises."""

import io
import math
import sys

import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from PIL import Image
from sklearn.decomposition import PCA

from pyro_mivae import plots
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.plots.style import DARK, INK, PALETTE, percent
from pyro_mivae.training.history import History


@pytest.fixture
def ax():
    return plots.new_figure()[1]


def history(**columns):
    return History(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


def texts(artists):
    return [artist.get_text() for artist in artists]


def legend(ax):
    return texts(ax.get_legend().get_texts())


def cells(ax, rows, columns):
    """The drawn mosaic, cut into its cells: (rows, columns, height, width, RGBA)."""
    mosaic = torch.as_tensor(ax.images[0].get_array().filled())
    height, width = mosaic.shape[0] // rows, mosaic.shape[1] // columns
    return mosaic.reshape(rows, height, columns, width, 4).transpose(1, 2)


# --- curves


def test_curves_draw_every_value_and_dash_the_held_out(ax):
    plots.plot_curves(ax, {"loss": [3.0, math.nan, 1.0], "val_loss": [4.0, 3.0, 2.0]})
    train, held_out = ax.lines
    assert list(train.get_xdata()) == [1, 2, 3]
    assert list(held_out.get_ydata()) == [4.0, 3.0, 2.0]
    assert (train.get_linestyle(), held_out.get_linestyle()) == ("-", "--")
    assert train.get_color() == held_out.get_color()
    assert "nats" in ax.get_ylabel()


def test_curves_of_another_length_than_the_epochs(ax):
    with pytest.raises(ShapeError, match="'loss' has 2 values for 3 epochs"):
        plots.plot_curves(ax, {"loss": [1.0, 2.0]}, epochs=[1, 2, 3])


def test_one_epoch_has_one_tick(ax):
    plots.plot_curves(ax, {"loss": [3.0]})
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_a_wild_start_does_not_flatten_the_rest(ax):
    plots.plot_curves(ax, {"loss": [1e6] * 9 + [30 - i / 10 for i in range(40)]})
    assert ax.get_ylim()[1] < 40
    steady = plots.new_figure()[1]
    plots.plot_curves(steady, {"loss": [60 - i for i in range(40)]})
    assert steady.get_ylim()[1] > 59


@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_no_epoch_or_one(ax, epochs):
    plots.plot_loss_curves(ax, history(epoch=[1][:epochs], loss=[2.0][:epochs]))
    assert len(ax.lines) == epochs


def test_loss_curves_turn_the_elbo_and_join_it_with_an_equal_loss(ax):
    columns = {"loss": [9.0, 8.0], "elbo": [-7.0, -6.0], "distortion": [5.0, 4.0]}
    plots.plot_loss_curves(ax, history(epoch=[1, 2], **columns, val_elbo=[-8.0, -7.0]))
    assert legend(ax) == ["loss", "−ELBO", "distortion", "held out"]
    assert list(ax.lines[1].get_ydata()) == [7.0, 6.0]
    other = plots.new_figure()[1]
    plots.plot_loss_curves(other, history(loss=[9.0, 8.0], elbo=[-9.0, -8.0]))
    assert legend(other) == ["loss (−ELBO)"]


def test_information_on_several_sites_names_them(ax):
    plots.plot_information_curves(ax, history(epoch=[1, 2], mi_z_c_mean=[0.5, 2.0]))
    assert legend(ax) == ["I(x; z_c), read from the mean"]


def test_information_curves_draw_sites_and_terms_and_the_ceiling_of_c(ax):
    columns = {"rate": [4.0, 4.0], "kl_z": [3.0, 3.0], "kl_c": [1.0, 1.0], "mi_c_mean": [0.5, 2.0]}
    columns |= {"kl_w": [math.nan, math.nan], "val_kl_c": [1.0, 1.1]}
    plots.plot_information_curves(ax, history(epoch=[1, 2], **columns), num_categories=10)
    names = ["KL of z", "KL of c", "I(x; c), read from the mean", "held out"]
    assert legend(ax) == names
    assert texts(ax.texts) == ["log 10 = 2.30"]
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(math.log(10))


def test_runs_have_a_colour_each_and_a_line_per_seed(ax):
    seeds = [([1, 2, 3], [4.0, 3.0, 2.0]), ([1, 2, 3], [5.0, 3.0, 1.0])]
    plots.plot_runs(ax, {"a": seeds, "b": [([2, 4], [2.0, 1.0])]})
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 2, 3], [1, 2, 3], [2, 4]]
    colors = [line.get_color() for line in ax.lines]
    assert colors == [PALETTE[0], PALETTE[0], PALETTE[1]]
    assert legend(ax) == ["a", "b"]
    with pytest.raises(ShapeError, match="'c' has 1 values for 2 epochs"):
        plots.plot_runs(ax, {"c": [([1, 2], [1.0])]})


# --- grids


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


@pytest.mark.parametrize("shape", [(20,), (1,), (6, 3), (2, 2, 2)])
def test_other_data_are_drawn_as_lines(ax, shape):
    plots.plot_grid(ax, torch.randn(4, 5, *shape), list("abcd"))
    (lines,) = ax.collections
    assert isinstance(lines, LineCollection)
    assert len(lines.get_segments()) == 20
    assert not ax.images


def test_lines_share_one_scale_and_stay_in_their_cells(ax):
    data = torch.stack([torch.linspace(0, 1, 7), torch.linspace(0, 10, 7)])[:, None]
    plots.plot_grid(ax, data)
    low, high = (s[:, 1] for s in ax.collections[0].get_segments())
    assert 0 < low.min() < low.max() < 1 < high.min() < high.max() < 2
    assert high.max() - high.min() > 5 * (low.max() - low.min())


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
    assert texts(ax.get_yticklabels()) == ["2  ·  70 %", "0  ·  30 %", "1  ·  0 %"]
    assert cells(ax, 3, 4)[:, 0, 16, 16, 0].tolist() == pytest.approx([0.6, 0.2, 0.4])


def test_traversals_are_ordered_by_nats_the_undefined_last(ax):
    shades = torch.tensor([0.1, 0.2, 0.3])
    rows = shades[:, None, None, None, None].expand(3, 5, 1, 8, 8)
    plots.plot_traversals(ax, rows, torch.tensor([math.nan, 0.5, 1.25]))
    assert texts(ax.get_yticklabels()) == ["z2  ·  1.25 nats", "z1  ·  0.50 nats", "z0"]
    assert cells(ax, 3, 5)[:, 0, 16, 16, 0].tolist() == pytest.approx([0.3, 0.2, 0.1])


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
        (lambda ax: plots.plot_occupancy(ax, torch.rand(2, 2)), r"allowed is \(k,\)"),
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


# --- intervals


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


# --- codes


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(60, 3),
        torch.ones(60, 3),
        torch.cat([torch.zeros(59, 3), torch.ones(1, 3)]),
        torch.randn(6, 3).repeat(10, 1),
        1e-40 * torch.randn(60, 3),
        1e38 * torch.randn(60, 3).clamp(-1, 1),
        1e-200 * torch.randn(60, 3).double(),
    ],
)
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_codes_that_hardly_vary_or_are_far(ax, codes, method):
    """t-SNE's start would be NaN, which ends the process."""
    plots.plot_latent_space(ax, codes, method=method)
    points = torch.as_tensor(ax.collections[0].get_offsets().filled())
    assert points.isfinite().all()
    same = [(codes == code).all(1) for code in codes[:6]]
    assert all(len(points[rows].unique(dim=0)) == 1 for rows in same)


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


def test_tsne_keeps_neighbours_of_the_subset_together(ax):
    groups = torch.arange(60) % 3
    codes = torch.randn(60, 8) + 20 * torch.eye(8)[groups]
    plots.plot_latent_space(ax, codes, groups, max_points=45, method="tsne")
    clouds = [torch.as_tensor(c.get_offsets().data) for c in ax.collections]
    assert [len(c) for c in clouds] == [15] * 3
    centers = torch.stack([c.mean(0) for c in clouds])
    for k, cloud in enumerate(clouds):
        assert torch.equal(torch.cdist(cloud, centers).argmin(1), torch.full((15,), k))
    again = plots.new_figure()[1]
    plots.plot_latent_space(again, codes, groups, max_points=45, method="tsne")
    assert (again.collections[0].get_offsets() == ax.collections[0].get_offsets()).all()


@pytest.mark.parametrize(("n", "d"), [(1, 7), (3, 7), (4, 1), (5, 2)])
def test_tsne_of_hardly_anything(ax, n, d):
    plots.plot_latent_space(ax, torch.randn(n, d), method="tsne")
    assert len(ax.collections[0].get_offsets()) == n


def test_a_plane_of_another_kind(ax):
    with pytest.raises(OptionError, match="allowed are pca, tsne"):
        plots.plot_latent_space(ax, torch.randn(9, 3), method="umap")


def test_latent_space_has_a_cloud_and_a_name_per_group(ax):
    codes, groups = torch.randn(60, 2), torch.arange(60) % 3
    plots.plot_latent_space(ax, codes, groups, names=["cat", "dog", "owl"])
    assert [len(c.get_offsets()) for c in ax.collections] == [20, 20, 20]
    assert texts(ax.texts) == ["cat", "dog", "owl"]
    first = torch.as_tensor(ax.collections[0].get_offsets().data)
    torch.testing.assert_close(first, codes[groups == 0].double())


def test_latent_space_is_the_pca_of_all_codes(ax):
    codes = torch.randn(50, 5) * torch.tensor([5.0, 3.0, 1.0, 1.0, 1.0])
    plots.plot_latent_space(ax, codes, max_points=20)
    (cloud,) = ax.collections
    expected = PCA(2, random_state=0).fit_transform(codes.double().numpy())[
        torch.arange(20) * 50 // 20
    ]
    torch.testing.assert_close(
        torch.as_tensor(cloud.get_offsets().data), torch.as_tensor(expected)
    )
    assert "%" in ax.get_xlabel()


@pytest.mark.parametrize(("n", "d"), [(30, 1), (1, 1), (1, 7), (2, 7), (3, 3)])
def test_latent_space_of_few_data_or_one_dimension(ax, n, d):
    plots.plot_latent_space(ax, torch.randn(n, d), torch.zeros(n, dtype=torch.long))
    assert sum(len(c.get_offsets()) for c in ax.collections) == n


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_data_sorted_by_group_show_every_group(ax, method):
    groups = torch.arange(90) // 30
    plots.plot_latent_space(ax, torch.randn(90, 3), groups, max_points=30, method=method)
    assert [len(c.get_offsets()) for c in ax.collections] == [10, 10, 10]


def test_groups_past_the_palette_change_their_marker(ax):
    plots.plot_latent_space(ax, torch.randn(12, 2), torch.arange(12))
    clouds = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert len(clouds[0].get_paths()[0].vertices) != len(clouds[10].get_paths()[0].vertices)


def test_confusion_matches_categories_to_labels(ax):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    categories = torch.tensor([2, 2, 1, 0, 0, 1, 1, 1])
    plots.plot_confusion_matrix(ax, labels, categories, num_categories=4)
    assert texts(ax.get_xticklabels()) == ["2", "0", "1", "3"]
    assert texts(ax.get_yticklabels()) == ["0", "1", "2"]
    shares = torch.as_tensor(ax.images[0].get_array().filled())
    expected = [[2 / 3, 0, 1 / 3, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(shares, torch.tensor(expected))
    assert texts(ax.texts) == ["67", "33", "100", "100"]


def test_confusion_with_more_labels_than_categories_and_names(ax):
    names = ["ant", "bee", "cow", "dog"]
    categories = torch.tensor([0, 0, 1, 1])
    plots.plot_confusion_matrix(ax, torch.arange(4), categories, label_names=names)
    assert sorted(texts(ax.get_yticklabels())) == names
    assert ax.images[0].get_array().shape == (4, 2)


def test_confusion_with_many_categories_is_oblong(ax):
    plots.plot_confusion_matrix(ax, torch.arange(50) % 5, torch.arange(50))
    assert ax.images[0].get_array().shape == (5, 50)
    assert ax.get_aspect() == "auto"
    assert not ax.get_xticklabels()


def test_factor_matrix_writes_shares_in_percent(ax):
    plots.plot_factor_matrix(ax, torch.tensor([[0.5, 0.0], [0.0, 1.0]]), ["c", "z0"], ["a", "b"])
    assert texts(ax.texts) == ["50", "100"]
    assert texts(ax.get_yticklabels()) == ["c", "z0"]
    assert texts(ax.get_xticklabels()) == ["a", "b"]
    with pytest.raises(ShapeError, match="1 dimensions and 2 factors"):
        plots.plot_factor_matrix(ax, torch.eye(2), ["c"], ["a", "b"])


def test_names_do_not_cover_each_other(ax):
    names = [f"a long name {g}" for g in range(10)]
    plots.plot_latent_space(ax, torch.randn(200, 2), torch.arange(200) % 10, names=names)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert len(overlaps) == 45
    assert not any(overlaps)


def test_occupancy_shows_the_most_used(ax):
    plots.plot_occupancy(ax, torch.full((40,), 1 / 40), max_bars=7)
    assert len(ax.patches) == 7
    assert "2.5 %" in ax.get_xlabel()


def test_occupancy_bars_are_sorted(ax):
    plots.plot_occupancy(ax, torch.tensor([0.2, 0.7, 0.1, 0.0]))
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.7, 0.2, 0.1, 0.0])
    assert texts(ax.get_yticklabels()) == ["1", "0", "2", "3"]
    assert texts(ax.texts) == ["70 %", "20 %", "10 %", "0 %"]


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.0994, "9.9 %"), (0.0996, "10 %"), (1, "100 %")],
)
def test_percent(share, written):
    assert percent(share) == written


def test_information_bar_has_a_piece_per_dimension_the_largest_first(ax):
    nats = {"z": torch.tensor([0.5, 2.0]), "c": torch.tensor(1.5), "w": torch.tensor(math.nan)}
    plots.plot_information_bar(ax, nats)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([2.0, 0.5, 1.5])
    assert [bar.get_x() for bar in ax.patches] == pytest.approx([0.0, 2.0, 2.5])
    assert texts(ax.texts) == ["z  2.50 nats", "c  1.50 nats", "w  not defined"]


# --- style


def test_a_figure_turns_dark_and_back(ax):
    plots.plot_occupancy(ax, torch.tensor([0.6, 0.4]))
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
