"""Likelihoods of pixels in [0, 1] with one output per pixel."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_mivae.likelihoods.base import DENSITY, Likelihood

LARGE_LOGIT = 40.0
"""Logit above which log(1 + exp(logit)) equals the logit in float64."""


class _UnitIntervalBernoulli(dist.Bernoulli):
    """A Bernoulli that also scores values between 0 and 1, by their cross-entropy."""

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the cross-entropy."""
        if self._validate_args:
            self._validate_sample(value)
        cost = softplus(self.logits, threshold=LARGE_LOGIT)
        return -torch.addcmul(cost, value, self.logits, value=-1)


class BernoulliLikelihood(Likelihood):
    """Bernoulli with the decoder's output as logits, for values in [0, 1].

    For values strictly between 0 and 1 this is a cross-entropy, not a log-probability: make
    them binary by `binarize`, or use `ContinuousBernoulliLikelihood`.

    Example:
        >>> BernoulliLikelihood()(torch.zeros(3)).log_prob(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-0.6931, -0.6931, -0.6931])
    """

    interval = (0.0, 1.0)
    of_grey = (
        "grey pixels under a Bernoulli likelihood: distortion, ELBO and log p(x) are "
        "cross-entropies, not log-probabilities of data"
    )

    def forward(self, decoded: Tensor) -> Any:
        return _UnitIntervalBernoulli(logits=decoded)


class DeltaLikelihood(Likelihood):
    """A point mass at the logistic of the decoder's output: a generator without noise, in [0, 1].

    Data have no density under it, so the ELBO is not defined: use it for adversarial objectives.

    Example:
        >>> DeltaLikelihood()(torch.zeros(3)).sample()
        tensor([0.5000, 0.5000, 0.5000])
    """

    interval = (0.0, 1.0)
    of_binary = (
        "binary pixels beside a generator of grey ones: a discriminator can tell them apart by "
        "that alone; grey pixels do not have this fault"
    )

    def forward(self, decoded: Tensor) -> Any:
        return dist.Delta(torch.sigmoid(decoded))


class ContinuousBernoulliLikelihood(Likelihood):
    """Continuous Bernoulli with the decoder's output as logits: a density of values in [0, 1].

    References:
        Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli, eq. 5.
        https://arxiv.org/abs/1907.06845

    Example:
        >>> ContinuousBernoulliLikelihood()(torch.zeros(3)).log_prob(torch.rand(3))  # uniform
        tensor([0., 0., 0.])
    """

    interval = (0.0, 1.0)
    of_binary = DENSITY.format("continuous Bernoulli")

    def forward(self, decoded: Tensor) -> Any:
        return dist.ContinuousBernoulli(logits=decoded)
