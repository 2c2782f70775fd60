"""A term: keeps covariances between coordinates of the posterior means small.

python FILE.py     # a check, and a short training
"""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

import pyro_mivae as mi
from pyro_mivae.terms.base import InformationTerm, Particle, TermOptions


class Decorrelation(InformationTerm):
    """Minus the sum of the squared off-diagonal elements of Cov(E[z | x]) over the batch.

    An objective adds its weight times this value to the ELBO and maximises both. See Kumar,
    Sattigeri & Balakrishnan (2018), DIP-VAE-I, eq. 6.
    """

    needs_batch: ClassVar[bool] = True  # it compares data, so a batch of one is refused
    is_cost: ClassVar[bool] = True  # the ledger shows minus the term
    least_weight: ClassVar[float | None] = 0  # a negative weight would reward correlation

    def __init__(self, site: str = "z", **term: Unpack[TermOptions]) -> None:  # the weight
        super().__init__(site, **term)
        self.name = f"decorrelation_{site}"  # its name in the ledger and in the history
        self.formula = f"- sum_ij Cov(E[{site}|x])_ij^2"  # as mi.explain writes it

    def __call__(self, particle: Particle) -> Tensor:
        """Returns the term, summed over the batch, with a gradient."""
        (site,) = self.sites
        # A particle holds the traces of one run. Each node of a trace has the distribution "fn",
        # the "value" that was drawn, and "log_prob".
        means = particle.traces.guide.nodes[site]["fn"].mean  # (batch, d)
        covariance = torch.cov(means.T)
        others = covariance - covariance.diagonal().diag()
        return -others.square().sum() * len(means)


if __name__ == "__main__":
    digits = mi.load_dataset("digits")
    vae = mi.VAE(digits.data_shape)
    objective = mi.MutualInformationELBO([Decorrelation(weight=10.0)])
    print(mi.explain(objective))
    print(mi.check(vae, digits.x_train[:64]))
    history = mi.fit(vae, digits.x_train, objective=objective, epochs=20, progress=True)
    print({name: round(value, 3) for name, value in history[-1].items()})
