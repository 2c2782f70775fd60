"""Pictures of the codes: in the plane, by category, and against factors of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.errors import DataError
from pyro_mivae.metrics.encoded import side_by_side
from pyro_mivae.metrics.factors import factor_information
from pyro_mivae.plots.codes import distinct_codes
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel
from pyro_mivae.tables import letter

_POINTS = 1000
_FEWEST = 50  # codes for which neighbours say something
_MAX_DIMENSIONS = 16
_MAX_COLUMNS = 30
_LONGEST = 24  # letters of a column's name


def latent_space(data: ReportData) -> Iterator[Panel]:
    """Draws the code in the plane, coloured by category, or by label if there are none."""
    sites = data.continuous_sites
    if not sites:
        return
    codes = torch.cat([data.codes[site] for site in sites], 1)
    plane = f"A point per {data.noun}: its code {' and '.join(sites)} (posterior mean), "
    if codes.shape[1] > 2:
        plane += (
            f"{codes.shape[1]} dimensions projected on the two main directions of their variance, "
        )
    groups, names = data.labels, data.class_names
    colors: Sequence[int] | None = None
    if data.category:
        groups, names, colors = data.categories, _letters(data), data.category_colors
        key, by = "latent_space_by_category", ", by category"
        sentence = plane + "coloured by the most probable category."
        if data.labels is not None:
            sentence += " A category has the colour of its matched label."
        look_for = "Islands of one colour: the code separates these categories."
    elif data.labels is not None:
        key, by, sentence = "latent_space_by_label", ", by label", plane + "coloured by label."
        look_for = (
            "Separate labels are easy to read from the code. Labels that overlap here may be "
            "separate in the dimensions that are not shown."
        )
    else:
        key, by = "latent_space", ""
        sentence = plane + "in one colour, because there are no labels."
        look_for = "Clusters and gaps: the prior has none, so the model found them in the data."
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(ax, codes, groups, names=names, colors=colors, max_points=_POINTS)
    yield Panel(key, f"The code{by}", sentence, look_for, figure)


def _letters(data: ReportData) -> list[str]:
    return [letter(k) for k in range(data.num_categories)]


def neighbouring_codes(data: ReportData) -> Iterator[Panel]:
    """Draws codes by t-SNE, if there are enough of them in more than two dimensions."""
    sites = data.continuous_sites
    codes = torch.cat([data.codes[site] for site in sites], 1) if sites else torch.empty(0, 0)
    if codes.shape[1] <= 2 or len(codes) < _FEWEST:
        return
    distinct = len(distinct_codes(codes)[0])
    if distinct < _FEWEST:
        raise DataError(
            f"of {len(codes):,} codes {distinct} differ from each other; t-SNE needs {_FEWEST}"
        )
    groups, names = data.labels, data.class_names
    colors, by, kinds = None, "", "kinds"
    if data.labels is not None:
        by, kinds = ", coloured by label", "labels"
    elif data.category:
        groups, names, colors = data.categories, _letters(data), data.category_colors
        by, kinds = ", coloured by the most probable category", "categories"
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(
        ax, codes, groups, names=names, colors=colors, max_points=_POINTS, method="tsne"
    )
    yield Panel(
        "latent_space_neighbours",
        "The code, by its neighbours",
        f"The same codes, {min(len(codes), _POINTS):,} of them, placed by t-SNE: points that "
        f"are close here are also close in all {codes.shape[1]} dimensions{by}.",
        f"Islands: groups that the code separates, and the {kinds} in them. Sizes of islands and "
        "distances between them have no meaning.",
        figure,
    )


def confusion(data: ReportData) -> Iterator[Panel]:
    """Draws the labels against the categories."""
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
        f"that category. Their order matches the labels best, {data.seen_labels}.",
        "A full diagonal: the categories agree with the labels. Two full cells in a row: a "
        "label is split into two categories. Two full cells in a column: two labels share a "
        "category.",
        figure,
    )


def factor_matrix(data: ReportData) -> Iterator[Panel]:
    """Draws dimensions against factors, if the factors of the data are known."""
    if data.factors is None:
        return
    varying = (data.factors != data.factors[:1]).any(0)
    factors = data.factors[:, varying]
    factor_names = [name for name, v in zip(data.factor_names, varying.tolist()) if v]
    if not factor_names:
        return
    names: list[str] = []
    for site, code in data.codes.items():
        dims = range(code.shape[1])
        names += [site] if site in data.vae.categories else [f"{site}{dim}" for dim in dims]
    codes, categorical = side_by_side(data.codes, data.vae.categories)
    information = factor_information(codes, factors, categorical=categorical)
    entropies = factor_information(
        factors.double(), factors, categorical=range(factors.shape[1])
    ).diagonal()
    shares = (information / entropies).clamp(0, 1)
    # Each dimension is sorted to its best factor, the most informative first.
    most, which = shares.max(1)
    shown = most.argsort(descending=True, stable=True)[:_MAX_DIMENSIONS]
    order = shown[which[shown].argsort(stable=True)]
    figure, ax = plots.new_figure(0.7 + 0.26 * len(order))
    plots.plot_factor_matrix(ax, shares[order], [names[i] for i in order.tolist()], factor_names)
    sentence = (
        f"A row per dimension of the code, a column per factor that made the {data.nouns}: their "
        "mutual information (dimensions cut into 20 bins), in percent of the factor's entropy. "
        "The model never saw a factor."
    )
    if len(names) > len(order):
        sentence += f" The {len(order)} of {len(names)} with the most information are shown."
    yield Panel(
        "factors",
        "Dimensions and factors",
        sentence,
        "One full cell in a row: a dimension with one meaning. One full cell in a column: a "
        "factor in a single dimension. Faint columns: factors that no single dimension holds.",
        figure,
    )


def table_columns(data: ReportData) -> Iterator[Panel]:
    """Draws the columns of a table against the code, if the columns have names."""
    if not data.column_names:
        return
    x = data.x.cpu().double()
    decoded = data.vae.reconstruct(data.x, given=data.given).cpu().double()
    whole = 1 - (x - decoded).square().mean(0) / x.var(0, correction=0)
    parts: dict[str, Tensor] = {}
    for site, code in data.codes.items():
        if site in data.vae.categories:
            parts[site] = _explained(x, torch.eye(code.shape[1])[code.argmax(1)])
        else:
            parts |= {f"{site}{k}": _explained(x, code[:, k, None]) for k in range(code.shape[1])}
    best = sorted(parts, key=lambda name: -float(parts[name].max()))[:_MAX_DIMENSIONS]
    heads = [name for name in parts if name in best]
    shares = torch.stack([whole.nan_to_num().clamp(0, 1), *(parts[name] for name in heads)], 1)
    shown = whole.argsort(descending=True, stable=True)[:_MAX_COLUMNS].sort().values.tolist()
    names = [data.column_names[column] for column in shown]
    names = [n if len(n) <= _LONGEST else n[: _LONGEST - 1] + "…" for n in names]
    figure, ax = plots.new_figure(0.7 + 0.26 * len(shown))
    plots.plot_factor_matrix(ax, shares[shown], names, ["decoded", *heads])
    sentence = (
        "A row per column of the table, from top to bottom as the bars of other pictures go from "
        "left to right: the percentage of its variance that the decoded data explain, and that a "
        "linear function of each dimension alone explains."
    )
    if len(shown) < len(whole):
        sentence += f" The {len(shown)} of {len(whole)} columns that are decoded best are shown."
    yield Panel(
        "columns",
        "Columns of the table",
        sentence,
        "A full cell under a dimension: the column is what that dimension means. A faint first "
        "cell: the code does not hold that column.",
        figure,
    )


def _explained(x: Tensor, code: Tensor) -> Tensor:
    """Returns the share of each column's variance that a linear function of codes explains."""
    x, code = x - x.mean(0), (code - code.mean(0)).double()
    fitted = code @ (torch.linalg.pinv(code) @ x)
    return (fitted.square().sum(0) / x.square().sum(0)).nan_to_num().clamp(0, 1)


CODES = (table_columns, confusion, latent_space, neighbouring_codes, factor_matrix)
