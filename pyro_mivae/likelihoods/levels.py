"""Likelihoods of quantised pixels: k / (K - 1) for K levels, such as bytes divided by 255."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid, softplus

from pyro_mivae.arguments import checked, whole
from pyro_mivae.likelihoods.base import Likelihood

BETWEEN = 1e-2  # distance from the nearest level, in levels, that is more than rounding
NUM_LEVELS = whole(least=2, most=2**16)
_EMPTY = torch.Size()


class Levels(TorchDistribution):
    """A distribution over the levels 0, 1 / (K - 1), ..., 1; it scores the nearest level."""

    arg_constraints = {}
    support = constraints.unit_interval

    def __init__(
        self, num_levels: int, batch_shape: torch.Size, validate_args: bool | None = None
    ) -> None:
        self.num_levels = num_levels
        super().__init__(batch_shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log-probabilities of values in [0, 1], in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob((value * (self.num_levels - 1)).round())

    @abstractmethod
    def _log_prob(self, level: Tensor) -> Tensor:
        """Log-probability of the levels 0 to K - 1."""


class CategoricalLevels(Levels):
    """A probability of its own for each level, by logits of shape ``(*batch_shape, K)``."""

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape[-1], logits.shape[:-1], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> CategoricalLevels:
        """Returns the distribution over a larger batch shape."""
        logits = self.logits.expand(*batch_shape, self.num_levels)
        return type(self)(logits, self.__dict__.get("_validate_args"))

    def _log_prob(self, level: Tensor) -> Tensor:
        level, logits = torch.broadcast_tensors(level.long()[..., None], self.logits)
        return logits.gather(-1, level[..., :1]).squeeze(-1)

    def sample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws levels."""
        level = dist.Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
        return level.to(self.logits.dtype) / (self.num_levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean, over the batch shape."""
        return self.logits.exp() @ self._values

    @property
    def variance(self) -> Tensor:
        """The variance, over the batch shape."""
        return self.logits.exp() @ self._values.square() - self.mean.square()

    @property
    def _values(self) -> Tensor:
        level = torch.arange(self.num_levels, device=self.logits.device, dtype=self.logits.dtype)
        return level / (self.num_levels - 1)


class DiscretizedLogistic(Levels):
    r"""A logistic distribution, rounded to the nearest level.

    .. math:: P(k) = \sigma\!\left(\frac{k + \frac12 - \mu'}{s'}\right)
        - \sigma\!\left(\frac{k - \frac12 - \mu'}{s'}\right)

    in units of a level; the first level takes the lower tail, the last the upper one. The
    difference is computed as a product, so nothing cancels. The mean is a sum over all levels.
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, num_levels: int, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(num_levels, self.loc.shape, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Returns the distribution over a larger batch shape."""
        loc, scale = (part.expand(batch_shape) for part in (self.loc, self.scale))
        return type(self)(loc, scale, self.num_levels, self.__dict__.get("_validate_args"))

    def _log_prob(self, level: Tensor) -> Tensor:
        most, none = self.num_levels - 1, self.loc.new_zeros(())
        above = logsigmoid(((level + 0.5) / most - self.loc) / self.scale)
        below = logsigmoid((self.loc - (level - 0.5) / most) / self.scale)
        width = (-torch.expm1(-1 / (most * self.scale))).log()
        first, last = level <= 0, level >= most
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a))
        inside = torch.where(first | last, none, width)
        return torch.where(last, none, above) + torch.where(first, none, below) + inside

    def sample(self, sample_shape: Any = _EMPTY) -> Tensor:
        """Draws levels."""
        shape, most = self._extended_shape(torch.Size(sample_shape)), self.num_levels - 1
        with torch.no_grad():
            share = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn = self.loc + self.scale * (share.log() - (-share).log1p())
            return (drawn * most).round().clamp(0, most) / most

    @property
    def mean(self) -> Tensor:
        """The mean, over the batch shape."""
        return self._exceedance.mean(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, over the batch shape."""
        most = self.num_levels - 1
        weights = 2 * torch.arange(most, device=self.loc.device, dtype=self.loc.dtype) + 1
        return self._exceedance @ weights / most**2 - self.mean.square()

    @property
    def _exceedance(self) -> Tensor:
        """P(x > k / (K - 1)) for k = 0, ..., K - 2; shape ``(*batch_shape, K - 1)``."""
        most = self.num_levels - 1
        level = torch.arange(most, device=self.loc.device, dtype=self.loc.dtype)
        edges = (level + 0.5) / most
        return torch.sigmoid((self.loc[..., None] - edges) / self.scale[..., None])


class LevelsLikelihood(Likelihood):
    """Base class of likelihoods of K levels; values between two levels count as the nearest."""

    interval = (0.0, 1.0)

    @checked(num_levels=NUM_LEVELS)
    def __init__(self, num_levels: int = 256) -> None:
        super().__init__()
        self.num_levels = num_levels

    def misfit(self, x: Tensor) -> str:
        """Returns a remark on values that are not levels, or an empty text."""
        level = x * (self.num_levels - 1)
        between = (level - level.round()).abs() > BETWEEN
        if not bool(between.any()):
            return ""
        return (
            f"{float(between.double().mean()):.0%} of the values are none of the "
            f"{self.num_levels} levels k/{self.num_levels - 1}: {type(self).__name__} scores the "
            "nearest level; give num_levels as the data have them"
        )


class CategoricalLikelihood(LevelsLikelihood):
    """A probability for each of K levels, for few levels or levels without an order: K outputs.

    The data lie in [0, 1], as `load_dataset` gives them: bytes divided by 255 have 256 levels,
    the bundled digits 17. Log-probabilities are those of quantised data. K outputs per pixel make
    the last layer of an MLP K times as large: take ``"conv"`` networks, few levels, or
    `DiscretizedLogisticLikelihood`.

    Args:
        num_levels: Number of levels K.

    Example:
        >>> fn = CategoricalLikelihood(num_levels=4)(torch.zeros(3, 5, 4))
        >>> round(float(fn.log_prob(torch.ones(3, 5))[0, 0].exp()), 4)
        0.25
    """

    def __init__(self, num_levels: int = 256) -> None:
        super().__init__(num_levels)
        self.num_outputs = self.num_levels

    def forward(self, decoded: Tensor) -> Any:
        return CategoricalLevels(decoded)


class DiscretizedLogisticLikelihood(LevelsLikelihood):
    r"""A logistic distribution rounded to K levels, for 8-bit images.

    Data are as for `CategoricalLikelihood`, with which log-probabilities can be compared.
    The scale is :math:`\tfrac14 \log(1 + e^{r})` plus a tenth of the distance of two levels, for
    the decoder's second output :math:`r`. It begins near the spread of pixels.

    Args:
        num_levels: Number of levels K.

    References:
        Salimans et al. (2017), PixelCNN++, eq. 2. https://arxiv.org/abs/1701.05517

    Example:
        >>> fn = DiscretizedLogisticLikelihood(num_levels=3)(torch.zeros(1, 2))
        >>> total = sum(fn.log_prob(torch.tensor([level])).exp() for level in (0.0, 0.5, 1.0))
        >>> round(float(total), 4)
        1.0
    """

    num_outputs = 2

    def forward(self, decoded: Tensor) -> Any:
        loc, raw = decoded.unbind(-1)
        scale = 0.25 * softplus(raw) + 0.1 / (self.num_levels - 1)
        return DiscretizedLogistic(loc, scale, self.num_levels)
