"""Bounds of the evidence p(x): importance sampling, annealing, and refined posteriors."""

from pyro_mivae.evidence.annealing import (
    AnnealedLogLikelihood,
    AnnealingOptions,
    BidirectionalBounds,
    annealed_log_likelihood,
    bidirectional_monte_carlo,
)
from pyro_mivae.evidence.refined import RefinedGuide, SemiAmortizedGuide

__all__ = [
    "AnnealedLogLikelihood",
    "AnnealingOptions",
    "BidirectionalBounds",
    "RefinedGuide",
    "SemiAmortizedGuide",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
]
