"""Prior predictive draws: data that a model draws, each with its code."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_mivae.handlers import push_forward
from pyro_mivae.posterior.draws import join
from pyro_mivae.posterior.layout import Layout, observed_sites, run_pair
from pyro_mivae.sites import data_sites
from pyro_mivae.traces import Program, is_deterministic, replay_model, trace_program


class PriorPredictive(NamedTuple):
    """Data drawn from a model, each with the code that it was drawn with.

    Attributes:
        x: The data, sampled from the likelihood, shape ``(n, ...)``.
        code: The value of every site, shape ``(n, *event)``.
        log_likelihood: :math:`log p(x | code)`, float64, shape ``(n,)``.
        observed: The site of the data.
        distribution: Name of the distribution that they were sampled from.
    """

    x: Tensor
    code: dict[str, Tensor]
    log_likelihood: Tensor
    observed: str
    distribution: str


def generate(
    model: Program, x: Tensor, items: int, layout: Layout, batch_size: int
) -> PriorPredictive:
    """Draws codes from the prior, and data from the likelihood, not its mean."""
    program = push_forward(model, lambda fn: fn.sample())
    parts = []
    for start in range(0, items, batch_size):
        places = torch.arange(start, min(items, start + batch_size), device=x.device) % len(x)
        trace = trace_program(program, (x[places],), {})
        (name,) = data_sites(trace)
        fn, value = trace.nodes[name]["fn"], trace.nodes[name]["value"].to(x.dtype)
        code = {site: trace.nodes[site]["value"] for site in layout.latent}
        likelihood = fn.log_prob(value).double()
        parts.append(PriorPredictive(value, code, likelihood, name, _public_name(fn)))
    return join(parts)


def why_undefined(model: Program, guide: Program, x: Tensor, layout: Layout) -> str | None:
    """Returns why the model cannot draw data, or why their information has no bounds."""
    if layout.deterministic:
        return f"the guide makes {', '.join(layout.deterministic)} a function of the data"
    if layout.unscored:
        return layout.why_unscored
    if layout.conditional:
        return f"the prior of {', '.join(sorted(layout.conditional))} depends on the data"
    pair = run_pair(model, guide, x)
    observed = observed_sites(pair)
    if len(observed) > 1:
        return f"the model observes several sites, {', '.join(observed)}"
    (name,) = observed
    site = pair.model.nodes[name]
    if is_deterministic(site):
        return "the model makes the data, which have no density then, a function of the code"
    if site["value"].shape != x.shape or not torch.equal(site["value"], x):
        return f"the observed site {name} is not the model's argument itself"
    other = generate(model, x, len(x), layout, len(x)).x
    again = replay_model(model, pair.guide, (other,), {}, max_plate_nesting=1)
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
