"""The codes of a data set, and their categories and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, floats, integers, several, whole
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.plots.style import (
    INK,
    NAMES,
    SMALL,
    WORDS,
    group_color,
    group_marker,
    name_of,
    percent,
    style_axes,
    write,
    write_free,
)
from pyro_mivae.tables import letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE = (0.12, 0.42, 0.72)
_NAMED_CATEGORIES = 24
_STACK = 120  # points that a name may be moved up or down
_ROUNDING = 1e-6  # of the largest code


@checked(
    codes=floats("n", "d"),
    groups=integers("n"),
    names=WORDS,
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
    """Draws codes as points in the plane, coloured by group, with its name at the group's median.

    More than two dimensions are reduced by principal components; the axes then say how much of the
    variance they show. A single dimension is horizontal, with random heights. ``method="tsne"``
    shows neighbours instead, only among the drawn points, with a fixed seed.

    References:
        van der Maaten & Hinton (2008), Visualizing Data using t-SNE.
        https://www.jmlr.org/papers/v9/vandermaaten08a.html

    Example:
        >>> groups, ax = torch.arange(10) % 2, mi.plots.new_figure()[1]
        >>> ax = plot_latent_space(ax, torch.randn(10, 2), groups, names=["a", "b"])
        >>> [text.get_text() for text in ax.texts]
        ['a', 'b']
    """
    if groups is not None and colors is not None and not 0 <= int(groups.max()) < len(colors):
        most = int(groups.max())
        raise OptionError(f"{len(colors)} colors for groups up to {most}; give one per group")
    codes, shown = codes.detach().cpu().double(), spread_out(len(codes), max_points)
    if method == "tsne":
        points, axes_names = _embed(codes[shown]), ("t-SNE 1", "t-SNE 2")
    else:
        points, axes_names = _project(codes)
        points = points[shown]
    groups = torch.zeros(len(points)) if groups is None else groups.cpu()[shown]
    present = [int(group) for group in groups.unique()]
    for group in present:
        index = group if colors is None else colors[group]
        across, up = points[groups == group].T.numpy()
        ax.scatter(
            across,
            up,
            s=9,
            color=group_color(index),
            marker=group_marker(index),
            alpha=0.7,
            linewidths=0,
            label=name_of(group, names),
            rasterized=True,
        )
    style_axes(ax)
    ax.set(xlabel=axes_names[0], ylabel=axes_names[1], xticks=[], yticks=[])
    common = [g for g in present if (groups == g).double().mean() >= 0.01]
    if len(present) > 1:
        _write_names(ax, {name_of(g, names): points[groups == g].median(0).values for g in common})
    return ax


@checked(
    labels=integers("n"),
    categories=integers("n"),
    num_categories=whole(least=1, most=10_000),
    label_names=WORDS,
)
def plot_confusion_matrix(
    ax: Axes,
    labels: Tensor,
    categories: Tensor,
    *,
    num_categories: int | None = None,
    label_names: Sequence[str] | None = None,
) -> Axes:
    """Draws the percentage of each label's data in each category, a row per label.

    The order of the categories puts as many data as possible on the diagonal: the share on it is
    the clustering accuracy (one category per label, Hungarian algorithm).

    Example:
        >>> labels, categories = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0])
        >>> ax = plot_confusion_matrix(mi.plots.new_figure()[1], labels, categories)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['B', 'A']
    """
    from scipy.optimize import linear_sum_assignment

    k = num_categories or int(categories.max()) + 1
    if int(categories.min()) < 0 or int(categories.max()) >= k:
        raise OptionError(
            f"categories from {int(categories.min())} to {int(categories.max())}; allowed are "
            f"those from 0 to {k - 1}"
        )
    found, place = labels.cpu().unique(return_inverse=True)
    cells = place * k + categories.cpu().long()
    counts = cells.bincount(minlength=len(found) * k).reshape(-1, k).float()  # (labels, K)
    rows, columns = (side.tolist() for side in linear_sum_assignment(counts, maximize=True))
    rows += [row for row in range(len(found)) if row not in rows]
    rest = set(range(k)) - set(columns)
    columns += sorted(rest, key=lambda c: -float(counts[:, c].sum()))
    shares = (counts / counts.sum(1, keepdim=True))[rows][:, columns]
    _draw_shares(ax, shares, square=0.5 <= len(found) / k <= 2)
    ax.set_yticks(range(len(rows)), [name_of(int(found[row]), label_names) for row in rows])
    ax.set_ylabel("label")
    ax.set_xticks([])
    ax.set_xlabel(f"category ({k} of them)")
    if k <= _NAMED_CATEGORIES:
        ax.set_xticks(range(k), [letter(c) for c in columns])
        ax.set_xlabel("category")
    return ax


@checked(shares=floats("dims", "factors"), names=NAMES, factor_names=NAMES)
def plot_factor_matrix(
    ax: Axes, shares: Tensor, names: Sequence[str], factor_names: Sequence[str]
) -> Axes:
    """Draws shares in percent, such as each dimension's information of each factor's entropy.

    Example:
        >>> names, factors = ["z0", "z1"], ["shape", "scale"]
        >>> ax = plot_factor_matrix(mi.plots.new_figure()[1], torch.eye(2), names, factors)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['shape', 'scale']
    """
    if shares.shape != (len(names), len(factor_names)):
        raise ShapeError(
            f"{len(names)} dimensions and {len(factor_names)} factors for shares of shape "
            f"{tuple(shares.shape)}; give a name per row and per column"
        )
    _draw_shares(ax, shares, square=False)
    ax.set_yticks(range(len(names)), list(names))
    ax.set_xticks(range(len(factor_names)), list(factor_names))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    return ax


def spread_out(count: int, at_most: int) -> Tensor:
    """Chooses evenly spaced rows, because the first ones may be all of one kind.

    Example:
        >>> spread_out(10, 4), spread_out(3, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1, 2]))
    """
    wanted = min(count, at_most)
    return torch.arange(wanted) * count // max(1, wanted)


def distinct_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes that differ by more than rounding, and each code's index among them."""
    scaled = codes.double() / codes.double().abs().max().clamp(min=1e-300)
    rounded = (scaled / _ROUNDING).round().numpy()
    _, first, found = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place_of = np.argsort(order)[found.reshape(-1)]
    return scaled[first[order]], torch.from_numpy(place_of)


def _draw_shares(ax: Axes, shares: Tensor, *, square: bool) -> None:
    """Draws shares from 0 to 1 as blue cells, with numbers if there is room."""
    from matplotlib.colors import LinearSegmentedColormap

    # The page, light or dark, shines through small shares.
    blues = LinearSegmentedColormap.from_list("shares", [(*_BLUE, 0.0), (*_BLUE, 1.0)])
    ax.imshow(shares.numpy(), cmap=blues, vmin=0, vmax=1, aspect="equal" if square else "auto")
    style_axes(ax, frame=False)
    if shares.shape[0] > 20 or shares.shape[1] > 14:
        return
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL - 1}
    for row, column in (shares >= 0.005).nonzero().tolist():
        share = float(shares[row, column])
        color = "white" if share > 0.6 else INK
        ax.text(column, row, f"{100 * share:.0f}", color=color, **look)


def _write_names(ax: Axes, centers: Mapping[str, Tensor]) -> None:
    """Writes names at points; a name that would cover another moves up or down."""
    from matplotlib.patheffects import withStroke

    edge = withStroke(linewidth=2.5, foreground="white")  # a box would hide a small island
    ax.figure.canvas.figure.draw_without_rendering()  # the names' places need the layout
    taken: list[Any] = []
    heights = sorted(range(-_STACK, _STACK + 1, 4), key=abs)
    for name, (x, y) in ((name, center.tolist()) for name, center in centers.items()):
        places = [((x, y), (0, height)) for height in heights]
        look: dict[str, Any] = {"fontweight": "bold", "color": "black", "path_effects": [edge]}
        if not write_free(ax, name, places, taken, inside=False, **look):
            write(ax, name, (x, y), ha="center", va="center", **look)


def _project(codes: Tensor) -> tuple[Tensor, tuple[str, str]]:
    n, dims = codes.shape
    if dims == 2:
        return codes, ("dimension 0", "dimension 1")
    if dims == 1 or n < 3:
        # Multiples of the golden ratio spread evenly, and the same way each time.
        spread = torch.arange(n, dtype=codes.dtype) * 0.6180339887 % 1
        return torch.stack([codes[:, 0], spread], 1), ("dimension 0", "(spread out)")
    if float(codes.var(0).sum()) == 0:
        points, shares = codes[:, :2], [0.0, 0.0]
    else:
        from sklearn.decomposition import PCA

        pca = PCA(n_components=2, random_state=0)
        points = torch.as_tensor(pca.fit_transform(codes.numpy()))
        shares = pca.explained_variance_ratio_.tolist()
    first, second = map(percent, shares)
    return points, (f"component 1 ({first} of the variance)", f"component 2 ({second})")


def _embed(codes: Tensor) -> Tensor:
    """Embeds codes in the plane by t-SNE; fewer than four are projected.

    Equal codes share a point: a start without variation would crash the process.
    """
    chosen, place_of = distinct_codes(codes)
    n, dims = len(chosen), codes.shape[1]
    if n < 4:
        return _project(codes)[0]
    from sklearn.manifold import TSNE

    # Its start is principal components where there are as many as it needs.
    start = "pca" if dims >= 2 else "random"
    near = min(30.0, (n - 1) / 3)
    tsne = TSNE(random_state=0, init=start, perplexity=near, max_iter=500)
    return torch.as_tensor(tsne.fit_transform(chosen.numpy())).double()[place_of]
