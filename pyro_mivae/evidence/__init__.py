"""Bounds of the evidence p(x): importance sampling and annealing."""

from pyro_mivae.evidence.annealing import (
    AnnealedLogLikelihood,
    AnnealingOptions,
    BidirectionalBounds,
    annealed_log_likelihood,
    bidirectional_monte_carlo,
)

__all__ = [
    "AnnealedLogLikelihood",
    "AnnealingOptions",
    "BidirectionalBounds",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
]
