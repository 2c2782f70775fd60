"""Losses for ``pyro.infer.SVI(loss=...)``: ELBOs with information terms, and InfoGAN's game."""

from pyro_mivae.elbo.adversarial import InfoGANLoss
from pyro_mivae.elbo.categories import (
    RelaxedCategoricalELBO,
    SampledCategoricalELBO,
    choose_categories,
)
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.elbo.objective import Objective, explain

__all__ = [
    "InfoGANLoss",
    "MutualInformationELBO",
    "Objective",
    "RelaxedCategoricalELBO",
    "SampledCategoricalELBO",
    "choose_categories",
    "explain",
]
