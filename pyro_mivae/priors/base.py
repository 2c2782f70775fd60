"""Priors as others see them: their sites, and checks of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import broadcast_shape
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import Independent

from pyro_mivae.arguments import Given, checked, checker, function, several, text
from pyro_mivae.errors import SiteError
from pyro_mivae.traces import Program


@checker
def names(given: Given, count: int) -> list[str]:
    """A number of different names of sites, in order."""
    found = several(text(), least=count)(given.name, given.value)
    if len(set(found)) != count or len(found) != count:
        raise given.refused(f"{count} different names of sites")
    return found


PRIOR = function(
    "prior(), such as mi.MixturePrior(...); names of priors are for the command line alone"
)

_CURES = {
    "Shape mismatch inside plate": "end the distribution of each site with .to_event(1), so that "
    "its coordinates belong to one datum",
    "Multiple sample sites named 'data'": "leave pyro.plate out of it, as the plate over the data "
    "is open already, and give a site another name",
    "Multiple sample sites": "give each site a name of its own",
    "": "let it run alone, in pyro.plate('data', 1)",
}


@checked(prior=PRIOR)
def prior_sites(prior: Program) -> tuple[dict[str, Any], int]:
    """Runs a prior once, and returns the distributions of its sites and the size of its code.

    Args:
        prior: Called without arguments inside a plate, it samples the sites of the code and
            returns the tensor for the decoder. A prior that needs its variant's guide has a
            method ``outline``, which samples the same shapes without the guide. A prior with
            an attribute ``given_shape`` is called with conditions ``(batch, *given_shape)``.

    Returns:
        The distributions by site, for a batch of 1, and the size of the code's last dimension.

    Raises:
        SiteError: If the prior samples no site, or a site of more than one event per datum, or
            does not return a code of shape ``(batch, size)``.

    Example:
        >>> distributions, code_dim = prior_sites(mi.StandardNormalPrior(3, code_dim=2))
        >>> list(distributions), code_dim
        (['z', 'c'], 5)
    """
    prior = copy.deepcopy(prior)  # Pyro's modules must not run before they are part of a model
    run: Callable[..., Tensor] = getattr(prior, "outline", prior)
    dtype = next(iter(getattr(prior, "parameters", tuple)()), torch.zeros(())).dtype
    read = given_shape_of(prior)
    given = () if read is None else (torch.zeros(1, *read, dtype=dtype),)
    try:
        inspect.signature(getattr(run, "forward", run)).bind(*given)
    except TypeError as error:
        called = "without arguments" if read is None else "with the condition"
        raise SiteError(
            f"the prior {type(prior).__name__} is called {called} ({error}); a prior that reads "
            "the condition takes it as its only argument, and has an attribute given_shape, the "
            "shape of one"
        ) from None

    def program() -> Tensor:
        with pyro.plate("data", 1):
            return run(*given)

    with torch.no_grad(), torch.random.fork_rng(devices=[]), poutine.block():
        with pyro.get_param_store().scope():
            try:
                trace = prune_subsample_sites(poutine.trace(program).get_trace())
            except (ValueError, RuntimeError) as error:
                told = str(error).partition("\n")[0]
                remedy = next(cure for start, cure in _CURES.items() if told.startswith(start))
                raise SiteError(
                    f"the prior fails in a plate of size 1: {told}; {remedy}"
                ) from error
    code = trace.nodes["_RETURN"]["value"]
    sampled = {n: s for n, s in trace.nodes.items() if s["type"] == "sample"}
    sites = {n: s["fn"] for n, s in sampled.items() if not s["is_observed"]}  # without factors
    if not sites or not isinstance(code, Tensor) or code.shape[:-1] != (1,):
        shape = tuple(code.shape) if isinstance(code, Tensor) else type(code).__name__
        raise SiteError(
            f"the prior samples {list(sites)} and returns {shape} in a plate of size 1; sample "
            "one site or more and return the code that the likelihood decodes, shape (1, size)"
        )
    if "x" in sites:
        raise SiteError(
            "the prior samples a site 'x', which is the name of the data; give it another name"
        )
    return sites, code.shape[-1]


def given_shape_of(prior: Any) -> tuple[int, ...] | None:
    """Returns a prior's ``given_shape`` as a tuple; None for a prior that reads no condition."""
    shape = getattr(prior, "given_shape", None)
    return None if shape is None else tuple(shape)


def attach_prior(prior: Any, guide: Any, interval: tuple[float, float] | None) -> None:
    """Gives the guide and the interval of the data to a prior that reads them, see `VampPrior`."""
    attach = getattr(prior, "attach", None)
    if attach is not None:
        attach(guide, interval)


def hold(module: nn.Module, name: str, value: Tensor, *, learned: bool) -> None:
    """Keeps a tensor as a parameter if it is learned, else as a buffer."""
    if learned:
        setattr(module, name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)


def site_size(fn: Any) -> int:
    """Returns the number of elements of a site, or its number of categories.

    Example:
        >>> distributions, _ = prior_sites(mi.MixturePrior(5, latent_dim=10))
        >>> {name: site_size(fn) for name, fn in distributions.items()}
        {'c': 5, 'z': 10}
    """
    return int(fn.probs.shape[-1] if fn.has_enumerate_support else fn.event_shape.numel())


def base_of(fn: Any) -> Any:
    """Returns the distribution of one element of a site."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def join(values: Iterable[Tensor]) -> Tensor:
    """Concatenates values of sites to the code that a prior returns.

    A category that is summed out has a batch dimension of its own, on the left of the others; this
    broadcasts the values before it concatenates them.

    Args:
        values: Tensors of shapes ``(..., size)``, whose leading dimensions broadcast.

    Returns:
        The code, shape ``(..., total size)``.

    Example:
        >>> join([torch.zeros(3, 1, 3), torch.zeros(5, 2)]).shape  # a category of 3, a batch of 5
        torch.Size([3, 5, 5])
    """
    parts = list(values)
    batch = broadcast_shape(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, -1) for part in parts], -1)
