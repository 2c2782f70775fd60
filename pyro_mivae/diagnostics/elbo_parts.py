"""Distortion, rate, ELBO, log-likelihood and active units of a code."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pyro_mivae.diagnostics.context import (
    OWN_ANNEALED,
    UNDEFINED,
    Context,
    Figure,
    Figures,
    mean_of,
)
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.evidence.annealing import annealed_log_likelihood, bidirectional_monte_carlo
from pyro_mivae.evidence.annealing_path import Start
from pyro_mivae.evidence.importance import importance_weighted
from pyro_mivae.evidence.refined import RefinedGuide
from pyro_mivae.figures import key
from pyro_mivae.posterior.densities import Draws, draw_codes
from pyro_mivae.posterior.preserved_state import seeded
from pyro_mivae.progress import tell

ACTIVE = 0.01  # variance of the posterior mean from which a dimension counts as active


def costs(context: Context, draws: Draws) -> Figures:
    """Measures distortion, rate, ELBO, log-likelihood and every site's KL divergence."""
    elbo = -draws.distortion - draws.rate
    figures = {
        "distortion": mean_of(draws.distortion),
        "rate": mean_of(draws.rate),
        "elbo": mean_of(elbo),
        "log_px": UNDEFINED,
    }
    options = context.options
    items = context.choose(options.iwae_items)
    context.protocol["iwae_samples"] = options.iwae_samples
    context.protocol["iwae_items"] = len(items)
    if not elbo.isnan().any():
        bound, same_draws = importance_weighted(
            context.pair, context.take(items), options.iwae_samples
        )
        figures["log_px"] = _extended(bound, same_draws, elbo)
    for name, divergence in draws.divergences.items():
        figures[key("kl", name)] = mean_of(divergence)
    return figures


def annealed_evidence(context: Context, draws: Draws) -> Figures:
    """If requested, anneals some data, and data drawn from the model if none are annealed yet."""
    options, layout = context.options, context.pair.layout
    if not options.ais_items:
        return {}
    items = context.choose(options.ais_items)
    start: Start = "prior" if layout.deterministic or layout.unscored else "guide"
    given = context.pair.model, context.pair.guide, context.take(items)
    how: dict[str, Any] = {
        "start": start,
        "num_temperatures": options.ais_temperatures,
        "batch_size": options.batch_size,
        "seed": context.seed,
    }
    try:
        found = annealed_log_likelihood(
            *given, callback=partial(tell, "log p(x), annealed"), **how
        )
    except SiteError as reason:
        context.protocol["ais"] = f"not defined: {reason}"
        return {"log_px_ais": UNDEFINED, "log_px_ais_gap": UNDEFINED}
    context.protocol.update(
        ais=f"annealed from the {start}, Hamiltonian Monte Carlo",
        ais_items=len(items),
        ais_temperatures=options.ais_temperatures,
        ais_acceptance=found.acceptance,
        ais_acceptance_by_tenth=list(found.acceptance_by_part),
    )
    elbo = -draws.distortion - draws.rate
    figures = {"log_px_ais": _extended(found.log_px, elbo[items.to(elbo.device)], elbo)}
    if "ais_gap_items" in context.protocol:  # of `generative_information`
        return figures
    try:
        both = bidirectional_monte_carlo(
            *given, items=len(items), callback=partial(tell, OWN_ANNEALED), **how
        )
    except SiteError as reason:
        context.protocol["ais_gap"] = f"not defined: {reason}"
        return {**figures, "log_px_ais_gap": UNDEFINED}
    context.protocol["ais_gap_items"] = len(items)
    return {**figures, "log_px_ais_gap": mean_of(both.log_px_upper - both.log_px_lower)}


def amortization(context: Context, draws: Draws) -> Figures:
    """Measures what gradient steps on the posteriors of some data gain, if requested."""
    pair, count = context.pair, context.options.refine_items
    if not count:
        return {}
    try:
        refined = RefinedGuide(
            pair.model, pair.guide, batch_size=context.options.batch_size, seed=context.seed
        )
    except OptionError as reason:
        context.protocol["refined"] = f"not defined: {reason}"
        return {"amortization_gap": UNDEFINED}
    x = context.take(context.choose(count))
    elbos = []
    for guide in (pair.guide, refined):
        with seeded(context.seed, pair.device):  # the same draws
            found = draw_codes(replace(pair, guide=guide), x, context.options.num_samples or 1)
        elbos.append(-found.distortion - found.rate)
    context.protocol["refined"] = f"{refined.num_steps} gradient steps on each posterior"
    context.protocol["refined_items"] = len(x)
    return {"amortization_gap": mean_of(elbos[1] - elbos[0])}


def active_units(context: Context, draws: Draws) -> Figures:
    """Counts the dimensions whose posterior mean varies with the datum."""
    layout = context.pair.layout
    exact = layout.free - layout.meanless
    counts = {}
    for name in (*layout.drawn, *layout.deterministic):
        first, last = draws.means[0][name].double(), draws.means[-1][name].double()
        if len(first) < 2 or (len(draws.means) < 2 and name not in exact):
            counts[name] = math.nan
            continue
        # Two draws, where there is noise in them: their covariance is free of it.
        products = (first - first.mean(0)) * (last - last.mean(0))
        variance = products.sum(0) / (len(first) - 1)
        undefined = bool(variance.isnan().any())
        counts[name] = math.nan if undefined else float((variance > ACTIVE).sum())
    each = {key("active_units", name): count for name, count in counts.items()}
    return {"active_units": float(sum(counts.values())), **each}


def _extended(bound: Tensor, own_elbo: Tensor, elbo: Tensor) -> Figure:
    """Extends the mean of a bound from some data to all: the ELBO plus the mean gain over it."""
    if len(bound) == len(elbo) or elbo.isnan().any():
        return mean_of(bound)
    gain, error = mean_of(bound - own_elbo)
    mean, elbo_error = mean_of(elbo)
    return mean + gain, math.hypot(error, elbo_error)
