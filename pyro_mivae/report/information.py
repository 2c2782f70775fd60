"""Pictures of the nats: of the code, and of each epoch of the training."""

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
        f"Each bar goes from a lower to an upper bound, in nats: what the code says of which "
        f"{data.noun} it belongs to, as a whole and site by site. The rate is what it costs, and "
        f"no code can say more. The lower bounds tell {n:,} {data.nouns} apart: none but a fitted "
        f"one can exceed log {n:,}."
    )
    look_for = (
        "Short bars are known well. A bar that begins at log N and is long: the code may say more "
        "than so few data can show."
    )
    if any(name.endswith("fitted") for name in rows):
        sentence += " Fitted: with a marginal of the codes that was learned from other data."
    if any(name.endswith("model") for name in rows):
        sentence += (
            f" Model: the same of {data.nouns} that the model generates itself, with their exact "
            "posterior in place of the guide."
        )
        look_for += (
            " A model's bar far below the other of its site: the decoder uses less than the guide "
            "writes."
        )
    yield Panel("sandwich", "What the code knows", sentence, look_for, figure)


def _intervals(data: ReportData) -> Iterator[tuple[str, str, str, str]]:
    """Name, figure, site and kind of every interval; a code of one site is that site."""
    sites = ["", *data.codes] if len(data.codes) > 1 else list(data.codes)
    for place, site in enumerate(sites):
        name = label(key("mi", site))
        yield name, "mi", site, ""
        if place == 0:
            yield name, "fitted_mi", "", ", fitted"
        yield name, "generative_mi", site, ", model"


def information_bar(data: ReportData) -> Iterator[Panel]:
    """Draws how the rate is shared among sites and dimensions."""
    if not data.has_density:  # there is no rate to pay
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
        f"The rate, in nats: what the code of {data.a_noun} costs, and the most that it can say. "
        "Each colour is a site, each piece one of its dimensions, the largest first."
    )
    for site in measured.keys() - nats.keys():
        sentence += f" {site} is deterministic: it has no KL and is left out."
    yield Panel(
        "information",
        "Where the nats are",
        sentence,
        "Wide pieces do the work. A site or a dimension without width is one that the model does "
        "not use.",
        figure,
    )


def contributions(data: ReportData) -> Iterator[Panel]:
    """Draws what each dimension of a site says, or each category, where it was measured."""
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
        is_category = site == data.category
        names = [f"{site} = {k}" if is_category else f"{site}{k}" for k in shown.tolist()]
        figure, ax = plots.new_figure(0.6 + 0.24 * len(shown))
        least, most = lower[shown].tolist(), upper[shown].tolist()
        plots.plot_contributions(ax, names, least, most, cost=cost, color=site_color(site))
        words = _of_categories(data, site) if is_category else _of_dimensions(data, site, cost)
        title, sentence, look_for = words
        sentence += " Solid up to the lower bound, pale up to the upper one."
        if len(order) > len(shown):
            sentence += f" The first {len(shown)} of {len(order)} are shown."
        yield Panel(f"information_{site}", title, sentence, look_for, figure)


def _of_categories(data: ReportData, site: str) -> tuple[str, str, str]:
    return (
        "What each category says",
        f"The information in the category, {label(key('mi', site))}, shared among the categories: "
        "each one's share of the data times what being in it tells. The bars add up to the whole.",
        "Bars of equal length: categories that are equally many and equally sure. A short one is "
        f"rare, or holds {data.nouns} that are between two categories.",
    )


def _of_dimensions(data: ReportData, site: str, cost: list[float] | None) -> tuple[str, str, str]:
    sentence = (
        f"What each dimension of {site} says of which {data.noun} it is, by itself, the most "
        "informative first."
    )
    if cost is not None and any(map(math.isfinite, cost)):
        sentence += " The stroke is its KL, what it costs"
        sentence += ", the category known." if data.category else "."
    look_for = (
        f"Where the bars end, the dimensions of {site} end that the model uses. They need not add "
        "up to the whole: two that say the same are counted twice. "
    )
    if data.category:
        look_for += "A bar beyond its stroke: that dimension also tells the category."
    else:
        look_for += (
            "A stroke far beyond its bar: a dimension whose codes as a whole are not spread as "
            "the prior is."
        )
    return f"What each dimension of {site} says", sentence, look_for


def loss_curves(data: ReportData) -> Iterator[Panel]:
    """Draws the loss of the training run and its parts; of a game what each player loses."""
    columns = data.history.columns
    if "loss_generator" in columns:
        yield _players(data)
        return
    if not {"loss", "elbo", "distortion"} & set(columns):
        return
    figure, ax = plots.new_figure(2.9)
    plots.plot_loss_curves(ax, data.history)
    look_for = "Curves that have become level. Where they still fall, more epochs would help."
    if any(column.startswith("val_") for column in columns):
        look_for += " Dashed curves that turn up: the model has begun to memorise."
    yield Panel(
        "loss_curves",
        "Training: the loss",
        "Epoch by epoch: the loss that is minimised, −ELBO (every weight 1 and no further term: "
        "it may rise while the loss falls), and the distortion in both. Lower is better.",
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
        "Epoch by epoch: what the discriminator minimises, −V, and what the generator minimises "
        "beside the information terms. The dotted lines are log 4 and log 2 nats: there the "
        f"discriminator cannot tell {data.nouns} from what is generated.",
        "Curves that stay near their lines: an even game. A discriminator that falls to 0 has "
        "won, and teaches the generator little. Lower is not better here.",
        figure,
    )


def information_curves(data: ReportData) -> Iterator[Panel]:
    """Draws what the sites carry, epoch by epoch."""
    figure, ax = plots.new_figure(2.9)
    plots.plot_information_curves(ax, data.history, num_categories=data.num_categories)
    if not ax.lines:
        return
    columns = data.history.columns
    sentence = "A curve per site, epoch by epoch."
    names = {found.name for found in map(parse, columns) if found is not None}
    if "kl" in names:
        sentence += " The KL of a site is the most that it can say of the data"
        sentence += " (of z: once the category is known)." if data.category else "."
    if "mi" in names:
        sentence += (
            " The information terms of the objective: at least so much of a site can be read back "
            "from what the model generates (from its mean or from a sample, as it says)."
        )
    if data.category:
        sentence += " No category can say more than the dotted line."
    yield Panel(
        "information_curves",
        "Training: the information",
        sentence,
        "A curve that falls to 0: a site that the model gave up. One that rises and stays: a site "
        "that it came to use.",
        figure,
    )


NATS = (sandwich, information_bar, contributions, loss_curves, information_curves)
