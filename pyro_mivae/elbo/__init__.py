"""Losses for ``pyro.infer.SVI(loss=...)``: ELBOs with information terms, and InfoGAN's game."""

from pyro_mivae.elbo.adversarial import InfoGANLoss
from pyro_mivae.elbo.explain import explain
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.elbo.objective import Objective
from pyro_mivae.elbo.relaxed import RelaxedCategoricalELBO
from pyro_mivae.elbo.sampled import SampledCategoricalELBO, choose_categories

__all__ = [
    "InfoGANLoss",
    "MutualInformationELBO",
    "Objective",
    "RelaxedCategoricalELBO",
    "SampledCategoricalELBO",
    "choose_categories",
    "explain",
]
