"""A prior seen from outside: the sites that it samples, and its code."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch.distributions import Independent

from pyro_mivae.arguments import checked, function
from pyro_mivae.errors import SiteError
from pyro_mivae.traces import Program

PRIOR = function("prior(), such as mi.MixturePrior(...)")


@checked(prior=PRIOR)
def prior_sites(prior: Program) -> tuple[dict[str, Any], int]:
    """Runs a prior once and returns the distributions of its sites and the size of its code.

    Args:
        prior: A prior: called without arguments inside a plate, it samples the sites of the
            code and returns the tensor that the likelihood decodes.

    Returns:
        The distributions by site, for a batch of 1, and the size of the code's last dimension.

    Raises:
        OptionError: If the prior cannot be called.
        SiteError: If the prior samples nothing or returns no code of shape ``(batch, size)``.
    """
    prior = copy.deepcopy(prior)  # Pyro's modules must not run before they are part of a model

    def program() -> torch.Tensor:
        with pyro.plate("data", 1):
            code: torch.Tensor = prior()
            return code

    with torch.no_grad(), torch.random.fork_rng(devices=[]), poutine.block():
        with pyro.get_param_store().scope():
            trace = prune_subsample_sites(poutine.trace(program).get_trace())
    code = trace.nodes["_RETURN"]["value"]
    sites = {n: s["fn"] for n, s in trace.nodes.items() if s["type"] == "sample"}
    if not sites or not isinstance(code, torch.Tensor) or code.shape[:-1] != (1,):
        shape = tuple(code.shape) if isinstance(code, torch.Tensor) else type(code).__name__
        raise SiteError(
            f"the prior samples {list(sites)} and returns {shape} in a plate of size 1; sample "
            "one site or more and return the code that the likelihood decodes, shape (1, size)"
        )
    return sites, code.shape[-1]


def join(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """Joins the values of sites into one code; enumerated ones have a batch dimension more."""
    parts = list(values)
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, -1) for part in parts], -1)


def site_size(fn: Any) -> int:
    """Returns the number of values of a site, or of its categories."""
    return int(fn.probs.shape[-1] if fn.has_enumerate_support else fn.event_shape.numel())


def base_of(fn: Any) -> Any:
    """Returns the distribution of one element of a site."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
