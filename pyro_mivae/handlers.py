"""Effect handlers: site weights for a partial KL, and runs of a model from its prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from pyro_mivae.arguments import checked, function, named, number_or_schedule, numbers
from pyro_mivae.errors import SiteError
from pyro_mivae.schedules import Weight
from pyro_mivae.sites import Site, fixed_mean, is_auxiliary, is_note

OWN_SUFFIXES = ("_unconstrained", "_aux")  # of auxiliary sites, by AutoNormal, AutoStructured


def are_equal(weights: Iterable[Weight | None]) -> bool:
    """True if all weights are the same; None is the weight 1."""
    return len({1.0 if w is None else w.identity for w in weights}) <= 1


class SiteWeightMessenger(Messenger):
    """Scales the log-probability of chosen sample sites, see `weigh_sites`."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        super().__init__()
        self.weights = weights

    def __enter__(self) -> Any:
        self._names: set[str] = set()
        self._owners: set[str] = set()
        self._shared: str | None = None
        return super().__enter__()

    def __exit__(self, *raised: Any) -> Any:
        handled = super().__exit__(*raised)  # before an error, or the handler stays in force
        unknown = sorted(self.weights.keys() - self._names - self._owners)
        if unknown and raised[0] is None and not self._shared:
            raise SiteError(
                f"weights of the sites {unknown} are given, but the program has sampled "
                f"{sorted(self._names)}; give the weights of some of these"
            )
        return handled

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        self._names.add(name)
        weight = self.weights.get(name)
        if not msg["is_observed"] and self.weights:
            if is_auxiliary(msg):
                weight = self._of_auxiliary(name)
            elif isinstance(msg["fn"], Delta) and self._shared and name not in self._owners:
                self._check_shared([*self.weights.values(), weight])
        if weight is None:
            return
        if weight.is_zero:
            msg["mask"] = False
        else:
            msg["scale"] = msg["scale"] * weight()

    def _of_auxiliary(self, name: str) -> Weight | None:
        """The weight of the latent sites that an auxiliary site serves."""
        for suffix in OWN_SUFFIXES:
            if name.endswith(suffix):
                owner = name.removesuffix(suffix)
                self._owners.add(owner)
                return self.weights.get(owner)
        self._shared = name
        self._check_shared(self.weights.values())
        return next(iter(self.weights.values()))

    def _check_shared(self, weights: Iterable[Weight | None]) -> None:
        if not are_equal(weights):
            raise SiteError(
                f"the guide draws the auxiliary site {self._shared!r} for several latent sites, "
                f"and {sorted(self.weights)} have own weights, but one common divergence; "
                "give all of them the same weight, or draw each one separately, as AutoNormal does"
            )


@checked(fn=function("fn(x)"), weights=named(number_or_schedule(least=0)))
def weigh_sites(
    fn: Callable[..., Any], weights: Mapping[str, float | Weight]
) -> Callable[..., Any]:
    r"""Scales the log-probability of the named sample sites of a model or guide: the partial KL.

    Applied to both model and guide, it changes any ELBO of Pyro to :math:`E_q[\log p(x\mid code)]
    - \sum_s \beta_s KL_s`. A positive weight acts as ``poutine.scale`` on that site only, the
    constant 0 as ``poutine.mask(mask=False)``.

    The auxiliary site that AutoNormal or AutoStructured draws for a latent site gets its weight.
    Another auxiliary site may serve several latent sites, and needs one weight for all.

    Args:
        fn: A model or a guide.
        weights: The weight of each site, 0 or more; sites not named keep weight 1.

    Raises:
        SiteError: When the program runs, if it has no site of that name, or if one auxiliary site
            serves latent sites of different weights.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))
        >>> trace = pyro.poutine.trace(weigh_sites(model, {"z": 0.0})).get_trace()
        >>> float(trace.log_prob_sum())
        0.0
    """
    held = {name: w if isinstance(w, Weight) else Weight(w) for name, w in weights.items()}
    return SiteWeightMessenger(held)(fn)


class SubstituteMessenger(Messenger):
    """Replaces sampled and observed values by a function of the site; None leaves it as it is."""

    def __init__(self, value_of: Callable[[Site], Tensor | None]) -> None:
        super().__init__()
        self.value_of = value_of

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or site_is_factor(msg) or is_note(msg):
            return
        value = self.value_of(msg)
        if value is not None:
            msg["value"], msg["done"] = value, True


@checked(fn=function("fn(x)"), observed=function("observed(distribution)"))
def push_forward(
    fn: Callable[..., Any], observed: Callable[[Any], Tensor] | None = None
) -> Callable[..., Any]:
    """Runs a model from its prior: draws latent sites and generates observed ones."""
    make = observed or (lambda fn: fn.mean)
    return SubstituteMessenger(lambda s: make(s["fn"]) if s["is_observed"] else None)(fn)


@checked(fn=function("fn(x)"), values=named(numbers(finite=False)))
def decode_means(fn: Callable[..., Any], values: Mapping[str, Tensor]) -> Callable[..., Any]:
    """Runs a model with given values at some latent sites and the prior mean at all others.

    A category takes its mode, because its mean lies outside its support. A site without a known
    mean, such as a flow, takes the mean of 100 draws with a fixed seed. The likelihood's mean
    replaces the observed data.
    """

    def value_of(site: Site) -> Tensor:
        if site["name"] in values and not site["is_observed"]:
            return values[site["name"]]
        is_category = site["fn"].has_enumerate_support and not site["is_observed"]
        value: Tensor = site["fn"].mode if is_category else fixed_mean(site["fn"])
        return value

    return SubstituteMessenger(value_of)(fn)


def relax_categories(fn: Callable[..., Any], relax: Callable[[Any], Tensor]) -> Callable[..., Any]:
    """Replaces the value of every enumerable site that is annotated for enumeration."""

    def value_of(site: Site) -> Tensor | None:
        is_category = site["infer"].get("enumerate") == "parallel" and not site["is_observed"]
        return relax(site["fn"]) if is_category else None

    return SubstituteMessenger(value_of)(fn)
