"""ELBOs for ``pyro.infer.SVI(loss=...)``: weights per site and information terms."""

from pyro_mivae.elbo.explain import explain
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.elbo.objective import Objective
from pyro_mivae.elbo.relaxed import RelaxedCategoricalELBO

__all__ = ["MutualInformationELBO", "Objective", "RelaxedCategoricalELBO", "explain"]
