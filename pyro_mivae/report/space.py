"""The code in the plane."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject


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
