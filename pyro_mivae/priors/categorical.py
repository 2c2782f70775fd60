"""Priors with a category: a mixture of Gaussians, and the codes of InfoGAN."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, number, size
from pyro_mivae.errors import OptionError
from pyro_mivae.memory import check_fitting
from pyro_mivae.priors.base import join


class MixturePrior(PyroModule):
    r"""A uniform category, and a Gaussian about the category's mean.

    .. math:: c \sim U\{1..K\},\quad z \mid c \sim N(\mu_c, I)

    The means are orthogonal and equally far apart: :math:`\mu_c` is the same in the
    ``latent_dim / num_categories`` coordinates of the c-th block, and 0 elsewhere.
    The category is one-hot: a relaxed one moves the mean linearly.

    Args:
        num_categories: :math:`K`.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted.
        radius: Distance :math:`|\mu_c|` of every mean from the origin.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim``, or a size is under 1,
            or the radius is negative, or the means do not fit into memory.

    References:
        Pineau & Lelarge (2018), InfoCatVAE, section 2.2. https://arxiv.org/abs/1806.08240
    """

    means: Tensor

    @checked(num_categories=size(), latent_dim=size(), radius=number(least=0, most=1e6))
    def __init__(
        self, num_categories: int = 10, latent_dim: int | None = None, radius: float = 3.0
    ) -> None:
        super().__init__()
        latent_dim = 2 * num_categories if latent_dim is None else latent_dim
        block, rest = divmod(latent_dim, num_categories)
        if rest or block < 1:
            raise OptionError(
                f"latent_dim={latent_dim} is no multiple of num_categories={num_categories}: "
                f"give every category the same number of coordinates, e.g. latent_dim="
                f"{max(1, round(latent_dim / num_categories)) * num_categories}"
            )
        check_fitting(num_categories * latent_dim, "give fewer categories, or coordinates", 4)
        self.num_categories = num_categories
        self.radius = radius
        blocks = torch.eye(num_categories).repeat_interleave(block, 1)
        self.register_buffer("means", radius / math.sqrt(block) * blocks)
        self.register_buffer("logits", torch.zeros(num_categories))

    def forward(self) -> Tensor:
        """Samples ``c`` and ``z`` inside the plate ``data``.

        Returns:
            ``z``, shape ``(batch, latent_dim)``.
        """
        c = pyro.sample("c", dist.OneHotCategorical(logits=self.logits))
        one = self.means.new_ones(())  # a number would be copied to the device
        z: Tensor = pyro.sample("z", dist.Normal(c @ self.means, one).to_event(1))
        return z


class InfoGANPrior(PyroModule):
    r"""Noise, a uniform category, and uniform codes; the code is their concatenation.

    .. math:: z \sim N(0, I),\quad c \sim U\{1..K\},\quad u \sim U[-1, 1]^d

    Args:
        noise_dim: Size of the noise ``z``.
        num_categories: :math:`K`, 2 or more; 0 for no category.
        uniform_dim: :math:`d`, the number of uniform codes ``u``; 0 for none.

    Raises:
        OptionError: If a size is out of range, or there is no code beside the noise.

    References:
        Chen et al. (2016), InfoGAN, section 7.2. https://arxiv.org/abs/1606.03657
    """

    @checked(noise_dim=size(), num_categories=size(least=0), uniform_dim=size(least=0))
    def __init__(
        self, noise_dim: int = 62, num_categories: int = 10, uniform_dim: int = 2
    ) -> None:
        super().__init__()
        if num_categories == 1:
            raise OptionError("num_categories=1: one says nothing; give 2 or more, or 0 for none")
        if not num_categories and not uniform_dim:
            raise OptionError("num_categories=0 and uniform_dim=0: a code is needed, give either")
        self.noise_dim = noise_dim
        self.num_categories = num_categories
        self.uniform_dim = uniform_dim
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites inside the plate ``data``.

        Returns:
            The code, shape ``(batch, noise_dim + num_categories + uniform_dim)``.
        """
        one = self.one
        noise = dist.Normal(torch.zeros_like(one), one).expand([self.noise_dim]).to_event(1)
        values = [pyro.sample("z", noise)]
        if self.num_categories:
            logits = torch.zeros_like(one).expand(self.num_categories)
            values.append(pyro.sample("c", dist.OneHotCategorical(logits=logits)))
        if self.uniform_dim:
            interval = dist.Uniform(-one, one).expand([self.uniform_dim]).to_event(1)
            values.append(pyro.sample("u", interval))
        return join(values)
