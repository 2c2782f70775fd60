"""Pictures of information, rate and losses, of the model and of each training epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.figures import LOWER, UPPER, interval, key, label, parse
from pyro_mivae.plots.curves import epochs_of
from pyro_mivae.plots.style import MUTED, site_color
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel
from pyro_mivae.tables import letter

_MAX_BARS = 20
_COLORS = {"": "#3f90da", ", fitted": "#832db6", ", model": "#e76300"}


def sandwich(data: ReportData) -> Iterator[Panel]:
    """Draws every bound on the information in the code, and in each site, on one axis."""
    rows: dict[str, tuple[float, float]] = {}
    colors: dict[str, str] = {}
    for name, figure_name, site, end in _intervals(data):
        bounds = interval(data.metrics, figure_name, site)
        if any(map(math.isfinite, bounds)):
            rows[name + end], colors[name + end] = bounds, _COLORS[end]
    if not rows:
        return
    n = data.num_data
    marks = {"rate": data.metrics.get("rate", math.nan)}
    marks[f"log {n:,} ="] = math.log(n) if n > 1 else math.nan
    figure, ax = plots.new_figure(0.9 + 0.34 * len(rows))
    plots.plot_sandwich(ax, rows, marks=marks, colors=colors)
    sentence = (
        "Each bar goes from a lower to an upper bound, in nats, of the information about the "
        f"{data.noun} in the whole code and in each site. The rate is the cost of the code; its "
        f"information cannot be more. With {n:,} {data.nouns} a lower bound cannot exceed log "
        f"{n:,}, except a fitted one."
    )
    look_for = (
        "Short bars are precise. A long bar that begins at log N: the code may hold more "
        "information than this number of data can show."
    )
    if any(name.endswith("fitted") for name in rows):
        sentence += " Fitted: with a marginal of the codes learned from other data."
    if any(name.endswith("model") for name in rows):
        sentence += (
            f" Model: the same for {data.nouns} that the model generates, with their exact "
            "posterior in place of the guide."
        )
        look_for += (
            " A model bar far below the other bar of its site: the decoder uses less than the "
            "guide writes."
        )
    yield Panel("sandwich", "Information in the code", sentence, look_for, figure)


def _intervals(data: ReportData) -> Iterator[tuple[str, str, str, str]]:
    """Name, figure, site and suffix of every interval; the only site stands for the code."""
    sites = ["", *data.codes] if len(data.codes) > 1 else list(data.codes)
    for place, site in enumerate(sites):
        name = label(key("mi", site))
        yield name, "mi", site, ""
        if place == 0:
            yield name, "fitted_mi", "", ", fitted"
        yield name, "generative_mi", site, ", model"


def information_bar(data: ReportData) -> Iterator[Panel]:
    """Draws the rate, divided into sites and dimensions."""
    if not data.has_density:  # the rate is not defined
        return
    measured = {
        site: data.indexed(site).get(
            "kl", torch.tensor(data.metrics.get(key("kl", site), math.nan))
        )
        for site in data.codes
    }
    nats = {site: values for site, values in measured.items() if values.isfinite().all()}
    if sum(float(values.sum()) for values in nats.values()) <= 0:
        return
    figure, ax = plots.new_figure(1.35)
    plots.plot_information_bar(ax, nats)
    sentence = (
        f"The rate, in nats: the cost of the code of {data.a_noun}, and the largest information "
        "that it can hold. Each colour is a site, each piece one of its dimensions, the largest "
        "first."
    )
    for site in measured.keys() - nats.keys():
        sentence += f" {site} is deterministic: it has no KL and is left out."
    yield Panel(
        "information",
        "Rate by site and dimension",
        sentence,
        "The model uses the wide pieces. It does not use a site or a dimension without width.",
        figure,
    )


def contributions(data: ReportData) -> Iterator[Panel]:
    """Draws the measured information of each dimension of a site, or of each category."""
    for site in data.codes:
        figures = data.indexed(site)
        lower, upper = (figures.get(key("mi", side=side)) for side in (LOWER, UPPER))
        if lower is None or upper is None or len(lower) < 2:
            continue
        sizes = torch.where(lower.isfinite(), lower, upper)
        if not bool(sizes.isfinite().any()):
            continue
        order = sizes.nan_to_num(-math.inf).argsort(descending=True, stable=True)
        shown = order[:_MAX_BARS]
        cost = figures["kl"][shown].tolist() if "kl" in figures else None
        is_category = site in data.vae.categories
        names = [f"{site} = {letter(k)}" if is_category else f"{site}{k}" for k in shown.tolist()]
        figure, ax = plots.new_figure(0.6 + 0.24 * len(shown))
        least, most = lower[shown].tolist(), upper[shown].tolist()
        plots.plot_contributions(ax, names, least, most, cost=cost, color=site_color(site))
        words = _of_categories(data, site) if is_category else _of_dimensions(data, site, cost)
        title, sentence, look_for = words
        sentence += " A bar is full up to the lower bound and faint up to the upper one."
        if len(order) > len(shown):
            sentence += f" The first {len(shown)} of {len(order)} are shown."
        yield Panel(f"information_{site}", title, sentence, look_for, figure)


def _of_categories(data: ReportData, site: str) -> tuple[str, str, str]:
    return (
        "Information by category",
        f"The information in the category, {label(key('mi', site))}, divided among the "
        "categories: the share of the data in a category times the information from being in "
        "it. The bars add up to the total.",
        "Bars of equal length: categories with equal shares and equal certainty. A short bar: a "
        f"rare category, or {data.nouns} between two categories.",
    )


def _of_dimensions(data: ReportData, site: str, cost: list[float] | None) -> tuple[str, str, str]:
    sentence = (
        f"The information about the {data.noun} in each dimension of {site} alone, the most "
        "informative first."
    )
    if cost is not None and any(map(math.isfinite, cost)):
        sentence += " The stroke is its KL, its cost"
        sentence += ", given the category." if data.category else "."
    look_for = (
        f"Dimensions of {site} without a bar are not used by the model. The bars need not add up "
        "to the total: two dimensions with the same information count twice. "
    )
    if data.category:
        look_for += (
            "A bar beyond its stroke: that dimension also holds information on the category."
        )
    else:
        look_for += (
            "A stroke far beyond its bar: the codes of that dimension are not distributed as "
            "the prior."
        )
    return f"Information by dimension of {site}", sentence, look_for


def loss_curves(data: ReportData) -> Iterator[Panel]:
    """Draws the loss of the training run and its parts, or the players' losses of a game."""
    columns = data.history.columns
    if "loss_generator" in columns:
        yield _players(data)
        return
    if not {"loss", "elbo", "distortion"} & set(columns):
        return
    figure, ax = plots.new_figure(2.9)
    plots.plot_loss_curves(ax, data.history)
    look_for = "Curves that have become flat. If they still fall, more epochs would help."
    if any(column.startswith("val_") for column in columns):
        look_for += " Dashed curves that rise again: the model has begun to overfit."
    yield Panel(
        "loss_curves",
        "Training: the loss",
        "By epoch: the minimised loss, −ELBO (with every weight 1 and no other term; it may "
        "rise while the loss falls), and the distortion, a part of both. Lower is better.",
        look_for,
        figure,
    )


def _players(data: ReportData) -> Panel:
    curves = {name: data.history[f"loss_{name}"] for name in ("discriminator", "generator")}
    figure, ax = plots.new_figure(2.9)
    plots.plot_curves(ax, curves, epochs=epochs_of(data.history))
    draw = math.copysign(math.log(2.0), curves["generator"][-1])  # negative where it saturates
    for level in (math.log(4.0), draw):
        ax.axhline(level, color=MUTED, linewidth=1.0, linestyle=":")
    return Panel(
        "loss_curves",
        "Training: the players",
        "By epoch: the discriminator's loss −V, and the generator's loss without the "
        "information terms. The dotted lines are log 4 and log 2 nats: there the discriminator "
        f"cannot distinguish real from generated {data.nouns}.",
        "Curves near their lines: a balanced game. If the discriminator's loss falls to 0, it "
        "has won, and the generator learns little. Lower is not better here.",
        figure,
    )


def information_curves(data: ReportData) -> Iterator[Panel]:
    """Draws the information in the sites, by epoch."""
    figure, ax = plots.new_figure(2.9)
    plots.plot_information_curves(ax, data.history, num_categories=data.num_categories)
    if not ax.lines:
        return
    columns = data.history.columns
    sentence = "A curve per site, by epoch."
    names = {found.name for found in map(parse, columns) if found is not None}
    if "kl" in names:
        sentence += " The KL of a site is the largest information that it can hold about the data"
        sentence += " (for z: given the category)." if data.category else "."
    if "mi" in names:
        sentence += (
            " An information term of the objective is a lower bound on the information that can "
            "be read back from generated data (from means or from samples, as its label says)."
        )
    if data.category:
        sentence += " The information in the category cannot exceed the dotted line."
    yield Panel(
        "information_curves",
        "Training: the information",
        sentence,
        "A curve that falls to 0: the model no longer uses that site. A curve that rises and "
        "stays: the model has begun to use it.",
        figure,
    )


NATS = (sandwich, information_bar, contributions, loss_curves, information_curves)
