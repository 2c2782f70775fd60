"""The prior of InfoGAN: noise, a category, and uniform codes."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, size
from pyro_mivae.errors import OptionError
from pyro_mivae.priors.base import join, names


class InfoGANPrior(PyroModule):
    r"""Noise, a uniform category, and uniform codes, for InfoGAN.

    .. math:: z \sim N(0, I),\quad c \sim U\{1..K\},\quad u \sim U[-1, 1]^d

    Args:
        noise_dim: Size of the noise ``z``.
        num_categories: :math:`K`, 2 or more; 0 for no category.
        uniform_dim: :math:`d`, the number of uniform codes ``u``; 0 for none, if there is a
            category.
        sites: Names of the three, the noise first.

    References:
        Chen et al. (2016), InfoGAN, section 7.2. https://arxiv.org/abs/1606.03657

    Example:
        >>> InfoGANPrior(noise_dim=3, num_categories=4, uniform_dim=2)().shape
        torch.Size([9])
    """

    @checked(
        noise_dim=size(),
        num_categories=size(least=0),
        uniform_dim=size(least=0),
        sites=names(3),
    )
    def __init__(
        self,
        noise_dim: int = 62,
        num_categories: int = 10,
        uniform_dim: int = 2,
        *,
        sites: Sequence[str] = ("z", "c", "u"),
    ) -> None:
        super().__init__()
        if num_categories == 1:
            raise OptionError(
                "num_categories=1: one has no information; give 2 or more, or 0 for none"
            )
        if not num_categories and not uniform_dim:
            raise OptionError(
                "num_categories=0 and uniform_dim=0: a code is needed; give one of them"
            )
        self.sites = tuple(sites)
        self.noise = self.sites[:1]
        self.noise_dim = noise_dim
        self.num_categories = num_categories
        self.uniform_dim = uniform_dim
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns their concatenation."""
        one = self.one
        noise = dist.Normal(torch.zeros_like(one), one).expand([self.noise_dim]).to_event(1)
        values = [pyro.sample(self.sites[0], noise)]
        if self.num_categories:
            logits = torch.zeros_like(one).expand(self.num_categories)
            values.append(pyro.sample(self.sites[1], dist.OneHotCategorical(logits=logits)))
        if self.uniform_dim:
            interval = dist.Uniform(-one, one).expand([self.uniform_dim]).to_event(1)
            values.append(pyro.sample(self.sites[2], interval))
        return join(values)
