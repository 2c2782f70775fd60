"""How the nats of a code are shared among its sites and their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, floats
from pyro_mivae.errors import ShapeError
from pyro_mivae.plots.checks import named
from pyro_mivae.plots.style import FONT, INK, SMALL, site_color, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked(nats=named(floats(finite=False)))
def plot_information_bar(ax: Axes, nats: Mapping[str, Tensor]) -> Axes:
    """Draws one bar, cut into sites, each site cut into its dimensions, the largest first.

    Example:
        >>> from pyro_mivae.plots import new_figure
        >>> nats = {"z": torch.ones(3), "c": torch.tensor(2.0)}
        >>> ax = plot_information_bar(new_figure(1.2)[1], nats)
        >>> [text.get_text() for text in ax.texts]
        ['z  3.00 nats', 'c  2.00 nats']
    """
    sizes: dict[str, Tensor] = {}
    whole_is_known: dict[str, bool] = {}
    for site, values in nats.items():
        if values.dim() > 1:
            shape = tuple(values.shape)
            raise ShapeError(f"site {site!r}: nats of shape {shape}; expected (d,) or ()")
        values = values.detach().cpu().double().reshape(-1)
        sizes[site] = values[values.isfinite()].clamp(min=0)
        whole_is_known[site] = len(sizes[site]) == len(values)
    whole = float(sum((values.sum() for values in sizes.values()), torch.tensor(0.0))) or 1.0
    left, rows_above = 0.0, 0.0
    for site, values in sizes.items():
        start, in_all = left, float(values.sum())
        for rank, value in enumerate(values.sort(descending=True).values.tolist()):
            ax.barh(
                0,
                value,
                left=left,
                height=1.0,
                color=site_color(site),
                alpha=1.0 if rank % 2 == 0 else 0.72,
                linewidth=0,
            )
            left += value
        # A narrow site's text would run into its neighbour's: it goes one line higher.
        narrow = in_all / whole < 0.28 and len(sizes) > 1
        rows_above = max(rows_above, 1.0 if narrow else 0.0)
        at_right = start / whole > 0.6
        ax.annotate(
            f"{site}  {in_all:.2f} nats" if whole_is_known[site] else f"{site}  not defined",
            (left if at_right else start, 0.5),
            xytext=(0, 5 + (15 if narrow else 0)),
            textcoords="offset points",
            ha="right" if at_right else "left",
            va="bottom",
            fontsize=FONT,
            color=INK,
        )
    style_axes(ax, frame=False)
    ax.set_xlim(0, whole)
    ax.set_ylim(-0.5, 1.3 + 0.5 * rows_above)
    ax.set_yticks([])
    ax.set_xlabel("nats per datum")
    ax.xaxis.label.set_fontsize(SMALL)
    return ax
