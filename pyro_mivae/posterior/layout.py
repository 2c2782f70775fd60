"""Layout of a model/guide pair: its sites, their supports, and requirements on them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from pyro.infer import config_enumerate
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor
from torch.distributions import Distribution, biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform, identity_transform

from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.priors import base_of
from pyro_mivae.traces import Program, TracePair


@dataclass(frozen=True)
class SiteLayout:
    """Sites of a model/guide pair and what they depend on, as `probe` finds them."""

    latent: tuple[str, ...]  # every site of the code, in the guide's order
    enumerated: tuple[str, ...]  # those whose support is summed out
    deterministic: tuple[str, ...]  # those that are point masses
    drawn: tuple[str, ...]  # those that are drawn and have a density
    free: frozenset[str]  # those whose distribution in the guide depends on no drawn site
    # Those that depend on no other site, in guide and model, and whose prior is the same for all
    # data: their KL divergence bounds their information from above.
    alone: frozenset[str]
    branching: frozenset[str]  # those that depend on enumerated sites in the guide
    sizes: tuple[int, ...]  # of the enumerated dimensions, from left to right
    conditional: frozenset[str] = frozenset()  # those whose prior depends on the data
    unscored: Mapping[str, str] = field(default_factory=dict)  # why sites have no density
    meanless: frozenset[str] = frozenset()  # those without a mean in closed form in the guide
    supports: Mapping[str, Constraint | None] = field(default_factory=dict)  # None: unknown

    @property
    def num_configurations(self) -> int:
        """Number of joint values of the enumerated sites; 1 without such sites."""
        return math.prod(self.sizes)

    @property
    def why_unscored(self) -> str | None:
        """Reason that whole codes cannot be scored; None if they can."""
        return "; ".join(dict.fromkeys(self.unscored.values())) or None

    def is_known(self, *names: str) -> bool:
        """True if the density of these sites, given the datum alone, is a finite sum."""
        summed = self.enumerated if self.branching.intersection(names) else ()
        return self.free.issuperset((*names, *summed)) and not self.unscored.keys() & {*names}

    def flatten(self, value: Tensor, batch: int, event: tuple[int, ...] = ()) -> Tensor:
        """Flattens the enumerated dimensions to one."""
        expanded = value.expand((*self.sizes, batch, *event))
        return expanded.reshape(self.num_configurations, batch, *event)

    def without(self, names: Collection[str]) -> SiteLayout:
        """Layout without some sites, whose values are then given."""
        parts = ("latent", "enumerated", "drawn", "deterministic")
        rest: dict[str, Any] = {
            p: tuple(s for s in getattr(self, p) if s not in names) for p in parts
        }
        # Enumerated dimensions go leftwards in the order of the guide.
        sizes = zip(reversed(self.enumerated), self.sizes, strict=True)
        return replace(self, **rest, sizes=tuple(size for n, size in sizes if n not in names))


@dataclass(frozen=True)
class ProbedPair:
    """A model/guide pair with its layout."""

    model: Program
    guide: Program
    layout: SiteLayout
    device: torch.device = torch.device("cpu")  # of the programs
    batch_size: int = 1024  # decoded codes at once

    @property
    def data_at_once(self) -> int:
        """Number of data per run with all configurations laid out."""
        return max(1, self.batch_size // self.layout.num_configurations)


def run_pair(model: Program, guide: Program, x: Tensor) -> TracePair:
    """Runs the pair with every enumerable site of the guide laid out left of the data plate."""
    guide = config_enumerate(guide, default="parallel")
    return TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)


def leading(fn: Any) -> int:
    """Returns the number of distributions per datum."""
    return math.prod(fn.batch_shape[:-1])


def factors(fn: Distribution) -> Distribution | None:
    """Returns the distribution of each coordinate if they are independent, else None."""
    fn = base_of(fn)
    return None if fn.event_shape else fn


def support_of(fn: Distribution) -> Constraint | None:
    """Returns the support of a distribution; None where it is not known."""
    try:
        support: Any = fn.support
        support.is_discrete  # noqa: B018
    except (AttributeError, NotImplementedError):
        return None
    return support if isinstance(support, Constraint) else None


def chart(support: Constraint | None) -> Transform | None:
    """Returns a bijection from R^k onto a continuous support, the same for all data.

    An interval with ends that depend on the datum is not transformed.
    """
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    if support is None or support.is_discrete:
        return None
    ends = [getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound")]
    if isinstance(support, type(constraints.real)) or any(
        isinstance(end, Tensor) and end.numel() > 1 for end in ends
    ):
        return identity_transform
    try:
        bijection: Transform = biject_to(support)
    except NotImplementedError:
        return None
    return bijection


def coordinates(values: Tensor, support: Constraint | None) -> tuple[Tensor, Tensor] | None:
    r"""Turns values into points of R^k, whose densities have the factor :math:`|dz / du|`."""
    bijection = chart(support)
    if bijection is None:
        return None
    values = values.double()
    try:
        place = bijection.inv(values)
        slope = bijection.log_abs_det_jacobian(place, values)
    except NotImplementedError:
        return None
    if not (place.isfinite().all() and slope.isfinite().all()):
        return None
    return place.reshape(len(values), -1), slope.reshape(len(values), -1).sum(1)


class WholePlates(Messenger):
    """Raises a `SiteError` for plates that draw their own mini-batch."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if type(fn).__name__ == "_Subsample" and (fn.subsample_size or fn.size) < fn.size:
            raise SiteError(
                f"plate {msg['name']!r} draws {fn.subsample_size} of {fn.size} data; the report "
                "scores each datum that it is given: use pyro.plate('data', len(x)), or pass the "
                "rows as pyro.plate('data', size, subsample=x)"
            )


def check_signature(role: str, program: Program) -> None:
    """Refuses a program that needs more than the data."""
    try:
        inspect.signature(program).bind(None)
    except TypeError as error:
        raise SiteError(
            f"the {role} cannot be called with the data alone ({error}); wrap it, as in "
            f"lambda x: {role}(x, option), and put what belongs to each datum into x"
        ) from None


def check_plate(name: str, fn: Any, batch: int, sizes: tuple[int, ...]) -> None:
    """Refuses a site that is not in one plate over the data."""
    shape = tuple(fn.batch_shape)
    expected = (*sizes, batch)
    padded = (1,) * (len(expected) - len(shape)) + shape
    fits = len(padded) == len(expected) and shape[-1:] == (batch,)
    if not fits or any(got not in (1, want) for got, want in zip(padded, expected)):
        enumerated = f" (and {sizes} to its left for enumerated sites)" if sizes else ""
        raise ShapeError(
            f"site {name!r}: expected batch shape {(batch,)} from one plate over the data"
            f"{enumerated}, got {shape}; sample it inside pyro.plate('data', len(x)), and move "
            "other dimensions into the event by .to_event()"
        )


def check_match(name: str, q: Distribution, p: Distribution) -> None:
    """Refuses densities of guide and model with respect to different measures."""
    if has_point_mass(q):
        return
    kinds = [_measure(fn) for fn in (q, p)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise SiteError(
            f"site {name!r} is {kinds[0]} in the guide ({type(q).__name__}) and {kinds[1]} in "
            f"the model ({type(p).__name__}), so log q - log p has no meaning; use distributions "
            "of one kind in both, for a category pyro's OneHotCategorical, which the report "
            "sums out"
        )


def check_values(name: str, q: Distribution, p: Distribution) -> None:
    """Refuses a category of the model with values that the guide does not have."""
    if not p.has_enumerate_support:
        return
    supports = [fn.enumerate_support(expand=False) for fn in (q, p)]
    ours, theirs = (values.reshape(len(values), -1) for values in supports)
    if not all(bool((ours == value).all(1).any()) for value in theirs):
        raise SiteError(
            f"site {name!r} has {len(theirs)} values in the model, and the guide has {len(ours)}, "
            "not all of them among these; give it the same values in both"
        )


def has_point_mass(fn: Distribution) -> bool:
    """True if a distribution is a Delta, or built from one."""
    parts = [part for part in vars(fn).values() if isinstance(part, Distribution)]
    return isinstance(fn, pyro.distributions.Delta) or any(map(has_point_mass, parts))


def _measure(fn: Distribution) -> str | None:
    """Kind of a distribution's support: discrete, or its dimension; None where unknown."""
    support = support_of(fn)
    if support is None or support.is_discrete:
        return None if support is None else "discrete"
    bijection = chart(support)
    if bijection is None:
        return None
    return f"{bijection.inverse_shape(Size(fn.event_shape)).numel()}-dimensional"
