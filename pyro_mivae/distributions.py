"""Distributions on an interval, a mixture whose draws have a gradient, and KL divergences."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    Uniform,
    constraints,
    kl_divergence,
    register_kl,
)
from torch.distributions.transforms import Transform
from torch.distributions.utils import broadcast_all
from torch.special import ndtr, ndtri

_EMPTY = torch.Size()
_SQRT_HALF = math.sqrt(0.5)
_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class NormalCDFTransform(Transform):
    r"""The standard normal's distribution function :math:`\Phi`, from the real line to (0, 1).

    Values that round to an end of the interval are moved to the next number inside.

    Example:
        >>> NormalCDFTransform()(torch.zeros(2))
        tensor([0.5000, 0.5000])
    """

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormalCDFTransform)

    def _call(self, x: Tensor) -> Tensor:
        return _inside(ndtr(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return ndtri(_inside(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the logarithm of the standard normal's density."""
        return -0.5 * x.square() - _HALF_LOG_TAU


class ProbitNormal(dist.TransformedDistribution):
    r"""Distribution of :math:`\Phi(u)` for :math:`u \sim N(\mu, \sigma^2)`, on the unit interval.

    :math:`\mu = 0, \sigma = 1` gives the uniform. The KL divergence of two of them is that of the
    two normals, since :math:`\Phi` is invertible.

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
        return ndtr(self.loc / (1 + self.scale.square()).sqrt())


def _inside(y: Tensor) -> Tensor:
    info = torch.finfo(y.dtype)
    return y.clamp(info.tiny, 1 - info.eps / 2)


register_kl(ProbitNormal, ProbitNormal)(lambda p, q: kl_divergence(p.base_dist, q.base_dist))


class TruncatedNormal(TorchDistribution):
    r"""A normal distribution, cut off outside an interval and normalised there.

    .. math:: q(u) = \frac{N(u; loc, scale^2)}{Z},\quad
        Z = \Phi(\beta) - \Phi(\alpha),\quad
        \alpha = \frac{low - loc}{scale},\ \beta = \frac{high - loc}{scale}

    For a large scale it is nearly uniform. ``loc``, the mode, must lie in the interval, since
    :math:`Z` underflows far outside.

    Args:
        loc: The mode, from ``low`` to ``high``.
        scale: Standard deviation before truncation, positive.
        low: Lower end.
        high: Upper end.
        validate_args: True to check arguments; Pyro's global setting if omitted.

    Example:
        >>> fn = TruncatedNormal(torch.tensor(0.5), torch.tensor(1e3), -1.0, 1.0)
        >>> round(float(fn.log_prob(torch.tensor(0.2)).exp()), 4)  # nearly uniform
        0.5
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        low: float = -1.0,
        high: float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.low, self.high = low, high
        self._alpha = (low - self.loc) / self.scale
        self._beta = (high - self.loc) / self.scale
        # The ends lie on two sides of the mode: nothing cancels.
        below, above = (torch.erf(_SQRT_HALF * end) for end in (self._alpha, self._beta))
        self._mass = 0.5 * (above - below)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """The interval."""
        return constraints.interval(self.low, self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """Returns the distribution over a larger batch shape."""
        shape = torch.Size(batch_shape)
        return type(self)(
            self.loc.expand(shape),
            self.scale.expand(shape),
            self.low,
            self.high,
            validate_args=self.__dict__.get("_validate_args"),
        )

    @property
    def mean(self) -> Tensor:
        """The mean, over the batch shape."""
        return (self.loc + self.scale * self._shift).clamp(self.low, self.high)

    @property
    def mode(self) -> Tensor:
        """The most probable value, over the batch shape."""
        return self.loc.clamp(self.low, self.high)

    @property
    def variance(self) -> Tensor:
        """The variance, over the batch shape."""
        return self.scale.square() * (1.0 + self._ends / self._mass - self._shift.square())

    def rsample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws by the inverse distribution function, with a gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        share = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        place = ndtr(self._alpha) + share * self._mass
        eps = torch.finfo(place.dtype).eps
        drawn = self.loc + self.scale * ndtri(place.clamp(eps, 1.0 - eps))
        return drawn.clamp(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density of values within the interval, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        square = 0.5 * ((value - self.loc) / self.scale).square()
        return -square - self.scale.log() - _HALF_LOG_TAU - self._mass.log()

    def entropy(self) -> Tensor:
        """The differential entropy in nats, over the batch shape."""
        log_mass = (self.scale * self._mass).log()
        return 0.5 + _HALF_LOG_TAU + log_mass + 0.5 * self._ends / self._mass

    @property
    def _shift(self) -> Tensor:
        """Distance of the mean from the mode, in scales."""
        squares = (self._beta - self._alpha) * (self._beta + self._alpha)
        difference = torch.where(
            squares > 0,
            -_density(self._alpha) * torch.expm1(-0.5 * squares.clamp(min=0.0)),
            _density(self._beta) * torch.expm1(0.5 * squares.clamp(max=0.0)),
        )
        return difference / self._mass

    @property
    def _ends(self) -> Tensor:
        return self._alpha * _density(self._alpha) - self._beta * _density(self._beta)


@register_kl(TruncatedNormal, Uniform)  # type: ignore[untyped-decorator]
def _kl_truncated_normal_uniform(q: TruncatedNormal, p: Uniform) -> Tensor:
    """Closed-form KL divergence; infinity unless the uniform's support contains the interval."""
    divergence: Tensor = (p.high - p.low).log() - q.entropy()
    covered = (p.low <= q.low) & (p.high >= q.high)
    return torch.where(covered, divergence, torch.full_like(divergence, math.inf))


def _density(x: Tensor) -> Tensor:
    return (-0.5 * x.square() - _HALF_LOG_TAU).exp()


class Mixture(dist.MixtureSameFamily):
    """A mixture whose support is that of its components, which torch hides from transforms.

    Weights and components of different batch shapes are broadcast.

    Example:
        >>> weights, parts = dist.Categorical(torch.ones(2)), dist.LogNormal(torch.zeros(2), 1.0)
        >>> Mixture(weights, parts).support
        GreaterThan(lower_bound=0.0)
    """

    def __init__(
        self, mixture_distribution: Any, component_distribution: Any, validate_args: Any = None
    ) -> None:
        shapes = mixture_distribution.logits.shape, component_distribution.batch_shape
        shape = broadcast_shape(*shapes)
        weights = mixture_distribution.expand(shape[:-1])
        super().__init__(weights, component_distribution.expand(shape), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Mixture:
        """Returns the mixture over a larger batch shape."""
        new: Mixture = super().expand(batch_shape, self._get_checked_instance(Mixture, _instance))
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        """The support of the components."""
        return self.component_distribution.support


class NormalMixture(Mixture):
    r"""A mixture of Normals of independent coordinates, whose draws have a gradient.

    Let :math:`F_i(z_i \mid z_{<i}; \theta)` be the distribution function of a coordinate given
    those before it. A draw keeps its values of :math:`F_i` as the parameters change, so its
    derivative is

    .. math:: \frac{dz}{d\theta} = -\Big(\frac{\partial F}{\partial z}\Big)^{-1}
        \frac{\partial F}{\partial \theta}

    The matrix is triangular and has a closed form. So the mean of :math:`f(z)` over draws has the
    gradient of its expectation, for any number of coordinates and for parameters of the weights
    too.

    Args:
        mixture_distribution: ``Categorical``, the weights.
        component_distribution: ``Normal(...).to_event(1)``, the components along the last
            dimension of its batch shape.
        validate_args: True to check arguments; Pyro's global setting if omitted.

    References:
        Figurnov, Mohamed & Mnih (2018), Implicit Reparameterization Gradients, section 3.
        https://arxiv.org/abs/1805.08498

    Example:
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> normals = dist.Normal(torch.tensor([[-3.0], [3.0]]), 1.0).to_event(1)
        >>> z = NormalMixture(dist.Categorical(logits=logits), normals).rsample((1000,))
        >>> bool(torch.autograd.grad(z.mean(), logits)[0][1] > 0)
        True
    """

    has_rsample = True

    def __init__(
        self, mixture_distribution: Any, component_distribution: Any, validate_args: Any = None
    ) -> None:
        self._shared = component_distribution.base_dist  # as given, before it is expanded
        super().__init__(mixture_distribution, component_distribution, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> NormalMixture:
        """Returns the mixture over a larger batch shape; its components stay shared."""
        new = self._get_checked_instance(NormalMixture, _instance)
        new._shared = self._shared
        return super().expand(batch_shape, _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density in nats, over the batch shape.

        If all data have the same components, the squares are expanded into matrix products, which
        need no memory beyond the density of each component. Their difference loses digits, so it
        is computed in double precision. Values that are doubles already are squared one by one.
        """
        loc, scale = self._shared.loc, self._shared.scale  # (..., components, d)
        if loc.dim() > 2 or loc.dtype == torch.float64:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        centre = loc.detach().double().mean(0)
        z, loc, scale = value.double() - centre, loc.double() - centre, scale.double()
        precision = scale.square().reciprocal()
        constant = (0.5 * precision * loc.square() + scale.log() + _HALF_LOG_TAU).sum(-1)
        squares = 0.5 * z.square() @ precision.T - z @ (precision * loc).T
        log_density = (-squares - constant).to(value.dtype)
        return (self.mixture_distribution.logits + log_density).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws without a gradient; of shared components, only the one that is chosen."""
        loc, scale = self._shared.loc, self._shared.scale
        if loc.dim() > 2:
            return super().sample(sample_shape)
        component = self.mixture_distribution.sample(sample_shape)
        return torch.normal(loc[component], scale[component])

    def rsample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws, with the gradient by implicit differentiation."""
        with torch.no_grad():
            z = self.sample(sample_shape)  # (..., d)
        if not torch.is_grad_enabled():
            return z
        normal = self.component_distribution.base_dist  # batch shape (..., components, d)
        deviation = (z.unsqueeze(-2) - normal.loc) / normal.scale
        log_density = -0.5 * deviation.square() - normal.scale.log() - _HALF_LOG_TAU
        before = log_density.cumsum(-1) - log_density  # of the coordinates before each
        weights = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)
        below = ndtr(deviation)
        cdf = (weights * below).sum(-2)
        with torch.no_grad():
            density = (weights * log_density.exp()).sum(-2)
            excess = weights * (below - cdf.unsqueeze(-2))
            slopes = torch.einsum("...ki,...kj->...ij", excess, -deviation / normal.scale)
            density = density.clamp(min=torch.finfo(density.dtype).tiny)
            jacobian = slopes.tril(-1) + torch.diag_embed(density)
        change = (cdf - cdf.detach()).unsqueeze(-1)  # 0, with a gradient
        return z - torch.linalg.solve_triangular(jacobian, change, upper=False).squeeze(-1)


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]
@register_kl(LowRankMultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _kl_normal_independent(q: Any, p: Any) -> Tensor:
    """Closed-form KL divergence of a correlated Normal from independent Normals."""
    base = p.base_dist
    if not isinstance(base, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    squares = (q.variance + (q.mean - base.loc).square()) / base.scale.square()
    cross_entropy: Tensor = (0.5 * squares + base.scale.log() + _HALF_LOG_TAU).sum(-1)
    return cross_entropy - q.entropy()
