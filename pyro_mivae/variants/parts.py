"""What a variant makes of the parts that it is given."""

from __future__ import annotations

from typing import Any

from torch.distributions import Independent, constraints

from pyro_mivae.errors import OptionError
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood


def site_size(fn: Any) -> int:
    """Returns how many values a site has, or how many categories.

    Args:
        fn: The site's distribution.
    """
    if fn.has_enumerate_support:
        return int(fn.probs.shape[-1])
    return int(fn.event_shape.numel())


def is_bounded(fn: Any) -> bool:
    """Tells whether a site lives on the unit interval.

    Args:
        fn: The site's distribution.
    """
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn.support is constraints.unit_interval


def find_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Gives a likelihood by name; one that is an instance is handed back.

    Args:
        likelihood: A likelihood or its name.

    Raises:
        OptionError: If there is none of this name.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise OptionError(
            f"likelihood {likelihood!r}: allowed are {', '.join(LIKELIHOODS)}, or an instance "
            "of Likelihood"
        )
    return LIKELIHOODS[likelihood]()
