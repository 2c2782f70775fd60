"""Metrics of codes against labels and factors, probes of codes, and `evaluate`."""

from pyro_mivae.metrics.agreement import (
    CategoryAgreement,
    agreement_of_models,
    category_agreement,
    most_probable,
)
from pyro_mivae.metrics.classifier import (
    Classifier,
    fit_classifier,
    linear_probe,
    mlp_probe,
)
from pyro_mivae.metrics.clustering import (
    adjusted_rand_index,
    categories_used,
    cluster_accuracy,
    contingency,
    generation_accuracy,
    generation_consistency,
    match_labels,
    normalised_mutual_information,
    occupancy,
)
from pyro_mivae.metrics.dci import DCI, completeness, dci_scores, disentanglement
from pyro_mivae.metrics.encoded import reconstruction_r2
from pyro_mivae.metrics.evaluate import EvaluationResult, evaluate
from pyro_mivae.metrics.factors import (
    factor_information,
    factor_vae_score,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from pyro_mivae.metrics.forecast import duration, forecast
from pyro_mivae.metrics.measures import critic_estimates
from pyro_mivae.metrics.protocol import how_measured

__all__ = [
    "DCI",
    "CategoryAgreement",
    "Classifier",
    "EvaluationResult",
    "adjusted_rand_index",
    "agreement_of_models",
    "categories_used",
    "category_agreement",
    "cluster_accuracy",
    "completeness",
    "contingency",
    "critic_estimates",
    "dci_scores",
    "disentanglement",
    "duration",
    "evaluate",
    "factor_information",
    "factor_vae_score",
    "fit_classifier",
    "forecast",
    "generation_accuracy",
    "generation_consistency",
    "how_measured",
    "linear_probe",
    "match_labels",
    "mlp_probe",
    "modularity",
    "most_probable",
    "mutual_information_gap",
    "normalised_mutual_information",
    "occupancy",
    "reconstruction_r2",
    "separated_attribute_predictability",
]
