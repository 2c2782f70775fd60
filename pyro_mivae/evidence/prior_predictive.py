"""Prior predictive draws: data that a model draws, each with its code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_mivae.handlers import push_forward
from pyro_mivae.posterior.draws import join
from pyro_mivae.posterior.layout import ProbedPair, observed_sites, run_pair
from pyro_mivae.sites import data_sites
from pyro_mivae.traces import is_deterministic, replay_model, trace_program


class PriorPredictive(NamedTuple):
    """Data drawn from a model, each with the code that it was drawn with."""

    x: Tensor  # sampled from the likelihood, (n, ...)
    code: dict[str, Tensor]  # the value of every site, (n, *event)
    log_likelihood: Tensor  # log p(x | code), float64, (n,)
    observed: str  # the site of the data
    distribution: str  # name of what they were sampled from


def generate(pair: ProbedPair, x: Tensor, items: int) -> PriorPredictive:
    """Draws codes from the prior, and data like x from the likelihood, not its mean."""
    program = push_forward(pair.model, lambda fn: fn.sample())
    parts = []
    for places in (torch.arange(items, device=x.device) % len(x)).split(pair.batch_size):
        trace = trace_program(program, (x[places],), {})
        (name,) = data_sites(trace)
        fn, value = trace.nodes[name]["fn"], trace.nodes[name]["value"].to(x.dtype)
        code = {site: trace.nodes[site]["value"] for site in pair.layout.latent}
        likelihood = fn.log_prob(value).double()
        parts.append(PriorPredictive(value, code, likelihood, name, _public_name(fn)))
    return join(parts)


def why_undefined(probed: ProbedPair, x: Tensor) -> str | None:
    """Returns why the model cannot draw data, or why their information has no bounds."""
    layout = probed.layout
    if layout.deterministic:
        return f"the guide makes {', '.join(layout.deterministic)} a function of the data"
    if layout.unscored:
        return layout.why_unscored
    if layout.conditional:
        return f"the prior of {', '.join(sorted(layout.conditional))} depends on the data"
    pair = run_pair(probed.model, probed.guide, x)
    observed = observed_sites(pair)
    if len(observed) > 1:
        return f"the model observes several sites, {', '.join(observed)}"
    (name,) = observed
    site = pair.model.nodes[name]
    if is_deterministic(site):
        return "the model makes the data, which have no density then, a function of the code"
    if site["value"].shape != x.shape or not torch.equal(site["value"], x):
        return f"the observed site {name} is not the model's argument itself"
    other = generate(replace(probed, batch_size=len(x)), x, len(x)).x
    again = replay_model(probed.model, pair.guide, (other,), {}, max_plate_nesting=1)
    for latent in (*pair.latent, name):
        before, after = pair.model.nodes[latent], again.nodes[latent]
        first, second = (node["fn"].log_prob(before["value"]) for node in (before, after))
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-4, equal_nan=True):
            return f"the model makes the site {latent} depend on the data that it is given"
    return None


def _public_name(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return next(c.__name__ for c in type(fn).__mro__ if not c.__name__.startswith("_"))
