"""Priors of the code: PyroModules, called inside the data plate, that sample its sites."""

from pyro_mivae.priors.base import prior_sites
from pyro_mivae.priors.codes import InfoGANPrior
from pyro_mivae.priors.mixture import MixturePrior
from pyro_mivae.priors.normal import StandardNormalPrior
from pyro_mivae.priors.uniform import UniformPrior

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
