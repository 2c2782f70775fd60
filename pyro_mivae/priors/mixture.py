"""Uniform categories, each a Gaussian in the code space."""

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


class MixturePrior(PyroModule):
    r"""A uniform category, and a Gaussian about the category's mean.

    .. math:: c \sim U\{1..K\},\quad z \mid c \sim N(\mu_c, I)

    The means are orthogonal and equally far apart: :math:`\mu_c` is the same in the
    ``latent_dim / num_categories`` coordinates of the c-th block, and 0 elsewhere.
    The category is one-hot, so that a relaxed one moves the mean linearly.

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
