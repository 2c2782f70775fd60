"""A picture of what each dimension of the code tells of the factors that made the data."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.metrics.factors import factor_information
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject

_MAX_ROWS = 16


def factor_matrix(subject: Subject) -> Iterator[Panel]:
    """Draws dimensions beside factors, where what made the data is known."""
    if subject.factors is None:
        return
    varying = (subject.factors != subject.factors[:1]).any(0)
    factors = subject.factors[:, varying]
    factor_names = [name for name, v in zip(subject.factor_names, varying.tolist()) if v]
    if not factor_names:
        return
    columns, names = [], []
    for site, codes in subject.codes.items():
        if site == subject.category:
            columns.append(subject.categories[:, None].to(codes))
            names.append(site)
        else:
            columns.append(codes)
            names += [f"{site}{dim}" for dim in range(codes.shape[1])]
    categorical = [i for i, name in enumerate(names) if name == subject.category]
    information = factor_information(torch.cat(columns, 1), factors, categorical=categorical)
    entropies = factor_information(
        factors.double(), factors, categorical=range(factors.shape[1])
    ).diagonal()
    shares = (information / entropies).clamp(0, 1)
    # Each dimension stands by the factor that it tells most of, those that tell more first.
    most, which = shares.max(1)
    shown = most.argsort(descending=True, stable=True)[:_MAX_ROWS]
    order = shown[which[shown].argsort(stable=True)]
    figure, ax = plots.new_figure(0.7 + 0.26 * len(order))
    rows = [names[i] for i in order.tolist()]
    plots.plot_factor_matrix(ax, shares[order], rows, factor_names)
    more = f" The {_MAX_ROWS} of {len(names)} that tell most are shown." * (
        len(names) > len(order)
    )
    yield Panel(
        "factors",
        "What each dimension tells of the factors",
        f"A row per dimension of the code, a column per factor that made the {subject.nouns}: "
        "their mutual information (dimensions cut into 20 bins), in percent of what there is to "
        f"know of the factor. The model never saw a factor.{more}",
        "One dark cell in a row: a dimension with one meaning. One dark cell in a column: a "
        "factor that a single dimension holds. Pale columns: factors that no dimension tells by "
        "itself.",
        figure,
    )
