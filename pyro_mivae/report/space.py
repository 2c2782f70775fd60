"""The code in the plane."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.errors import DataError
from pyro_mivae.plots.codes import distinct_codes
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject

_EMBEDDED = 1000
_FEWEST = 50  # codes for which neighbours say something


def latent_space(subject: Subject) -> Iterator[Panel]:
    """Draws the code in the plane, coloured by category and by label."""
    sites = subject.continuous_sites
    if not sites:
        return
    codes = torch.cat([subject.codes[site] for site in sites], 1)
    plane = f"A point per {subject.noun}: its code {' and '.join(sites)} (posterior mean), "
    if codes.shape[1] > 2:
        plane += f"{codes.shape[1]} dimensions seen along the two in which it varies most, "
    if subject.category:
        figure, ax = plots.new_figure(4.2)
        plots.plot_latent_space(ax, codes, subject.categories, colors=subject.category_colors)
        sentence = plane + "coloured by the most probable category."
        if subject.labels is not None:
            sentence += " A category has the colour of the label that it is matched to."
        yield Panel(
            "latent_space_by_category",
            "The code, by category",
            sentence,
            "Islands of one colour are categories that the code keeps apart.",
            figure,
        )
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(ax, codes, subject.labels, names=subject.class_names)
    if subject.labels is not None:
        yield Panel(
            "latent_space_by_label",
            "The code, by label",
            plane + "coloured by label.",
            "Labels that lie apart can be read off the code with ease. Labels that overlap here "
            "may still lie apart in the dimensions that are not seen.",
            figure,
        )
    elif not subject.category:
        yield Panel(
            "latent_space",
            "The code",
            plane + "all in one colour, since there are no labels.",
            "Clumps and gaps: the prior has none, so they are what the model found in the data.",
            figure,
        )


def neighbouring_codes(subject: Subject) -> Iterator[Panel]:
    """Draws which codes are neighbours, where there are enough of them in many dimensions."""
    sites = subject.continuous_sites
    codes = torch.cat([subject.codes[site] for site in sites], 1) if sites else torch.empty(0, 0)
    if codes.shape[1] <= 2 or len(codes) < _FEWEST:
        return
    distinct = len(distinct_codes(codes)[0])
    if distinct < _FEWEST:
        raise DataError(
            f"of {len(codes):,} codes {distinct} differ from each other; t-SNE needs {_FEWEST}"
        )
    figure, ax = plots.new_figure(4.2)
    groups: Tensor | None = None
    colors: list[int] | None = None
    by, kinds, names = "", "kinds", None
    if subject.labels is not None:
        groups, names = subject.labels, subject.class_names
        by, kinds = ", coloured by label", "labels"
    elif subject.category:
        groups, colors = subject.categories, subject.category_colors
        by, kinds = ", coloured by the most probable category", "categories"
    plots.plot_latent_space(
        ax, codes, groups, names=names, colors=colors, max_points=_EMBEDDED, method="tsne"
    )
    count = min(len(codes), _EMBEDDED)
    yield Panel(
        "latent_space_neighbours",
        "The code, by its neighbours",
        f"The same codes, {count:,} of them, placed by t-SNE: points that are close here are "
        f"close in all {codes.shape[1]} dimensions{by}.",
        f"Islands: groups that the code keeps apart, and which {kinds} share them. Their size and "
        "the distance between them mean nothing.",
        figure,
    )
