r"""Likelihoods :math:`p(x \mid code)`: from a decoder's output to a distribution of data."""

from pyro_mivae.likelihoods.base import Likelihood
from pyro_mivae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_mivae.likelihoods.levels import CategoricalLikelihood, DiscretizedLogisticLikelihood
from pyro_mivae.likelihoods.named import LIKELIHOODS
from pyro_mivae.likelihoods.pixels import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DeltaLikelihood,
)
from pyro_mivae.likelihoods.real import (
    GaussianLikelihood,
    HeteroscedasticGaussianLikelihood,
    StudentTLikelihood,
)

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "DeltaLikelihood",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "HeteroscedasticGaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "StudentTLikelihood",
]
