"""Terms that an objective adds to the ELBO: information and penalties."""

from pyro_mivae.terms.barber_agakov import BarberAgakov, Generation, score_code
from pyro_mivae.terms.base import InformationTerm, Particle, Penalty
from pyro_mivae.terms.critic import CriticBound, ScoreBound
from pyro_mivae.terms.in_batch import (
    ENOUGH_DATA,
    MaximumMeanDiscrepancy,
    PairedTerm,
    maximum_mean_discrepancy,
)
from pyro_mivae.terms.invariant import InvariantInformation
from pyro_mivae.terms.labelled import LabelledCategory, observe_category
from pyro_mivae.terms.regularized import RegularizedInformation

__all__ = [
    "ENOUGH_DATA",
    "BarberAgakov",
    "CriticBound",
    "Generation",
    "InformationTerm",
    "InvariantInformation",
    "LabelledCategory",
    "MaximumMeanDiscrepancy",
    "PairedTerm",
    "Particle",
    "Penalty",
    "RegularizedInformation",
    "ScoreBound",
    "maximum_mean_discrepancy",
    "observe_category",
    "score_code",
]
