"""Priors of the code: PyroModules, called inside the data plate, that sample its sites."""

from pyro_mivae.priors.base import prior_sites
from pyro_mivae.priors.categorical import InfoGANPrior, MixturePrior
from pyro_mivae.priors.normal import StandardNormalPrior, UniformPrior

PRIORS = {
    "normal": StandardNormalPrior,
    "uniform": UniformPrior,
    "mixture": MixturePrior,
    "codes": InfoGANPrior,
}

__all__ = [
    "PRIORS",
    "InfoGANPrior",
    "MixturePrior",
    "StandardNormalPrior",
    "UniformPrior",
    "prior_sites",
]
