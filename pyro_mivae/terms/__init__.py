"""Terms of an objective beside the ELBO: information, and what stands in for it."""

from pyro_mivae.terms.barber_agakov import BarberAgakov, Push
from pyro_mivae.terms.base import InformationTerm, Particle
from pyro_mivae.terms.regularized import RegularizedInformation

__all__ = ["BarberAgakov", "InformationTerm", "Particle", "Push", "RegularizedInformation"]
