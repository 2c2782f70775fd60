"""A distribution on the unit interval of which the uniform is a special case."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl
from torch.distributions.transforms import Transform


class NormalCDFTransform(Transform):
    r"""The standard normal's distribution function :math:`\Phi`, from the real line to (0, 1).

    Values that would round to the ends of the interval are put at the numbers next to them.
    """

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormalCDFTransform)

    def _call(self, x: Tensor) -> Tensor:
        return _inside(torch.special.ndtr(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.special.ndtri(_inside(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the logarithm of the standard normal's density."""
        return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


class ProbitNormal(dist.TransformedDistribution):
    r"""Distribution of :math:`\Phi(u)` for :math:`u \sim N(\mu, \sigma^2)`, on the unit interval.

    :math:`\mu = 0, \sigma = 1` gives the uniform. The divergence of two of them is that of the two
    normals, since :math:`\Phi` is invertible.

    Example:
        >>> uniform = ProbitNormal(torch.zeros(()), torch.ones(()))
        >>> float(uniform.mean), float(uniform.log_prob(torch.tensor(0.9)))
        (0.5, 0.0)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        normal = dist.Normal(loc, scale, validate_args=validate_args)
        super().__init__(normal, NormalCDFTransform(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ProbitNormal:
        """Returns the same distribution over a larger batch shape."""
        new = self._get_checked_instance(ProbitNormal, _instance)
        return super().expand(batch_shape, _instance=new)

    loc = property(lambda self: self.base_dist.loc)
    scale = property(lambda self: self.base_dist.scale)

    @property
    def mean(self) -> Tensor:
        r""":math:`\Phi(\mu / \sqrt{1 + \sigma^2})`."""
        return torch.special.ndtr(self.loc / (1 + self.scale.square()).sqrt())


def _inside(y: Tensor) -> Tensor:
    info = torch.finfo(y.dtype)
    return y.clamp(info.tiny, 1 - info.eps / 2)


register_kl(ProbitNormal, ProbitNormal)(lambda p, q: kl_divergence(p.base_dist, q.base_dist))
