"""Families of distributions of a site, from parameters per datum."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from pyro_mivae.arguments import checked, size, whole
from pyro_mivae.distributions import NormalMixture, ProbitNormal
from pyro_mivae.networks.layers import location_and_scale
from pyro_mivae.spherical import PowerSpherical

MIN_LOW_RANK_SCALE = 1e-2  # the inverse that a density needs is exact in float32 down to here


class Family(nn.Module):
    """Distributions of one site of a size, one for each datum.

    A subclass sets ``num_params`` and defines ``forward``. Its own weights, if it has any, are
    shared by all data.

    Args:
        size: Size of the site.

    Attributes:
        num_params: Number of parameters per datum; the first ``size`` of them are locations.

    Example:
        >>> import pyro.distributions as dist
        >>> class Laplace(Family):
        ...     def __init__(self, size):
        ...         super().__init__(size)
        ...         self.num_params = 2 * size
        ...     def forward(self, params):
        ...         loc, log_scale = params.chunk(2, -1)
        ...         return dist.Laplace(loc, log_scale.exp()).to_event(1)
        >>> Laplace(3)(torch.zeros(5, 6)).event_shape
        torch.Size([3])
    """

    num_params: int

    @checked(size=size(least=1))
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def forward(self, params: Tensor) -> Any:
        """Returns the Pyro distribution.

        Args:
            params: Any real numbers, shape ``(..., num_params)``.

        Returns:
            A distribution of batch shape ``(...)`` and event shape ``(size,)``.
        """


class MeanField(Family):
    r"""Independent Normals, the mean field: :math:`\prod_i N(z_i; \mu_i(x), \sigma_i^2(x))`.

    Example:
        >>> MeanField(3)(torch.zeros(5, 6)).event_shape
        torch.Size([3])
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.num_params = 2 * self.size

    def forward(self, params: Tensor) -> Any:
        return dist.Normal(*location_and_scale(params)).to_event(1)


class ProbitMeanField(MeanField):
    """Independent `ProbitNormal` distributions, on the unit interval.

    Example:
        >>> fn = ProbitMeanField(3)(torch.zeros(5, 6))
        >>> bool(((fn.sample() > 0) & (fn.sample() < 1)).all())
        True
    """

    def forward(self, params: Tensor) -> Any:
        return ProbitNormal(*location_and_scale(params)).to_event(1)


class OnSphere(Family):
    r"""A `PowerSpherical` on the unit sphere: its direction and its concentration, 0 or more.

    Example:
        >>> OnSphere(3)(torch.randn(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.num_params = self.size + 1

    def forward(self, params: Tensor) -> Any:
        direction, concentration = params.split([self.size, 1], -1)
        return PowerSpherical(normalize(direction, dim=-1), softplus(concentration[..., 0]))


class PointMass(Family):
    """A point mass (Delta): the site is a function of the data.

    Example:
        >>> PointMass(3)(torch.zeros(5, 3)).sample().shape
        torch.Size([5, 3])
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.num_params = self.size

    def forward(self, params: Tensor) -> Any:
        return dist.Delta(params, event_dim=1)


class FullCovariance(Family):
    r"""A Normal :math:`N(m, L L^T)`, for few dimensions that depend on each other.

    The Cholesky factor is :math:`L = \operatorname{diag}(\sigma)\,(I + A / d)`, with :math:`A`
    strictly lower triangular. So an untrained guide is near the mean field, and the scales shrink
    all entries of a row together. :math:`A` has :math:`d (d - 1) / 2` entries per datum, so the
    layer before it grows with the square of the size.

    Example:
        >>> FullCovariance(3)(torch.zeros(5, 9)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    index: Tensor
    identity: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        num_entries = self.size * (self.size - 1) // 2
        self.num_params = 2 * self.size + num_entries
        rows, columns = torch.tril_indices(self.size, self.size, -1)
        self.register_buffer("index", rows * self.size + columns, persistent=False)
        self.register_buffer("identity", torch.eye(self.size).flatten(), persistent=False)

    def forward(self, params: Tensor) -> Any:
        loc, scale = location_and_scale(params[..., : 2 * self.size])
        below = params[..., 2 * self.size :] / self.size
        identity = self.identity.expand(*below.shape[:-1], -1)
        factor = identity.index_copy(-1, self.index, below).unflatten(-1, (self.size, -1))
        return dist.MultivariateNormal(loc, scale_tril=scale.unsqueeze(-1) * factor)


class LowRank(Family):
    r"""A Normal with correlated noise in a few directions, for many dimensions.

    The covariance is :math:`D (I + W W^T / r) D`, with :math:`D` diagonal. So an untrained guide
    is near the mean field.

    Args:
        size: Size of the site.
        rank: Number :math:`r` of columns of :math:`W`, at most ``size``.

    Example:
        >>> LowRank(5, rank=1)(torch.zeros(4, 15)).cov_factor.shape
        torch.Size([4, 5, 1])
    """

    @checked(size=size(least=1), rank=whole(least=1))
    def __init__(self, size: int, rank: int = 2) -> None:
        super().__init__(size)
        self.rank = min(rank, self.size)
        self.num_params = (2 + self.rank) * self.size

    def forward(self, params: Tensor) -> Any:
        loc, scale = location_and_scale(params[..., : 2 * self.size], MIN_LOW_RANK_SCALE)
        factor = params[..., 2 * self.size :].unflatten(-1, (self.size, self.rank))
        factor = factor * (scale / self.rank**0.5).unsqueeze(-1)
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())


class GaussianMixture(Family):
    r"""Several Normals per datum, for posteriors with several modes.

    .. math:: \sum_k \pi_k(x) \prod_i N(z_i; \mu_{ki}(x), \sigma_{ki}^2(x))

    The gradient of the draws is that of `NormalMixture`, with no component enumerated: the decoder
    runs once. The KL divergence has no closed form; it is taken from the draw.

    Args:
        size: Size of the site.
        num_components: Number of Normals.

    Example:
        >>> GaussianMixture(2, num_components=3)(torch.randn(5, 15)).mean.shape
        torch.Size([5, 2])
    """

    @checked(size=size(least=1), num_components=whole(least=2, most=1000))
    def __init__(self, size: int, num_components: int = 3) -> None:
        super().__init__(size)
        self.num_components = num_components
        self.num_params = num_components * (2 * self.size + 1)

    def forward(self, params: Tensor) -> Any:
        count = self.num_components
        normals = params[..., : 2 * count * self.size].unflatten(-1, (count, -1))
        logits = params[..., 2 * count * self.size :]
        component = dist.Normal(*location_and_scale(normals)).to_event(1)
        return NormalMixture(dist.Categorical(logits=logits), component)
