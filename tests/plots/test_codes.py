"""Codes, categories and factors are drawn where they belong."""

import pytest
import torch
from matplotlib.collections import PathCollection
from sklearn.decomposition import PCA

from pyro_mivae import plots
from pyro_mivae.errors import OptionError, ShapeError

from .drawn import texts


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
    assert not any(text.get_bbox_patch() for text in ax.texts)  # it would hide a small cloud
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
    assert texts(ax.get_xticklabels()) == ["C", "A", "B", "D"]
    assert texts(ax.get_yticklabels()) == ["0", "1", "2"]
    shares = torch.as_tensor(ax.images[0].get_array().filled())
    expected = [[2 / 3, 0, 1 / 3, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(shares, torch.tensor(expected))
    assert texts(ax.texts) == ["67", "33", "100", "100"]


def test_confusion_puts_the_largest_category_without_a_label_first(ax):
    categories = torch.tensor([0, 0, 0, 1, 2, 2])
    plots.plot_confusion_matrix(ax, torch.zeros(6, dtype=torch.long), categories)
    assert texts(ax.get_xticklabels()) == ["A", "C", "B"]


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
