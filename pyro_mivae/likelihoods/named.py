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
    """Normal with the decoder's output as mean and one learned scale for all elements."""
    return GaussianLikelihood(learn_scale=True)


def _learned_student_t() -> StudentTLikelihood:
    """Student's t with location and scale per element, and learned degrees of freedom."""
    return StudentTLikelihood(learn_df=True)


def _zero_inflated_poisson() -> PoissonLikelihood:
    """Poisson with further zeros: rate and probability of a zero per element."""
    return PoissonLikelihood(zero_inflated=True)


def _zero_inflated_negative_binomial() -> NegativeBinomialLikelihood:
    """Negative binomial with further zeros: mean, dispersion and zeros of each element."""
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
