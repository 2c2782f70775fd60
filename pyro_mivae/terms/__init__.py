"""Terms of an objective beside the ELBO: information, and what stands in for it."""

from pyro_mivae.terms.barber_agakov import BarberAgakov, Push, score_code
from pyro_mivae.terms.base import InformationTerm, Particle
from pyro_mivae.terms.critic import CriticBound
from pyro_mivae.terms.mmd import MaximumMeanDiscrepancy, maximum_mean_discrepancy
from pyro_mivae.terms.paired import ENOUGH_DATA, PairedTerm
from pyro_mivae.terms.penalty import Penalty
from pyro_mivae.terms.regularized import RegularizedInformation

__all__ = [
    "ENOUGH_DATA",
    "BarberAgakov",
    "CriticBound",
    "InformationTerm",
    "MaximumMeanDiscrepancy",
    "PairedTerm",
    "Particle",
    "Penalty",
    "Push",
    "RegularizedInformation",
    "maximum_mean_discrepancy",
    "score_code",
]
