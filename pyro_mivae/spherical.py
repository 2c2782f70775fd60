"""Distributions on the unit sphere: uniform, and power spherical."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Dirichlet, constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import register_kl
from torch.nn.functional import normalize

from pyro_mivae.arguments import checked, size
from pyro_mivae.errors import ShapeError

_EMPTY = torch.Size()
_LOG_2 = math.log(2.0)


class SphericalUniform(TorchDistribution):
    r"""The uniform distribution on the unit sphere :math:`S^{d-1}` of :math:`d` coordinates.

    Args:
        dim: :math:`d`, 2 or more: the dimension of the space around the sphere.
        like: A tensor of the same dtype and device.
        validate_args: True to check arguments; Pyro's global setting if omitted.

    Example:
        >>> uniform = SphericalUniform(2, torch.zeros(()))
        >>> round(float(uniform.log_prob(torch.tensor([0.6, 0.8])).exp()), 4)  # 1 / (2 pi)
        0.1592
    """

    arg_constraints = {}
    support = constraints.sphere
    has_rsample = True

    @checked(dim=size(least=2))
    def __init__(self, dim: int, like: Tensor, validate_args: bool | None = None) -> None:
        self._zeros = like.new_zeros(dim)
        super().__init__(_EMPTY, torch.Size([dim]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SphericalUniform:
        """Returns the distribution over a larger batch shape."""
        new = self._get_checked_instance(SphericalUniform, _instance)
        new._zeros = self._zeros
        shape, event = torch.Size(batch_shape), self.event_shape
        super(SphericalUniform, new).__init__(shape, event, validate_args=False)
        new._validate_args = self.__dict__.get("_validate_args")
        return new

    @property
    def mean(self) -> Tensor:
        """The centre of the sphere, which is not on it."""
        return self._zeros.expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, one of d equal parts."""
        return torch.full_like(self.mean, 1 / self.event_shape[0])

    def rsample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws the directions of normal vectors."""
        shape = self._extended_shape(torch.Size(sample_shape))
        drawn = torch.randn(shape, dtype=self._zeros.dtype, device=self._zeros.device)
        return normalize(drawn, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns minus the logarithm of the sphere's area."""
        if self._validate_args:
            self._validate_sample(value)
        return -self.entropy().expand(value.shape[:-1])

    def entropy(self) -> Tensor:
        """The differential entropy in nats, over the batch shape: the log of the sphere's area."""
        half = 0.5 * self.event_shape[0]
        area = _LOG_2 + half * math.log(math.pi) - math.lgamma(half)
        return self._zeros.new_full((), area).expand(self.batch_shape)


class Directions:
    r"""The map from points of :math:`R^d` to the sphere, :math:`z = u / |u|`, for annealing.

    With a length drawn independently, that of a draw of :math:`N(0, I)`, any density on the sphere
    is one of points: :math:`p(u) = p(z)\,A\,N(u; 0, I)` with the sphere's area :math:`A`.
    """

    def __call__(self, points: Tensor) -> Tensor:
        """Returns the directions of points."""
        return normalize(points, dim=-1)

    def inv(self, directions: Tensor) -> Tensor:
        """Draws a point of each direction."""
        return directions * torch.randn_like(directions).norm(dim=-1, keepdim=True)

    def log_abs_det_jacobian(self, points: Tensor, directions: Tensor) -> Tensor:
        """Returns the log-density of points less that of their directions."""
        uniform = SphericalUniform(points.shape[-1], points).log_prob(directions)
        normal = -0.5 * (points.square() + math.log(2 * math.pi)).sum(-1)
        return normal - uniform


class PowerSpherical(TorchDistribution):
    r"""A distribution about a direction, on the unit sphere :math:`S^{d-1}`.

    .. math:: p(x) = \frac{1}{Z} \left(\frac{1 + \mu^T x}{2}\right)^\kappa,\quad
        Z = (4 \pi)^{\beta} \frac{\Gamma(\alpha)}{\Gamma(\alpha + \beta)},\quad
        \alpha = \frac{d - 1}{2} + \kappa,\ \beta = \frac{d - 1}{2}

    It resembles the von Mises-Fisher distribution, but draws have an exact gradient and need no
    rejection. Concentration 0 is the uniform. At :math:`-\mu`, where the density is 0, its
    logarithm is that of the nearest number.

    Args:
        loc: The direction :math:`\mu`, of length 1, shape ``(..., d)``, :math:`d` 2 or more.
        concentration: :math:`\kappa`, 0 or more, shape ``(...)``.
        validate_args: True to check arguments; Pyro's global setting if omitted.

    Raises:
        ShapeError: If the direction has one coordinate.

    References:
        De Cao & Aziz (2020), The Power Spherical Distribution, eq. 4, 7 and 9, and algorithm 1.
        https://arxiv.org/abs/2006.04437

    Example:
        >>> fn = PowerSpherical(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(2.0))
        >>> [round(value, 3) for value in fn.mean.tolist()]
        [0.0, 0.0, 0.5]
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.nonnegative}
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.dim() < 1 or loc.shape[-1] < 2:
            raise ShapeError(
                f"loc has shape {tuple(loc.shape)}; a direction needs 2 coordinates or more"
            )
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.concentration = concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PowerSpherical:
        """Returns the distribution over a larger batch shape."""
        shape = torch.Size(batch_shape)
        loc = self.loc.expand(shape + self.event_shape)
        given = self.__dict__.get("_validate_args")
        return type(self)(loc, self.concentration.expand(shape), validate_args=given)

    @property
    def _beta(self) -> float:
        return 0.5 * (self.event_shape[0] - 1)

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`\mu\,\kappa / (d - 1 + \kappa)`, which lies inside the sphere."""
        share = self.concentration / (2 * self._beta + self.concentration)
        return share.unsqueeze(-1) * self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate."""
        alpha = self._beta + self.concentration
        across = 2 * alpha / ((alpha + self._beta) * (alpha + self._beta + 1))  # E[x_i^2] there
        across = across.unsqueeze(-1)
        along = (1 - (2 * self._beta + 1) * across) * self.loc.square()
        return (across + along - self.mean.square()).clamp(min=0.0)

    @property
    def mode(self) -> Tensor:
        """The direction."""
        return self.loc

    def rsample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws, with a gradient: a height along the direction, and a direction across."""
        shape = self._extended_shape(torch.Size(sample_shape))
        loc, concentration = self.loc.expand(shape), self.concentration.expand(shape[:-1])
        beta = torch.full_like(concentration, self._beta)
        # Both shares of a Dirichlet, as 1 minus the first loses the second's digits; its gradient
        # is NaN in single precision for large concentrations.
        shares = Dirichlet(torch.stack([beta + concentration, beta], -1).double()).rsample()
        high, low = shares.to(loc).clamp(min=torch.finfo(loc.dtype).tiny).unbind(-1)
        across = normalize(torch.randn_like(loc[..., 1:]), dim=-1)
        # A reflection takes one end of the first axis to the direction: the end far from it, so
        # that the mirror's normal is never short.
        end = 1 - 2 * (loc[..., :1] > 0).to(loc)
        drawn = torch.cat(
            [end * (high - low).unsqueeze(-1), 2 * (high * low).sqrt().unsqueeze(-1) * across], -1
        )
        normal = torch.cat([end - loc[..., :1], -loc[..., 1:]], -1)
        length = normal.square().sum(-1, keepdim=True)
        return drawn - 2 * normal * (normal * drawn).sum(-1, keepdim=True) / length

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density of directions with respect to the sphere's area, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        # (1 + cos) / 2 = 1 - |x - mu|^2 / 4, in which near the direction nothing is lost.
        away = 0.25 * (value - self.loc).square().sum(-1)
        away = away.clamp(max=1 - torch.finfo(away.dtype).eps / 2)
        return self.concentration * torch.log1p(-away) - self._log_area().to(away)

    def entropy(self) -> Tensor:
        """The differential entropy in nats, over the batch shape."""
        concentration = self.concentration.double()
        alpha = self._beta + concentration
        fall = torch.digamma(alpha) - torch.digamma(alpha + self._beta)
        return (self._log_area() - concentration * fall).to(self.concentration.dtype)

    def _log_area(self) -> Tensor:
        """The logarithm of Z, in double precision as large numbers cancel."""
        alpha = self._beta + self.concentration.double()
        ratio = torch.lgamma(alpha) - torch.lgamma(alpha + self._beta)
        return ratio + self._beta * math.log(4 * math.pi)


@register_kl(PowerSpherical, SphericalUniform)  # type: ignore[untyped-decorator]
def _kl_power_spherical_uniform(q: PowerSpherical, p: SphericalUniform) -> Tensor:
    return p.entropy() - q.entropy()
