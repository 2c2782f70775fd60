"""Each likelihood by name, with SciPy's distribution for its outputs, and data of its kind."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch

import pyro_mivae as mi
from pyro_mivae.likelihoods import LIKELIHOODS
from pyro_mivae.likelihoods.base import decoder_options
from pyro_mivae.networks import MLPDecoder

LEVELS = 5  # of the likelihoods of levels here: k / 4


def softplus(raw):
    return np.log1p(np.exp(raw))


class Levels:
    """SciPy's part of a distribution over the levels."""

    def __init__(self, probs):
        self.probs = np.asarray(probs)

    def logpmf(self, x):
        return np.log(self.probs[np.rint(x * (LEVELS - 1)).astype(int)])


class ZeroInflated:
    """SciPy has none."""

    def __init__(self, gate_logit, fn):
        self.gate, self.fn = 1 / (1 + np.exp(-gate_logit)), fn

    def logpmf(self, x):
        counts = np.log1p(-self.gate) + self.fn.logpmf(x)
        return np.where(x == 0, np.logaddexp(np.log(self.gate), counts), counts)


def negative_binomial(log_mean, log_theta):
    mean, theta = np.exp(log_mean), np.exp(log_theta)
    return scipy.stats.nbinom(theta, theta / (theta + mean))


def discretized(loc, raw):
    scale = 0.25 * softplus(raw) + 0.1 / (LEVELS - 1)
    edges = (np.arange(LEVELS - 1) + 0.5) / (LEVELS - 1)
    below = scipy.stats.logistic(loc, scale).cdf(edges)
    return Levels(np.diff(np.concatenate([[0.0], below, [1.0]])))


REAL, UNIT = np.linspace(-400, 400, 800_001), np.linspace(0, 1, 20_001)
COUNTS, FEW = np.arange(3000.0), np.arange(LEVELS) / (LEVELS - 1)


@dataclass(frozen=True)
class Kind:
    """A likelihood: how it is built, its reference, and the values that it scores."""

    make: Any
    reference: Any
    values: Any

    def build(self):
        return self.make()

    @property
    def is_continuous(self):
        return self.values is REAL or self.values is UNIT

    def decoded(self, *shape, spread=0.7):
        """Random outputs of a decoder, shape ``(*shape[, P])``."""
        outputs = self.build().num_outputs
        return spread * torch.randn(*shape, *((outputs,) if outputs > 1 else ()))

    def data(self, n, *shape):
        """Data that the likelihood draws about two prototypes."""
        decoder = MLPDecoder(1, shape, (), **decoder_options(self.build()))
        decoder.layers[-1].weight.data.normal_(0.0, 1.5)
        code = (torch.arange(n) % 2 * 2.0 - 1.0)[:, None]
        with torch.no_grad():
            return self.build()(decoder(code)).sample().float()


KINDS = {
    "bernoulli": Kind(
        mi.BernoulliLikelihood,
        lambda d: scipy.stats.bernoulli(1 / (1 + np.exp(-d))),
        np.arange(2.0),
    ),
    "continuous-bernoulli": Kind(mi.ContinuousBernoulliLikelihood, None, UNIT),
    "gaussian": Kind(
        lambda: mi.GaussianLikelihood(learn_scale=True), lambda d: scipy.stats.norm(d, 1.0), REAL
    ),
    "heteroscedastic-gaussian": Kind(
        mi.HeteroscedasticGaussianLikelihood,
        lambda loc, raw: scipy.stats.norm(loc, softplus(raw) + 0.01),
        REAL,
    ),
    "student-t": Kind(
        lambda: mi.StudentTLikelihood(30.0, learn_df=True),
        lambda loc, raw: scipy.stats.t(30.0, loc, softplus(raw) + 0.01),
        REAL,
    ),
    "categorical": Kind(
        lambda: mi.CategoricalLikelihood(LEVELS),
        lambda *logits: Levels(scipy.special.softmax(logits)),
        FEW,
    ),
    "discretized-logistic": Kind(
        lambda: mi.DiscretizedLogisticLikelihood(LEVELS), discretized, FEW
    ),
    "poisson": Kind(mi.PoissonLikelihood, lambda d: scipy.stats.poisson(np.exp(d)), COUNTS),
    "negative-binomial": Kind(mi.NegativeBinomialLikelihood, negative_binomial, COUNTS),
    "zero-inflated-poisson": Kind(
        lambda: mi.PoissonLikelihood(zero_inflated=True),
        lambda d, gate: ZeroInflated(gate, scipy.stats.poisson(np.exp(d))),
        COUNTS,
    ),
    "zero-inflated-negative-binomial": Kind(
        lambda: mi.NegativeBinomialLikelihood(zero_inflated=True),
        lambda mean, theta, gate: ZeroInflated(gate, negative_binomial(mean, theta)),
        COUNTS,
    ),
}
assert KINDS.keys() == LIKELIHOODS.keys()
