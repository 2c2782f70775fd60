"""A prior of two levels."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, flag, several, size
from pyro_mivae.networks.layers import location_and_scale, mlp
from pyro_mivae.priors.base import join, names


class HierarchicalPrior(PyroModule):
    r"""Two levels, for coarse and fine: a Normal :math:`z_1` given a standard normal :math:`z_2`.

    .. math:: z_2 \sim N(0, I),\quad z_1 \mid z_2 \sim N(\mu(z_2), \sigma(z_2)^2)

    A network gives mean and standard deviation. Each level has a divergence of its own. If the
    guide draws :math:`z_2` first, both have a closed form given that draw: :math:`KL(q(z_2 \mid x)
    \| p(z_2))` and :math:`E_q KL(q(z_1 \mid x) \| p(z_1 \mid z_2))`.

    Args:
        latent_dim: Size of :math:`z_1`.
        top_dim: Size of :math:`z_2`; that of :math:`z_1` if omitted.
        hidden_dims: Widths of the network's hidden layers.
        skip: True to decode both; False to decode :math:`z_1` alone.
        sites: Names of :math:`z_1` and :math:`z_2`.

    References:
        Sønderby et al. (2016), Ladder Variational Autoencoders, eq. 2.
        https://arxiv.org/abs/1602.02282

    Example:
        >>> prior = HierarchicalPrior(latent_dim=3, top_dim=2)
        >>> with pyro.plate("data", 5):
        ...     prior().shape
        torch.Size([5, 3])
    """

    zero: Tensor

    @checked(
        latent_dim=size(),
        top_dim=size(),
        hidden_dims=several(size(), least=0),
        skip=flag(),
        sites=names(2),
    )
    def __init__(
        self,
        latent_dim: int = 20,
        top_dim: int | None = None,
        *,
        hidden_dims: Sequence[int] = (64,),
        skip: bool = False,
        sites: Sequence[str] = ("z1", "z2"),
    ) -> None:
        super().__init__()
        self.sites, self.skip = tuple(sites), skip
        self.top_dim = latent_dim if top_dim is None else top_dim
        self.network = mlp([self.top_dim, *hidden_dims, 2 * latent_dim])
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples both, returns :math:`z_1`, ``(batch, latent_dim)``, or both side by side."""
        lower, upper = self.sites
        one = torch.ones_like(self.zero)
        z2 = pyro.sample(upper, dist.Normal(self.zero, one).expand([self.top_dim]).to_event(1))
        loc, scale = location_and_scale(self.network(z2))
        z1: Tensor = pyro.sample(lower, dist.Normal(loc, scale).to_event(1))
        return join((z1, z2)) if self.skip else z1
