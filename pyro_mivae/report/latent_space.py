"""The code in the plane."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.errors import DataError
from pyro_mivae.plots.codes import distinct_codes
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel

_EMBEDDED = 1000
_FEWEST = 50  # codes for which neighbours say something


def latent_space(data: ReportData) -> Iterator[Panel]:
    """Draws the code in the plane, coloured by category and by label."""
    sites = data.continuous_sites
    if not sites:
        return
    codes = torch.cat([data.codes[site] for site in sites], 1)
    plane = f"A point per {data.noun}: its code {' and '.join(sites)} (posterior mean), "
    if codes.shape[1] > 2:
        plane += f"{codes.shape[1]} dimensions seen along the two in which it varies most, "
    if data.category:
        figure, ax = plots.new_figure(4.2)
        plots.plot_latent_space(ax, codes, data.categories, colors=data.category_colors)
        sentence = plane + "coloured by the most probable category."
        if data.labels is not None:
            sentence += " A category has the colour of the label that it is matched to."
        yield Panel(
            "latent_space_by_category",
            "The code, by category",
            sentence,
            "Islands of one colour are categories that the code keeps apart.",
            figure,
        )
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(ax, codes, data.labels, names=data.class_names)
    if data.labels is not None:
        yield Panel(
            "latent_space_by_label",
            "The code, by label",
            plane + "coloured by label.",
            "Labels that lie apart are easy to read off the code. Labels that overlap here may "
            "still lie apart in the dimensions that are not seen.",
            figure,
        )
    elif not data.category:
        yield Panel(
            "latent_space",
            "The code",
            plane + "all in one colour, since there are no labels.",
            "Clumps and gaps: the prior has none, so they are what the model found in the data.",
            figure,
        )


def neighbouring_codes(data: ReportData) -> Iterator[Panel]:
    """Draws which codes are neighbours, where there are enough of them in many dimensions."""
    sites = data.continuous_sites
    codes = torch.cat([data.codes[site] for site in sites], 1) if sites else torch.empty(0, 0)
    if codes.shape[1] <= 2 or len(codes) < _FEWEST:
        return
    distinct = len(distinct_codes(codes)[0])
    if distinct < _FEWEST:
        raise DataError(
            f"of {len(codes):,} codes {distinct} differ from each other; t-SNE needs {_FEWEST}"
        )
    groups: Tensor | None = None
    colors, names, by, kinds = None, None, "", "kinds"
    if data.labels is not None:
        groups, names = data.labels, data.class_names
        by, kinds = ", coloured by label", "labels"
    elif data.category:
        groups, colors = data.categories, data.category_colors
        by, kinds = ", coloured by the most probable category", "categories"
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(
        ax, codes, groups, names=names, colors=colors, max_points=_EMBEDDED, method="tsne"
    )
    yield Panel(
        "latent_space_neighbours",
        "The code, by its neighbours",
        f"The same codes, {min(len(codes), _EMBEDDED):,} of them, placed by t-SNE: points that "
        f"are close here are close in all {codes.shape[1]} dimensions{by}.",
        f"Islands: groups that the code keeps apart, and which {kinds} share them. Their size and "
        "the distance between them mean nothing.",
        figure,
    )
