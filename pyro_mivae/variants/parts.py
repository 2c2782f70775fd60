"""What a variant makes of the parts that it is given."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributions import Independent, constraints
from torch.nn.functional import one_hot

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood

if TYPE_CHECKING:
    from pyro_mivae.variants.base import Variant


def site_size(fn: Any) -> int:
    """Returns how many values a site has, or how many categories."""
    if fn.has_enumerate_support:
        return int(fn.probs.shape[-1])
    return int(fn.event_shape.numel())


def is_bounded(fn: Any) -> bool:
    """Tells whether a site lives on the unit interval."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn.support is constraints.unit_interval


def find_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Gives a likelihood by name; one that is an instance is handed back."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        told = likelihood.__name__ if inspect.isclass(likelihood) else repr(likelihood)
        own = ", or an instance, such as mi.GaussianLikelihood(0.1)"
        raise OptionError(
            f"likelihood={told}: allowed are {', '.join(LIKELIHOODS)}"
            + ("" if isinstance(likelihood, str) else own)
        )
    return LIKELIHOODS[likelihood]()


def code_value(vae: Variant, name: str, code: Tensor, n: int) -> Tensor:
    """Returns values of a site, given as `Variant.decode` takes them, as the model takes them."""
    code, size = code.to(vae.device), vae.sites[name]
    is_category = name in vae.one_hot
    if is_category and code.shape == (n,) and not code.is_floating_point():
        return category_value(vae, name, code.long())
    probabilities = is_category and code.shape == (n, size)
    if not probabilities and (is_category or code.shape[:1] != (n,) or code.numel() != n * size):
        numbers = f", or its numbers, integers of shape ({n},)" if is_category else ""
        raise ShapeError(
            f"codes[{name!r}] has dtype {code.dtype} and shape {tuple(code.shape)}; give values "
            f"of shape ({n}, {size}){numbers}"
        )
    return category_value(vae, name, code.argmax(-1)) if is_category else code.to(vae.dtype)


def category_value(vae: Variant, name: str, index: Tensor) -> Tensor:
    """Returns values of a category, one-hot where the prior's are."""
    count = vae.sites[name]
    wrong = index[(index < 0) | (index >= count)]
    if len(wrong):
        raise OptionError(f"category={int(wrong[0])}: allowed are 0 to {count - 1}")
    index = index.to(vae.device)
    return one_hot(index, count).to(vae.dtype) if vae.one_hot[name] else index
