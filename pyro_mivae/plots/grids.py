"""Grids of data: reconstructions, samples, traversals, as pictures, lines or bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_mivae.arguments import checked, either, floats, named, number, several, whole
from pyro_mivae.errors import ShapeError
from pyro_mivae.plots.style import (
    CELLS,
    FONT,
    MUTED,
    PALETTE,
    REAL,
    SMALL,
    WIDTH,
    WORDS,
    group_color,
    new_figure,
    percent,
    style_axes,
    write,
)
from pyro_mivae.tables import letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 32  # smaller images are enlarged by whole numbers to at least this many pixels
_GAP = 0.07  # between cells, in cells
_BEYOND = 0.5  # outside [0, 1]: further than a decoder of pixels goes
_LONGER = 3  # times the other side: two axes that differ by more are channels and length
_BARS = 40  # numbers of a row up to which each has a bar
_LANE, _LANES = 0.4, 2.4  # height of a channel, and of all at most, in widths of a cell
_SCALES = 4  # channels whose scales are told


def is_image(data_shape: Sequence[int]) -> bool:
    """Returns True for data drawn as pictures: ``(C, H, W)`` or ``(H, W)`` of at least 4x4.

    Two axes of which one is more than three times as long are a series, ``(channels, length)``.
    """
    if len(data_shape) not in (2, 3) or min(data_shape[-2:]) < 4:
        return False
    return len(data_shape) == 3 or max(data_shape) <= _LONGER * min(data_shape)


@checked(
    rows=whole(least=1, most=10_000),
    columns=whole(least=1, most=10_000),
    data_shape=several(whole(least=1)),
    label_width=number(least=0, below=WIDTH),
)
def grid_figure(
    rows: int, columns: int, data_shape: Sequence[int], *, label_width: float = 1.0
) -> tuple[Figure, Axes]:
    """Makes a figure whose height fits a grid of data.

    Example:
        >>> figure, ax = grid_figure(2, 10, (1, 8, 8))
        >>> ax.figure is figure
        True
    """
    if is_image(data_shape):
        tall = data_shape[-2] / data_shape[-1]
    else:
        tall = min(_LANE * max(2, _num_lanes(data_shape)), _LANES)
    return new_figure((WIDTH - label_width) / columns * rows * tall + 0.3)


@checked(cells=CELLS, row_labels=WORDS)
def plot_grid(ax: Axes, cells: Tensor, row_labels: Sequence[str] = ()) -> Axes:
    """Draws a grid of data: images as pictures, series as lines, rows of a table as bars.

    Images with one channel (or none) are grey, with three RGB, with any other number the grey mean
    of the channels. Values are clipped to [0, 1]; if they go beyond by more than 0.5, as
    standardised images do, the least is black and the largest white. Small images are enlarged
    without smoothing.

    Each channel of a series ``(channels, length)`` is a line; up to 40 numbers ``(d,)`` are bars.
    A channel has the same scale in all cells, with a thin line at 0, or at the nearest value. The
    ends of up to four scales stand below.

    Example:
        >>> ax = plot_grid(mi.plots.new_figure()[1], torch.rand(2, 5, 1, 8, 8), ["a", "b"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['a', 'b']
    """
    cells = cells.detach().cpu().float()
    if cells.dim() < 3 or cells.numel() == 0:
        raise ShapeError(
            f"cells has shape {tuple(cells.shape)}; expected (rows, columns, *data_shape), "
            "not empty"
        )
    if len(row_labels) not in (0, len(cells)):
        raise ShapeError(f"{len(row_labels)} row labels for {len(cells)} rows; give one per row")
    if is_image(cells.shape[2:]):
        _draw_images(ax, cells)
    else:
        _draw_values(ax, cells.flatten(2).unflatten(2, (_num_lanes(cells.shape[2:]), -1)))
    style_axes(ax, frame=False)
    ax.set_xticks([])
    ax.set_yticks([row + 0.5 for row in range(len(row_labels))], list(row_labels))
    ax.tick_params(axis="y", labelsize=FONT)
    return ax


@checked(originals=CELLS, reconstructions=either(named(CELLS), CELLS))
def plot_reconstructions(
    ax: Axes, originals: Tensor, reconstructions: Tensor | Mapping[str, Tensor]
) -> Axes:
    """Draws originals in the top row, and a model's reconstructions below.

    Example:
        >>> x = torch.rand(5, 1, 8, 8)
        >>> ax = plot_reconstructions(grid_figure(2, 5, (1, 8, 8))[1], x, x.round())
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['original', 'reconstruction']
    """
    if isinstance(reconstructions, Tensor):
        reconstructions = {"reconstruction": reconstructions}
    return plot_parts(ax, originals, reconstructions)


@checked(
    originals=CELLS,
    reconstructions=named(CELLS),
    traversals=several(CELLS, least=0),
    names=WORDS,
)
def plot_parts(
    ax: Axes,
    originals: Tensor,
    reconstructions: Mapping[str, Tensor],
    traversals: Sequence[Tensor] = (),
    names: Sequence[str] = (),
) -> Axes:
    """Draws originals, reconstructions from parts of a code and, under a line, traversals.

    Example:
        >>> x = torch.rand(5, 1, 8, 8)
        >>> ax = plot_parts(grid_figure(3, 5, (1, 8, 8))[1], x, {"from c": x, "from z": x})
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['original', 'from c', 'from z']
    """
    if len(traversals) != len(names):
        raise ShapeError(f"{len(names)} names for {len(traversals)} traversals; give one per row")
    rows = [("original", originals), *reconstructions.items(), *zip(names, traversals)]
    for name, values in rows:
        if values.shape != originals.shape:
            raise ShapeError(
                f"{name!r} has shape {tuple(values.shape)}, the originals "
                f"{tuple(originals.shape)}; give rows of the originals' shape"
            )
    plot_grid(ax, torch.stack([row.cpu() for _, row in rows]), [name for name, _ in rows])
    if traversals:
        above = 1 + len(reconstructions)
        ax.plot([0, len(originals)], [above, above], color=MUTED, linewidth=1.2)
    return ax


@checked(samples=CELLS, columns=whole(least=1))
def plot_samples(ax: Axes, samples: Tensor, *, columns: int = 10) -> Axes:
    """Draws samples row by row.

    Example:
        >>> ax = plot_samples(grid_figure(2, 10, (1, 8, 8))[1], torch.rand(20, 1, 8, 8))
        >>> len(ax.images)
        1
    """
    columns = max(1, min(columns, len(samples)))
    rows = len(samples) // columns
    return plot_grid(ax, samples[: rows * columns].unflatten(0, (rows, columns)))


@checked(samples=CELLS, occupancy=floats("k", finite=False), names=WORDS)
def plot_conditional_samples(
    ax: Axes, samples: Tensor, occupancy: Tensor, names: Sequence[str] | None = None
) -> Axes:
    """Draws a row of samples per category with its share, the most used category first.

    Example:
        >>> samples, shares = torch.rand(2, 5, 1, 8, 8), torch.tensor([0.4, 0.6])
        >>> ax = plot_conditional_samples(grid_figure(2, 5, (1, 8, 8))[1], samples, shares)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['B  ·  60 %', 'A  ·  40 %']
    """
    names = [letter(k) for k in range(len(samples))] if names is None else names
    beside = [f"  ·  {percent(share)}" for share in occupancy.tolist()]
    return _plot_sorted(ax, samples, occupancy, names, beside)


@checked(
    traversals=CELLS,
    nats=floats("rows", finite=False),
    names=WORDS,
    values=floats("rows", "columns"),
    own=floats("rows"),
)
def plot_traversals(
    ax: Axes,
    traversals: Tensor,
    nats: Tensor,
    names: Sequence[str] | None = None,
    *,
    values: Tensor | None = None,
    own: Tensor | None = None,
) -> Axes:
    """Draws a row per latent dimension with its nats, the most informative first.

    With ``values``, the first and the last value of the dimension stand at the right; with ``own``
    too, a frame marks the picture whose value is nearest to the datum's own.

    Example:
        >>> rows, nats = torch.rand(2, 5, 1, 8, 8), torch.tensor([0.5, 2.0])
        >>> ax = plot_traversals(grid_figure(2, 5, (1, 8, 8))[1], rows, nats)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['z1  ·  2.00 nats', 'z0  ·  0.50 nats']
    """
    names = [f"z{row}" for row in range(len(traversals))] if names is None else names
    beside = [f"  ·  {v:.2f} nats" if math.isfinite(v) else "" for v in nats.tolist()]
    _plot_sorted(ax, traversals, nats, names, beside)
    if values is None:
        return ax
    for row, place in enumerate(_order(nats)):
        ends = " to ".join(f"{float(values[place][end]):.1f}" for end in (0, -1))
        look = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": SMALL}
        write(ax, ends.replace("-", "−"), (1.0, row + 0.5), (5, 0), color=MUTED, **look)
        if own is not None:
            column = int((values[place] - own[place]).abs().argmin())
            ax.plot(
                [column, column + 1, column + 1, column, column],
                [row, row, row + 1, row + 1, row],
                color=PALETTE[1],
                linewidth=1.4,
            )
    return ax


@checked(pictures=CELLS, starts=WORDS, ends=WORDS)
def plot_interpolations(
    ax: Axes, pictures: Tensor, starts: Sequence[str], ends: Sequence[str]
) -> Axes:
    """Draws a row per pair of codes, from one to the other, with names at both ends.

    Example:
        >>> paths = torch.rand(1, 5, 1, 8, 8)
        >>> ax = plot_interpolations(grid_figure(1, 5, (1, 8, 8))[1], paths, ["c = 0"], ["c = 1"])
        >>> [text.get_text() for text in ax.texts]
        ['c = 1']
    """
    if not len(pictures) == len(starts) == len(ends):
        raise ShapeError(
            f"{len(starts)} starts and {len(ends)} ends for {len(pictures)} rows; give one of "
            "each per row"
        )
    plot_grid(ax, pictures, starts)
    for row, text in enumerate(ends):
        look = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": FONT}
        write(ax, text, (1.0, row + 0.5), (5, 0), **look)
    return ax


@checked(pictures=CELLS, multiples=several(REAL), names=WORDS)
def plot_radii(
    ax: Axes, pictures: Tensor, multiples: Sequence[float], names: Sequence[str]
) -> Axes:
    """Draws a row per direction away from the origin, with distances above the columns.

    Example:
        >>> paths = torch.rand(1, 3, 1, 8, 8)
        >>> ax = plot_radii(grid_figure(1, 3, (1, 8, 8))[1], paths, [0.0, 1.0, 2.0], ["z0"])
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['0', '1', '2']
    """
    if pictures.shape[:2] != (len(names), len(multiples)):
        raise ShapeError(
            f"{len(names)} names and {len(multiples)} multiples for pictures of shape "
            f"{tuple(pictures.shape)}; give a name per row and a multiple per column"
        )
    plot_grid(ax, pictures, names)
    places = [column + 0.5 for column in range(len(multiples))]
    ax.set_xticks(places, [f"{value:g}" for value in multiples])
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", length=0, labelsize=SMALL, labelcolor=MUTED)
    return ax


def _plot_sorted(
    ax: Axes, rows: Tensor, sizes: Tensor, names: Sequence[str], beside: Sequence[str]
) -> Axes:
    """Draws rows by decreasing size, NaN last, with a text beside each name."""
    if not len(rows) == len(sizes) == len(names):
        raise ShapeError(
            f"{len(rows)} rows, {len(sizes)} numbers and {len(names)} names; give one per row"
        )
    order = _order(sizes)
    return plot_grid(ax, rows.cpu()[order], [names[row] + beside[row] for row in order])


def _order(sizes: Tensor) -> list[int]:
    sizes = sizes.detach().cpu().double().nan_to_num(-math.inf)
    return [int(row) for row in sizes.argsort(descending=True, stable=True)]


def as_pixels(images: Tensor) -> Tensor:
    """Returns images ``(..., C, H, W)`` as RGB in [0, 1], as `plot_grid` describes."""
    if images.shape[-3] != 3:
        images = images.mean(-3, keepdim=True).expand(*images.shape[:-3], 3, -1, -1)
    images = images.nan_to_num(0.0, 1.0, 0.0)
    low, high = images.aminmax()
    if low < -_BEYOND or high > 1 + _BEYOND:
        images = (images - low) / (high - low).clamp(min=1e-12)
    return images.clamp(0, 1)


def _num_lanes(data_shape: Sequence[int]) -> int:
    return data_shape[0] if len(data_shape) == 2 else 1


def _draw_images(ax: Axes, cells: Tensor) -> None:
    cells = as_pixels(cells.unsqueeze(2) if cells.dim() == 4 else cells)
    rows, columns, _, height, width = cells.shape
    enlarge = math.ceil(_CELL / max(height, width))
    cells = cells.repeat_interleave(enlarge, -2).repeat_interleave(enlarge, -1)
    gap = max(1, round(_GAP * enlarge * max(height, width)))
    # An alpha of 0 leaves the gaps to the page, light or dark.
    cells = torch.cat([cells, torch.ones_like(cells[:, :, :1])], 2)
    cells = pad(cells, 2 * (gap // 2, gap - gap // 2))
    mosaic = cells.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (height, width, RGBA)
    ax.imshow(
        mosaic.numpy(),
        interpolation="nearest" if enlarge > 1 else "auto",
        extent=(0, columns, rows, 0),
        aspect=cells.shape[-2] / cells.shape[-1],
    )


def _draw_values(ax: Axes, cells: Tensor) -> None:
    """Draws cells ``(rows, columns, lanes, length)``, a lane for each channel."""
    from matplotlib.collections import LineCollection, PolyCollection

    rows, columns, lanes, length = cells.shape
    are_bars = lanes == 1 and length <= _BARS
    cells = cells.nan_to_num()
    low, high = (ends[:, None] for ends in (cells.amin((0, 1, 3)), cells.amax((0, 1, 3))))
    if are_bars:
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)

    def placed(across: Tensor, values: Tensor) -> list[Any]:
        """Points of values ``(..., lanes, n)`` at the places ``across`` of each cell, ``(n,)``."""
        share = (values - low) / (high - low).clamp(min=1e-12)
        down = (torch.arange(lanes)[:, None] + 1 - _GAP - share * (1 - 2 * _GAP)) / lanes
        x = torch.arange(columns)[:, None, None] + across
        y = torch.arange(rows)[:, None, None, None] + down
        return list(torch.stack(torch.broadcast_tensors(x, y), -1).flatten(0, 2).numpy())

    zero = torch.zeros(1).clamp(low, high)  # (lanes, 1)
    ends = torch.tensor([2 * _GAP, 1 - 2 * _GAP])
    edges = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, length + 1))
    ax.add_collection(LineCollection(placed(ends, zero), colors=PALETTE[8], linewidths=0.5))
    if are_bars:
        gap = 0.1 * edges.diff()
        left, right = edges[:-1] + gap, edges[1:] - gap
        across = torch.stack([left, left, right, right], -1).flatten()
        outline = torch.stack(torch.broadcast_tensors(zero, cells, cells, zero), -1).flatten(-2)
        ax.add_collection(PolyCollection(placed(across, outline), color=PALETTE[0], linewidths=0))
    else:
        across = (edges[:-1] + edges[1:]) / 2 if length > 1 else ends
        colors = [group_color(lane) for lane in range(lanes)]
        ax.add_collection(LineCollection(placed(across, cells), colors=colors, linewidths=1.1))
    if lanes <= _SCALES:
        scales = [f"{a:.3g} to {b:.3g}" for a, b in torch.cat([low, high], 1).tolist()]
        cell = "a cell" if lanes == 1 else "a channel"
        ax.set_xlabel(f"height of {cell}: {', '.join(scales)}".replace("-", "−"))
    ax.set_xlim(0, columns)
    ax.set_ylim(rows, 0)
