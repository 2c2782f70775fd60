"""The code of a data set: where its points lie, and how categories and labels share them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, floats, integers, several, whole
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.plots.checks import words
from pyro_mivae.plots.grids import percent
from pyro_mivae.plots.style import (
    FONT,
    INK,
    MUTED,
    PALETTE,
    SMALL,
    group_color,
    group_marker,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE = (0.12, 0.42, 0.72)
_ROUNDING = 1e-6  # of the largest code


@checked(
    codes=floats("n", "d"),
    groups=integers("n"),
    names=words(),
    colors=several(whole(least=0)),
    max_points=whole(least=1),
    method=choice("pca", "tsne"),
)
def plot_latent_space(
    ax: Axes,
    codes: Tensor,
    groups: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    colors: Sequence[int] | None = None,
    max_points: int = 2000,
    method: str = "pca",
) -> Axes:
    """Draws codes as points in the plane, coloured by group, the group's name at its median.

    More than two dimensions are reduced by principal components; the axes then say how much of the
    variance they show. One dimension is drawn along the horizontal, spread out vertically.
    ``method="tsne"`` shows which codes are neighbours instead: of the points that are drawn
    alone, from a fixed seed.

    References:
        van der Maaten & Hinton (2008), Visualizing Data using t-SNE.
        https://www.jmlr.org/papers/v9/vandermaaten08a.html
    """
    if groups is not None and colors is not None and not 0 <= int(groups.max()) < len(colors):
        raise OptionError(f"{len(colors)} colors, but a group {int(groups.max())}; give one each")
    codes, shown = codes.detach().cpu().double(), spread_out(len(codes), max_points)
    if method == "tsne":
        points, axes_names = _embed(codes[shown]), ("t-SNE 1", "t-SNE 2")
    else:
        points, axes_names = _project(codes)
        points = points[shown]
    groups = torch.zeros(len(points)) if groups is None else groups.cpu()[shown]
    present = groups.unique().tolist()
    for group in map(int, present):
        mine = points[groups == group]
        index = group if colors is None else colors[group]
        ax.scatter(
            mine[:, 0].numpy(),
            mine[:, 1].numpy(),
            s=9,
            color=group_color(index),
            marker=group_marker(index),
            alpha=0.7,
            linewidths=0,
            label=_name(names, group),
            rasterized=True,
        )
    if len(present) > 1:
        common = [int(g) for g in present if (groups == g).double().mean() >= 0.01]
        centers = torch.stack([points[groups == g].median(0).values for g in common])
        texts = [_name(names, g) for g in common]
        for text, center in zip(texts, _spread_texts(centers, texts, points), strict=True):
            ax.text(
                float(center[0]),
                float(center[1]),
                text,
                fontsize=SMALL,
                fontweight="bold",
                ha="center",
                va="center",
                color="black",
                bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
            )
    style_axes(ax)
    ax.set_xlabel(axes_names[0])
    ax.set_ylabel(axes_names[1])
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


@checked(
    labels=integers("n"),
    categories=integers("n"),
    num_categories=whole(least=1, most=10_000),
    label_names=words(),
)
def plot_confusion_matrix(
    ax: Axes,
    labels: Tensor,
    categories: Tensor,
    *,
    num_categories: int | None = None,
    label_names: Sequence[str] | None = None,
) -> Axes:
    """Draws how the data of each label spread over the categories, a row per label, in percent.

    Categories are ordered so that as many data as possible lie on the diagonal: the share on it is
    the clustering accuracy (one category per label, Hungarian algorithm).
    """
    k = num_categories or int(categories.max()) + 1
    if int(categories.min()) < 0 or int(categories.max()) >= k:
        raise OptionError(
            f"categories from {int(categories.min())} to {int(categories.max())}; allowed are "
            f"those from 0 to {k - 1}"
        )
    found, counts = _count(labels, categories, k)
    partner = _match(counts)
    row_order = [*partner, *(row for row in range(len(found)) if row not in partner)]
    rest = sorted(set(range(k)) - set(partner.values()), key=lambda c: -float(counts[:, c].sum()))
    column_order = [*partner.values(), *rest]

    shares = (counts / counts.sum(1, keepdim=True))[row_order][:, column_order]  # (labels, K)
    square = 0.5 <= shares.shape[0] / shares.shape[1] <= 2
    _draw_shares(ax, shares, square=square)
    label_texts = [_name(label_names, int(found[row])) for row in row_order]
    ax.set_yticks(range(len(label_texts)), label_texts)
    named = column_order if k <= 24 else []
    ax.set_xticks(range(len(named)), [str(c) for c in named])
    ax.set_ylabel("label")
    ax.set_xlabel("category" if k <= 24 else f"category ({k} of them)")
    return ax


@checked(shares=floats("dims", "factors"), names=words(1), factor_names=words(1))
def plot_factor_matrix(
    ax: Axes, shares: Tensor, names: Sequence[str], factor_names: Sequence[str]
) -> Axes:
    """Draws how much of each factor each dimension of a code tells, in percent of its entropy."""
    if shares.shape != (len(names), len(factor_names)) or not shares.numel():
        raise ShapeError(
            f"{len(names)} dimensions and {len(factor_names)} factors for shares of shape "
            f"{tuple(shares.shape)}; give a name per row and per column, and one or more of each"
        )
    _draw_shares(ax, shares, square=False)
    ax.set_yticks(range(len(names)), list(names))
    ax.set_xticks(range(len(factor_names)), list(factor_names))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    return ax


@checked(occupancy=floats("k"), names=words(), max_bars=whole(least=1))
def plot_occupancy(
    ax: Axes,
    occupancy: Tensor,
    names: Sequence[str] | None = None,
    *,
    max_bars: int = 24,
) -> Axes:
    """Draws the share of the data in each category, the most used first, beside equal shares."""
    equal = 1 / len(occupancy)
    order = occupancy.argsort(descending=True, stable=True)[:max_bars].tolist()
    shares = [float(occupancy[k]) for k in order]
    ax.barh(range(len(order)), shares, height=0.72, color=PALETTE[0])
    for row, share in enumerate(shares):
        ax.annotate(
            percent(share),
            (1.0, row),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
    ax.axvline(equal, color=MUTED, linewidth=1.0, linestyle="--")
    style_axes(ax, frame=False)
    ax.set_xlim(0, 1.18 * max(max(shares), equal))
    ax.set_yticks(range(len(order)), [_name(names, k) for k in order])
    ax.tick_params(axis="y", labelsize=FONT)
    ax.set_xticks([])
    ax.set_ylabel("category")
    ax.set_xlabel(f"share of the data (dashed: equal shares, {percent(equal)})")
    ax.set_ylim(len(order) - 0.4, -0.6)
    return ax


def spread_out(count: int, at_most: int) -> Tensor:
    """Chooses rows evenly spread over all: the first ones may be all of one kind.

    Example:
        >>> spread_out(10, 4), spread_out(3, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1, 2]))
    """
    wanted = min(count, at_most)
    return torch.arange(wanted) * count // max(1, wanted)


def match_categories(labels: Tensor, categories: Tensor, num_categories: int) -> list[int]:
    """Gives every category the label that it stands for, as many data as possible being right."""
    found, counts = _count(labels, categories, num_categories)
    label_of = {category: int(found[row]) for row, category in _match(counts).items()}
    spare = itertools.count(int(found.max()) + 1)
    return [label_of[k] if k in label_of else next(spare) for k in range(num_categories)]


def _draw_shares(ax: Axes, shares: Tensor, *, square: bool) -> None:
    """Draws shares from 0 to 1 as blue cells, in numbers too where there is room."""
    from matplotlib.colors import LinearSegmentedColormap

    # The page, light or dark, shines through small shares.
    blues = LinearSegmentedColormap.from_list("shares", [(*_BLUE, 0.0), (*_BLUE, 1.0)])
    ax.imshow(shares.numpy(), cmap=blues, vmin=0, vmax=1, aspect="equal" if square else "auto")
    style_axes(ax, frame=False)
    if shares.shape[0] <= 20 and shares.shape[1] <= 14:
        for row, line in enumerate(shares.tolist()):
            for column, share in enumerate(line):
                if share >= 0.005:
                    ax.text(
                        column,
                        row,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=SMALL - 1,
                        color="white" if share > 0.6 else INK,
                    )


def _count(labels: Tensor, categories: Tensor, num_categories: int) -> tuple[Tensor, Tensor]:
    """Returns the labels that occur, and how many data of each lie in each category."""
    found, rows = labels.cpu().unique(return_inverse=True)
    counts = torch.zeros(len(found), num_categories)
    where = (rows, categories.cpu().long())
    return found, counts.index_put_(where, torch.ones(len(rows)), accumulate=True)


def _match(counts: Tensor) -> dict[int, int]:
    """Pairs rows with columns, each at most once, for the largest sum of counts."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-counts.numpy())
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def _name(names: Sequence[str] | None, group: int) -> str:
    return names[group] if names is not None and 0 <= group < len(names) else str(group)


def _spread_texts(centers: Tensor, texts: Sequence[str], points: Tensor) -> Tensor:
    """Moves texts up and down until none covers another; sizes are those of our own figures."""
    low, high = points.min(0).values, points.max(0).values
    size = (high - low).clamp(min=1e-12)
    at = (centers - low) / size
    widths = torch.tensor([0.022 * len(text) + 0.02 for text in texts], dtype=at.dtype)
    for _ in range(50):
        apart = at[:, None] - at  # (texts, texts, 2)
        beside = apart[..., 0].abs() < (widths[:, None] + widths) / 2
        overlap = (0.055 - apart[..., 1].abs()).clamp(min=0) * beside
        overlap.fill_diagonal_(0)
        if not overlap.any():
            break
        # Of two at the same height the later one goes up.
        order = torch.arange(len(texts))
        upwards = torch.where(apart[..., 1] == 0, order[:, None] - order, apart[..., 1]).sign()
        at[:, 1] += 0.5 * (overlap * upwards).sum(1)
    return at * size + low


def _project(codes: Tensor) -> tuple[Tensor, tuple[str, str]]:
    n, dims = codes.shape
    if dims == 2:
        return codes, ("dimension 0", "dimension 1")
    if dims == 1 or n < 3:
        # Multiples of the golden ratio spread evenly, and the same way each time.
        spread = torch.arange(n, dtype=codes.dtype) * 0.6180339887 % 1
        return torch.stack([codes[:, 0], spread], 1), ("dimension 0", "(spread out)")
    if float(codes.var(0).sum()) == 0:
        return codes[:, :2], ("component 1 (0 % of the variance)", "component 2 (0 %)")
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, random_state=0)
    points = torch.as_tensor(pca.fit_transform(codes.numpy()))
    first, second = pca.explained_variance_ratio_
    return points, (
        f"component 1 ({percent(float(first))} of the variance)",
        f"component 2 ({percent(float(second))})",
    )


def _embed(codes: Tensor) -> Tensor:
    """Places codes in the plane by t-SNE; fewer than four lie as they are projected.

    Codes that are the same share a place: a start that does not vary would end the process.
    """
    chosen, place_of = distinct_codes(codes)
    n, dims = len(chosen), codes.shape[1]
    if n < 4:
        return _project(codes)[0]
    from sklearn.manifold import TSNE

    # Its start is principal components where there are as many as it needs.
    start = "pca" if dims >= 2 else "random"
    tsne = TSNE(random_state=0, init=start, perplexity=min(30.0, (n - 1) / 3))
    return torch.as_tensor(tsne.fit_transform(chosen.numpy())).double()[place_of]


def distinct_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Picks codes that differ by more than rounding."""
    scaled = codes.double() / codes.double().abs().max().clamp(min=1e-300)
    rounded = (scaled / _ROUNDING).round().numpy()
    _, first, found = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place_of = np.argsort(order)[found.reshape(-1)]
    return scaled[first[order]], torch.from_numpy(place_of)
