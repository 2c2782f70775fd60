"""Standard normal priors."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, size


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
        values = [
            pyro.sample(name, dist.Normal(self.zero, one).expand([size]).to_event(1))
            for name, size in self.sites.items()
        ]
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values))
        return torch.cat([value.expand(*batch, -1) for value in values], -1)
