"""A prior with a part on the unit interval."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, size
from pyro_mivae.distributions import ProbitNormal


class UniformPrior(PyroModule):
    r"""Independent :math:`z \sim N(0, I)` and :math:`c \sim U(0, 1)^d`.

    The uniform is written as the `ProbitNormal` that it is, :math:`c = \Phi(u)` with
    :math:`u \sim N(0, I)`, so that its divergence from a posterior of that family is in closed
    form, and no draw falls on an end of the interval, where a posterior has no density. The code
    is ``z`` and ``c``, the latter standardised to mean 0 and variance 1.

    With such a posterior rate and information are those of :math:`u`: a normal prior, and
    :math:`\Phi` for the decoder's first layer. So a uniform prior changes what the networks find
    easy, and not what an objective asks for.

    Args:
        latent_dim: Size of the site ``z``.
        code_dim: Size of the site ``c``.

    Raises:
        OptionError: If a size is no whole number from 1 up.

    References:
        Chen et al. (2016), InfoGAN, section 7: uniform codes. https://arxiv.org/abs/1606.03657
        Ducau & Trénous, Mutual Information in Variational Autoencoders (poster), open questions.

    Example:
        >>> prior = UniformPrior(latent_dim=3, code_dim=1)
        >>> with pyro.plate("data", 5):
        ...     prior().shape
        torch.Size([5, 4])
    """

    @checked(latent_dim=size(), code_dim=size())
    def __init__(self, latent_dim: int, code_dim: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.code_dim = code_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites inside the plate ``data``.

        Returns:
            The code, shape ``(batch, latent_dim + code_dim)``.
        """
        zero, one = self.zero, torch.ones_like(self.zero)
        z = pyro.sample("z", dist.Normal(zero, one).expand([self.latent_dim]).to_event(1))
        c = pyro.sample("c", ProbitNormal(zero, one).expand([self.code_dim]).to_event(1))
        batch = torch.broadcast_shapes(z.shape[:-1], c.shape[:-1])
        standardised = math.sqrt(12.0) * (c - 0.5)
        return torch.cat([z.expand(*batch, -1), standardised.expand(*batch, -1)], -1)
