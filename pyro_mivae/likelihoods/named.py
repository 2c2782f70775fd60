"""Likelihoods by name."""

from __future__ import annotations

from collections.abc import Callable

from pyro_mivae.likelihoods.base import Likelihood
from pyro_mivae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_mivae.likelihoods.levels import CategoricalLikelihood, DiscretizedLogisticLikelihood
from pyro_mivae.likelihoods.pixels import BernoulliLikelihood, ContinuousBernoulliLikelihood
from pyro_mivae.likelihoods.real import (
    GaussianLikelihood,
    HeteroscedasticGaussianLikelihood,
    StudentTLikelihood,
)


def _learned_gaussian() -> GaussianLikelihood:
    """Normal with one learned scale for all elements, for real values of equal noise."""
    return GaussianLikelihood(learn_scale=True)


def _learned_student_t() -> StudentTLikelihood:
    """Student's t with location and scale per element, for real values with outliers."""
    return StudentTLikelihood(learn_df=True)


def _zero_inflated_poisson() -> PoissonLikelihood:
    """Poisson with a probability of further zeros, for sparse counts."""
    return PoissonLikelihood(zero_inflated=True)


def _zero_inflated_negative_binomial() -> NegativeBinomialLikelihood:
    """Negative binomial with a probability of further zeros, for sparse overdispersed counts."""
    return NegativeBinomialLikelihood(zero_inflated=True)


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": _learned_gaussian,
    "heteroscedastic-gaussian": HeteroscedasticGaussianLikelihood,
    "student-t": _learned_student_t,
    "categorical": CategoricalLikelihood,
    "discretized-logistic": DiscretizedLogisticLikelihood,
    "poisson": PoissonLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
    "zero-inflated-poisson": _zero_inflated_poisson,
    "zero-inflated-negative-binomial": _zero_inflated_negative_binomial,
}
