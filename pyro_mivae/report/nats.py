"""Pictures of where the nats of the code are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.plots.style import site_color
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject

_MAX_BARS = 20
_COLORS = {"": "#3f90da", ", fitted": "#832db6", ", model": "#e76300"}


def sandwich(subject: Subject) -> Iterator[Panel]:
    """Draws every bound on the information in the code, and in each site, on one axis."""
    rows = dict(_intervals(subject))
    if not rows:
        return
    m, n = subject.metrics, subject.num_data
    marks = {"rate": m.get("rate", math.nan), f"log {n:,} =": math.log(n) if n > 1 else math.nan}
    figure, ax = plots.new_figure(0.9 + 0.34 * len(rows))
    colors = {name: color for name in rows for end, color in _COLORS.items() if name.endswith(end)}
    plots.plot_sandwich(ax, rows, marks=marks, colors=colors)
    sentence = (
        f"Each bar goes from a lower to an upper bound, in nats: what the code says of which "
        f"{subject.noun} it belongs to, as a whole and site by site. The rate is what it costs, "
        f"and no code can say more. The lower bounds tell {n:,} {subject.nouns} apart, so that "
        f"none but a fitted one can exceed log {n:,}."
    )
    if any(name.endswith("fitted") for name in rows):
        sentence += " Fitted: with a marginal of the codes that was learned from other data."
    if any(name.endswith("model") for name in rows):
        sentence += (
            f" Model: the same of {subject.nouns} that the model generates itself, with their "
            "exact posterior in place of the guide."
        )
    look_for = (
        "Short bars are known well. A bar that begins at log N and is long: the code may say more "
        "than so few data can show."
    )
    if any(name.endswith("model") for name in rows):
        look_for += (
            " A model's bar far below the other of its site: the decoder uses less than the guide "
            "writes."
        )
    yield Panel("sandwich", "What the code knows", sentence, look_for, figure)


def information_bar(subject: Subject) -> Iterator[Panel]:
    """Draws how the rate is shared among sites and dimensions."""
    if not subject.has_density:  # there is no rate to pay
        return
    nats = {site: v for site, v in subject.site_nats.items() if v.isfinite().all()}
    if sum(float(v.sum()) for v in nats.values()) <= 0:
        return
    figure, ax = plots.new_figure(1.35)
    plots.plot_information_bar(ax, nats)
    sentence = (
        f"The rate, in nats: what the code of {subject.a_noun} costs, and the most that it can "
        "say. Each colour is a site, each piece one of its dimensions, the largest first."
    )
    for site in subject.site_nats.keys() - nats.keys():
        sentence += f" {site} is deterministic: it has no KL and is left out."
    yield Panel(
        "information",
        "Where the nats are",
        sentence,
        "Wide pieces do the work. A site or a dimension without width is one that the model does "
        "not use.",
        figure,
    )


def contributions(subject: Subject) -> Iterator[Panel]:
    """Draws what each dimension of a site says, or each category, where it was measured."""
    for site in subject.codes:
        figures = subject.indexed(site)
        lower, upper = figures.get("mi_lower"), figures.get("mi_upper")
        if lower is None or upper is None or not bool((lower.isfinite() | upper.isfinite()).any()):
            continue
        if len(lower) > 1:
            yield _contributions(subject, site, lower, upper, figures.get("kl"))


def _contributions(
    subject: Subject, site: str, lower: Tensor, upper: Tensor, cost: Tensor | None
) -> Panel:
    sizes = torch.where(lower.isfinite(), lower, upper)
    order = sizes.nan_to_num(-math.inf).argsort(descending=True, stable=True)
    shown = order[:_MAX_BARS]
    category = site == subject.category
    names = [f"{site} = {k}" if category else f"{site}{k}" for k in shown.tolist()]
    figure, ax = plots.new_figure(0.6 + 0.24 * len(shown))
    plots.plot_contributions(
        ax,
        names,
        lower[shown].tolist(),
        upper[shown].tolist(),
        cost=None if cost is None else cost[shown].tolist(),
        color=site_color(site),
    )
    kinds = "categories" if category else f"dimensions of {site}"
    more = "" if len(order) <= _MAX_BARS else f" The first {_MAX_BARS} of {len(order)} are shown."
    bars = "Solid up to the lower bound, pale up to the upper one."
    if category:
        return Panel(
            f"information_{site}",
            "What each category says",
            f"The information in the category, I({site}; x), shared among the categories: each "
            "one's share of the data times what being in it tells. The bars add up to the "
            f"whole. {bars}{more}",
            "Bars of equal length: categories that are equally many and equally sure. A short "
            f"one is rare, or holds {subject.nouns} that are between two categories.",
            figure,
        )
    sentence = (
        f"What each dimension of {site} says of which {subject.noun} it is, by itself, the most "
        f"informative first. {bars}"
    )
    if cost is not None and bool(cost.isfinite().any()):
        sentence += " The stroke is its KL, what it costs"
        sentence += ", the category known." if subject.category else "."
    look_for = (
        f"Where the bars end, the {kinds} end that the model uses. They need not add up to the "
        "whole: two that say the same are counted twice."
    )
    if subject.category:
        look_for += " A bar beyond its stroke: that dimension also tells the category."
    else:
        look_for += (
            " A stroke far beyond its bar: a dimension whose codes as a whole are not "
            "spread as the prior is."
        )
    return Panel(
        f"information_{site}",
        f"What each dimension of {site} says",
        sentence + more,
        look_for,
        figure,
    )


def _intervals(subject: Subject) -> Iterator[tuple[str, tuple[float, float]]]:
    sites = list(subject.codes)
    names = {"code": ""} if len(sites) > 1 else {}
    names |= {site: f"_{site}" for site in sites}
    for place, (name, suffix) in enumerate(names.items()):
        whole = place == 0  # a code of one site is that site
        kinds = {"": f"mi{suffix}", ", model": f"generative_mi{suffix}"}
        if whole:
            kinds = {"": kinds[""], ", fitted": "fitted_mi", ", model": kinds[", model"]}
        for end, key in kinds.items():
            bounds = _bounds(subject.metrics, key)
            if any(map(math.isfinite, bounds)):
                yield f"I({name}; x){end}", bounds


def _bounds(metrics: Mapping[str, float], key: str) -> tuple[float, float]:
    return metrics.get(f"{key}_lower", math.nan), metrics.get(f"{key}_upper", math.nan)
