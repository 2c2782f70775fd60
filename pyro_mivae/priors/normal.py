"""Priors of continuous sites: standard normal ones, and one on the unit interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, size
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.priors.base import join


class StandardNormalPrior(PyroModule):
    r"""Independent :math:`N(0, I)` at each site; the code is their concatenation.

    Args:
        latent_dim: Size of the site ``z``.
        code_dim: Size of a second site ``c``, if there is to be one.

    Raises:
        OptionError: If a size is no whole number from 1 up.
    """

    @checked(latent_dim=size(), code_dim=size())
    def __init__(self, latent_dim: int, code_dim: int | None = None) -> None:
        super().__init__()
        self.sites: Mapping[str, int] = {"z": latent_dim}
        if code_dim is not None:
            self.sites = {"z": latent_dim, "c": code_dim}
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites inside the plate ``data``.

        Returns:
            The code, shape ``(batch, latent_dim + code_dim)``.
        """
        one = torch.ones_like(self.zero)  # a number would be copied to the device
        return join(
            pyro.sample(name, dist.Normal(self.zero, one).expand([size]).to_event(1))
            for name, size in self.sites.items()
        )


class UniformPrior(PyroModule):
    r"""Independent :math:`z \sim N(0, I)` and :math:`c \sim U(0, 1)^d`.

    The uniform is written as the `ProbitNormal` that it is, :math:`c = \Phi(u)` with
    :math:`u \sim N(0, I)`: its divergence from a posterior of that family is in closed form, and
    no draw falls on an end of the interval, where a posterior has no density. The code is ``z``
    and ``c``, the latter standardised to mean 0 and variance 1.

    With such a posterior rate and information are those of :math:`u`: a normal prior, and
    :math:`\Phi` for the decoder's first layer. A uniform prior changes what the networks find
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
        return join((z, math.sqrt(12.0) * (c - 0.5)))
