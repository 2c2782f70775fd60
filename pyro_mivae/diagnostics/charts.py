"""Coordinates of a distribution's support, in which codes have a density on R^d."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform, identity_transform


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

    An interval whose ends vary with the datum is left as it is: its values are points of R^d.
    """
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    if support is None or support.is_discrete:
        return None
    ends = [getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound")]
    if isinstance(support, type(constraints.real)) or any(
        isinstance(e, Tensor) and e.numel() > 1 for e in ends
    ):
        return identity_transform
    try:
        bijection: Transform = biject_to(support)
    except NotImplementedError:
        return None
    return bijection


def num_coordinates(support: Constraint, event_shape: torch.Size) -> int | None:
    """Returns the dimension of a continuous support; None where it has no `chart`."""
    bijection = chart(support)
    return None if bijection is None else bijection.inverse_shape(torch.Size(event_shape)).numel()


def coordinates(values: Tensor, support: Constraint | None) -> tuple[Tensor, Tensor] | None:
    r"""Turns values into coordinates, where densities have the factor :math:`|dz / du|`.

    Example:
        >>> place, slope = coordinates(torch.tensor([[0.2, 0.3, 0.5]]), constraints.simplex)
        >>> tuple(place.shape), round(slope.exp().item(), 4)
        ((1, 2), 0.03)
    """
    bijection = chart(support)
    if bijection is None:
        return None
    values = values.double()
    try:
        place = bijection.inv(values)
        slope = bijection.log_abs_det_jacobian(place, values)
    except NotImplementedError:
        return None
    place = place.reshape(len(values), -1)
    if not (place.isfinite().all() and slope.isfinite().all()):
        return None
    return place, slope.reshape(len(values), -1).sum(1)
