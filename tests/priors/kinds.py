"""Every prior, small, by name; and what the tests do with one."""

import pyro
import torch
from pyro import poutine

import pyro_mivae as mi
from pyro_mivae.priors import prior_sites

SHAPE = (1, 2, 3)
LEARNED = ("means", "weights", "scales")
KINDS = {
    "normal": lambda: mi.StandardNormalPrior(2),
    "laplace": lambda: mi.LaplacePrior(2),
    "student-t": lambda: mi.StudentTPrior(2, df=3.0),
    "uniform": lambda: mi.UniformPrior(1, 1),
    "mixture": lambda: mi.MixturePrior(2, 2, 2.0, category="k", site="w"),
    "learned mixture": lambda: mi.MixturePrior(3, 2, 2.0, LEARNED, means="random"),
    "marginal mixture": lambda: mi.MixturePrior(3, 2, 2.0, LEARNED, means="random", category=None),
    "stick-breaking": lambda: mi.StickBreakingPrior(3, 2, 2.0, means="random", category=None),
    "vamp": lambda: mi.VampPrior(SHAPE, 2, 4, learn_weights=True),
    "vamp with a category": lambda: mi.VampPrior(SHAPE, 2, 4, num_categories=3),
    "spherical": lambda: mi.SphericalPrior(3),
    "coupling": lambda: mi.FlowPrior(2, hidden_dims=(8,)),
    "autoregressive": lambda: mi.FlowPrior(2, "autoregressive", hidden_dims=(8,)),
    "spline": lambda: mi.FlowPrior(2, "spline", hidden_dims=(8,)),
    "hierarchical": lambda: mi.HierarchicalPrior(1, 1, hidden_dims=(8,), skip=True),
}
FLOWS = ("coupling", "autoregressive", "spline")
PLANE = ("normal", "student-t", "laplace", "marginal mixture", "stick-breaking", *FLOWS)
PLANE += ("hierarchical",)
"""Priors whose code has a density on the plane."""


def scattered(prior, by=0.2):
    """The prior, with parameters away from their start."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return prior.eval()


def draw(prior, n, **values):
    """A trace of n draws, with given values at some sites."""
    with pyro.plate("data", n):
        return poutine.trace(poutine.condition(prior, data=values)).get_trace()


def log_density(prior, code):
    """Log-density of codes on the plane, shape (n, 2)."""
    names = list(prior_sites(prior)[0])
    if len(names) == 1:
        values = {names[0]: code}
    else:
        values = {"z1": code[:, :1], "z2": code[:, 1:]}
    trace = draw(prior, len(code), **values)
    return sum(trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]) for n in values)


def variant(prior):
    """A variant for any prior: with the guide of its class."""
    category = getattr(prior, "category", None)
    if category is not None:
        return mi.CatVAE(SHAPE, prior=prior, warm_start=0)
    return mi.VAE(SHAPE, prior=prior)
