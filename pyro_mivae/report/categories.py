"""Pictures of how categories are used, and of what the code tells of labels and factors."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.metrics.factors import factor_information
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel

_MAX_CATEGORIES = 24
_MAX_DIMENSIONS = 16


def occupancy(data: ReportData) -> Iterator[Panel]:
    """Draws how many data each category takes."""
    k = data.num_categories
    if not k:
        return
    shown = min(k, _MAX_CATEGORIES)
    figure, ax = plots.new_figure(0.6 + 0.24 * shown)
    plots.plot_occupancy(ax, data.occupancy, max_bars=shown)
    sentence = f"The share of the {data.nouns} whose most probable category is this one."
    if k > shown:
        sentence += f" The {shown} most used of {k} are shown."
    yield Panel(
        "occupancy",
        "How the categories are used",
        sentence,
        "A category near zero is one that the model gave up. Equal shares are not the aim, unless "
        "the kinds of things in the data are equally many.",
        figure,
    )


def confusion(data: ReportData) -> Iterator[Panel]:
    """Draws how labels spread over categories."""
    k = data.num_categories
    if not k or data.labels is None:
        return
    rows = len(data.labels.unique())
    figure, ax = plots.new_figure(0.6 + (4.2 * rows / k if k <= 2 * rows <= 4 * k else 0.3 * rows))
    names = data.class_names
    plots.plot_confusion_matrix(
        ax, data.labels, data.categories, num_categories=k, label_names=names
    )
    yield Panel(
        "confusion",
        "Categories and labels",
        f"A row per label, a column per category: the percentage of the label's {data.nouns} in "
        "that category. The categories are in the order that fits the labels best. The model "
        "never saw a label.",
        "A dark diagonal: the categories that the model found are the ones that people use. Two "
        "dark cells in a row are a label split in two; in a column, two labels in one category.",
        figure,
    )


def factor_matrix(data: ReportData) -> Iterator[Panel]:
    """Draws dimensions beside factors, where what made the data is known."""
    if data.factors is None:
        return
    varying = (data.factors != data.factors[:1]).any(0)
    factors = data.factors[:, varying]
    factor_names = [name for name, v in zip(data.factor_names, varying.tolist()) if v]
    if not factor_names:
        return
    columns, names = [], []
    for site, codes in data.codes.items():
        is_category = site == data.category
        columns.append(data.categories[:, None].to(codes) if is_category else codes)
        names += [site] if is_category else [f"{site}{dim}" for dim in range(codes.shape[1])]
    categorical = [i for i, name in enumerate(names) if name == data.category]
    information = factor_information(torch.cat(columns, 1), factors, categorical=categorical)
    entropies = factor_information(
        factors.double(), factors, categorical=range(factors.shape[1])
    ).diagonal()
    shares = (information / entropies).clamp(0, 1)
    # Each dimension stands by the factor that it tells most of, those that tell more first.
    most, which = shares.max(1)
    shown = most.argsort(descending=True, stable=True)[:_MAX_DIMENSIONS]
    order = shown[which[shown].argsort(stable=True)]
    figure, ax = plots.new_figure(0.7 + 0.26 * len(order))
    plots.plot_factor_matrix(ax, shares[order], [names[i] for i in order.tolist()], factor_names)
    sentence = (
        f"A row per dimension of the code, a column per factor that made the {data.nouns}: their "
        "mutual information (dimensions cut into 20 bins), in percent of what there is to know of "
        "the factor. The model never saw a factor."
    )
    if len(names) > len(order):
        sentence += f" The {len(order)} of {len(names)} that tell most are shown."
    yield Panel(
        "factors",
        "What each dimension tells of the factors",
        sentence,
        "One dark cell in a row: a dimension with one meaning. One dark cell in a column: a "
        "factor that a single dimension holds. Pale columns: factors that no dimension tells by "
        "itself.",
        figure,
    )
