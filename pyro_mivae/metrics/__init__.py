"""Metrics: how categories fit labels, what a probe reads from the code, and `evaluate`."""

from pyro_mivae.metrics.classifier import Classifier, fit_classifier
from pyro_mivae.metrics.clustering import (
    adjusted_rand_index,
    categories_used,
    cluster_accuracy,
    contingency,
    normalised_mutual_information,
    occupancy,
)
from pyro_mivae.metrics.critic import critic_estimates
from pyro_mivae.metrics.evaluate import EvaluationResult, evaluate
from pyro_mivae.metrics.generation import generation_accuracy
from pyro_mivae.metrics.probes import linear_probe, mlp_probe
from pyro_mivae.metrics.reconstruction import reconstruction_r2

__all__ = [
    "Classifier",
    "EvaluationResult",
    "adjusted_rand_index",
    "categories_used",
    "cluster_accuracy",
    "contingency",
    "critic_estimates",
    "evaluate",
    "fit_classifier",
    "generation_accuracy",
    "linear_probe",
    "mlp_probe",
    "normalised_mutual_information",
    "occupancy",
    "reconstruction_r2",
]
