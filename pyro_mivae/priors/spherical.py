"""A uniform prior on the unit sphere."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor
from torch.nn.functional import normalize

from pyro_mivae.arguments import checked, size, text
from pyro_mivae.spherical import SphericalUniform


class SphericalPrior(PyroModule):
    r"""The uniform on the unit sphere :math:`S^{d-1}`, for directions and angles.

    No direction is preferred, and a code has no length that could shrink to 0. The guide of a
    variant is a `PowerSpherical`, whose KL divergence has a closed form. Values inside the sphere,
    such as a posterior mean, are decoded by their direction.

    Args:
        latent_dim: :math:`d`, 2 or more: the coordinates of the space, one more than the sphere's
            dimension.
        site: Name of the site.

    References:
        Davidson et al. (2018), Hyperspherical VAEs. https://arxiv.org/abs/1804.00891

    Example:
        >>> with pyro.plate("data", 5):
        ...     SphericalPrior(latent_dim=3)().norm(dim=-1).round()
        tensor([1., 1., 1., 1., 1.])
    """

    zero: Tensor

    @checked(latent_dim=size(least=2), site=text())
    def __init__(self, latent_dim: int = 20, *, site: str = "z") -> None:
        super().__init__()
        self.latent_dim, self.site = latent_dim, site
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the site, returns its direction, shape ``(batch, latent_dim)``."""
        z = pyro.sample(self.site, SphericalUniform(self.latent_dim, self.zero))
        return normalize(z, dim=-1)
