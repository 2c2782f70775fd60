"""Likelihoods of counts: Poisson and negative binomial, with or without further zeros."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_mivae.arguments import checked, flag, numbers
from pyro_mivae.errors import DataError
from pyro_mivae.likelihoods.base import Likelihood

LARGE = 100.0  # total count from which Stirling's series is exact to rounding


class NegativeBinomial(dist.NegativeBinomial):
    """The negative binomial, also where a large total count makes it a Poisson.

    In float32 the difference of two log-gamma functions of 1e6 is wrong by whole nats.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log-probabilities of counts, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        total = self.total_count
        large = total.clamp(min=LARGE)
        ratio = (value / large).log1p()
        series = (
            (large + value - 0.5) * ratio
            + value * (large.log() - 1)
            - value / (12 * large * (large + value))
        )
        small = total.clamp(max=LARGE)
        exact = torch.lgamma(small + value) - torch.lgamma(small)
        rising = torch.where(total > LARGE, series, exact)  # log of G(total + x) / G(total)
        chances = total * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        return rising - torch.lgamma(value + 1) + chances


class CountLikelihood(Likelihood):
    """Base class of likelihoods of whole numbers from 0 up.

    Args:
        zero_inflated: True for one more output, the logit of the probability that a count is 0
            whatever the distribution of counts is.
    """

    interval = (0.0, math.inf)
    remedy = "give likelihood='gaussian' or another for numbers that are no counts"

    @checked(zero_inflated=flag())
    def __init__(self, *, zero_inflated: bool = False) -> None:
        super().__init__()
        self.zero_inflated = zero_inflated
        self.num_outputs += zero_inflated

    @checked(x=numbers(finite=False))
    def check(self, x: Tensor) -> None:
        """Raises a `DataError` if a value is not finite, negative, or not a whole number."""
        super().check(x)
        parts = x[x != x.round()] if x.is_floating_point() else x[:0]
        if parts.numel():
            raise DataError(
                f"the data hold {parts.numel()} values that are not whole numbers, such as "
                f"{float(parts[0]):.8g}; {type(self).__name__} scores counts: round them, or "
                f"{self.remedy}"
            )

    def forward(self, decoded: Tensor) -> Any:
        if not self.zero_inflated:
            return self._counts(decoded)
        counts = decoded[..., :-1]
        counts = counts.squeeze(-1) if counts.shape[-1] == 1 else counts
        fn = dist.ZeroInflatedDistribution
        return fn(self._counts(counts), gate_logits=decoded[..., -1])

    @abstractmethod
    def _counts(self, decoded: Tensor) -> Any:
        """The distribution without further zeros."""


class PoissonLikelihood(CountLikelihood):
    r"""Poisson whose log-rate is the decoder's output, for counts.

    .. math:: \log p(x \mid code) = \sum_i x_i\,d_i - e^{d_i} - \log x_i!

    Variance and mean are equal. Counts that vary more need `NegativeBinomialLikelihood`, or the
    code explains their noise.

    Example:
        >>> PoissonLikelihood()(torch.zeros(3)).mean
        tensor([1., 1., 1.])
    """

    def _counts(self, decoded: Tensor) -> Any:
        return dist.Poisson(decoded.exp())


class NegativeBinomialLikelihood(CountLikelihood):
    r"""Negative binomial with mean and dispersion per element, for overdispersed counts.

    .. math:: \mu = e^{d_1},\quad \theta = e^{d_2},\quad
        \mathrm{Var}[x] = \mu + \mu^2 / \theta

    for mean :math:`\mu` and inverse dispersion :math:`\theta`. A large :math:`\theta` gives the
    Poisson. The decoder gives both for each datum, so the dispersion may depend on the code.

    References:
        Lopez et al. (2018), Deep Generative Modeling for Single-cell Transcriptomics, methods.
        https://doi.org/10.1038/s41592-018-0229-2

    Example:
        >>> fn = NegativeBinomialLikelihood()(torch.tensor([3.0, 1.5]).log())
        >>> round(float(fn.mean), 4), round(float(fn.variance), 4)
        (3.0, 9.0)
    """

    num_outputs = 2

    def _counts(self, decoded: Tensor) -> Any:
        log_mean, log_theta = decoded.unbind(-1)
        return NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta)
