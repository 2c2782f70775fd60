"""What the code costs and what it gives back: distortion, rate, ELBO, log-likelihood."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_mivae.diagnostics.context import UNDEFINED, Context, Figure, Figures, mean_of
from pyro_mivae.diagnostics.draws import Draws, importance_weighted

ACTIVE = 0.01  # variance of the posterior mean from which a dimension counts as active


def costs(context: Context, draws: Draws) -> Figures:
    """Measures distortion, rate, ELBO, log-likelihood and every site's KL divergence."""
    elbo = -draws.distortion - draws.rate
    figures = {
        "distortion": mean_of(draws.distortion),
        "rate": mean_of(draws.rate),
        "elbo": mean_of(elbo),
        "log_px": _log_likelihood(context, elbo),
    }
    for name, divergence in draws.divergences.items():
        figures[f"kl_{name}"] = mean_of(divergence)
    return figures


def active_units(context: Context, draws: Draws) -> Figures:
    """Counts the dimensions whose posterior mean varies with the datum."""
    layout = context.layout
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
    each = {f"active_units_{name}": count for name, count in counts.items()}
    return {"active_units": float(sum(counts.values())), **each}


def _log_likelihood(context: Context, elbo: Tensor) -> Figure:
    items = context.choose(context.iwae_items)
    context.protocol["iwae_samples"] = context.iwae_samples
    context.protocol["iwae_items"] = len(items)
    if elbo.isnan().any():
        return UNDEFINED
    bound, same_draws = importance_weighted(
        context.model,
        context.guide,
        context.take(items),
        num_samples=context.iwae_samples,
        batch_size=context.codes_at_once,
    )
    if len(items) == len(context.x):
        return mean_of(bound)
    gain, error = mean_of(bound - same_draws)
    mean, elbo_error = mean_of(elbo)
    return mean + gain, math.hypot(error, elbo_error)
