"""What a trained model/guide pair knows: the information report, and what it says is wrong."""

from pyro_mivae.diagnostics.annealed import (
    AnnealedLogLikelihood,
    BidirectionalBounds,
    annealed_log_likelihood,
    bidirectional_monte_carlo,
)
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.report import InformationReport, information

__all__ = [
    "AnnealedLogLikelihood",
    "BidirectionalBounds",
    "Diagnosis",
    "InformationReport",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
    "diagnose",
    "information",
]
