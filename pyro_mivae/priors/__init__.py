"""Priors of the code: PyroModules that sample its sites inside the data plate."""

from pyro_mivae.priors.base import (
    PRIOR,
    attach_prior,
    base_of,
    join,
    prior_sites,
    site_size,
)
from pyro_mivae.priors.conditional import ConditionalNormalPrior
from pyro_mivae.priors.flows import FlowDistribution, FlowPrior
from pyro_mivae.priors.hierarchical import HierarchicalPrior
from pyro_mivae.priors.independent import (
    LaplacePrior,
    StandardNormalPrior,
    StudentTPrior,
    UniformPrior,
)
from pyro_mivae.priors.infogan import InfoGANPrior
from pyro_mivae.priors.mixture import MixturePrior, StickBreakingPrior
from pyro_mivae.priors.named import PRIORS
from pyro_mivae.priors.spherical import SphericalPrior
from pyro_mivae.priors.vamp import VampPrior

__all__ = [
    "PRIOR",
    "PRIORS",
    "ConditionalNormalPrior",
    "FlowDistribution",
    "FlowPrior",
    "HierarchicalPrior",
    "InfoGANPrior",
    "LaplacePrior",
    "MixturePrior",
    "SphericalPrior",
    "StandardNormalPrior",
    "StickBreakingPrior",
    "StudentTPrior",
    "UniformPrior",
    "VampPrior",
    "attach_prior",
    "base_of",
    "join",
    "prior_sites",
    "site_size",
]
