"""Priors of the code: PyroModules, called inside the data plate, that sample its sites."""

from pyro_mivae.priors.base import prior_sites
from pyro_mivae.priors.mixture import MixturePrior
from pyro_mivae.priors.normal import StandardNormalPrior

PRIORS = {"normal": StandardNormalPrior, "mixture": MixturePrior}

__all__ = ["PRIORS", "MixturePrior", "StandardNormalPrior", "prior_sites"]
