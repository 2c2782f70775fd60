"""A prior that reads the condition of each datum."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, several, shape, size
from pyro_mivae.networks.layers import location_and_scale, mlp
from pyro_mivae.priors.base import join, names


class ConditionalNormalPrior(PyroModule):
    r"""A Normal given a condition, for codes whose place differs between conditions.

    .. math:: z \mid u \sim N(\mu(u), \sigma(u)^2)

    A network gives mean and standard deviation of every coordinate. The rate is then given
    :math:`u` too: a code pays nothing for what the condition says of it. A variant with this prior
    has a condition of this shape; every use of it needs one.

    Args:
        given_shape: Shape of one condition :math:`u`, which is flattened; for labels ``(K,)``.
        latent_dim: Size of the first site.
        code_dim: Size of a second site; no such site if omitted.
        hidden_dims: Widths of the network's hidden layers; none makes mean and raw scale linear.
        sites: Names of the two.

    References:
        Sohn, Lee & Yan (2015), Learning Structured Output Representation using Deep Conditional
        Generative Models, eq. 4. https://papers.nips.cc/paper/5775

    Example:
        >>> prior = ConditionalNormalPrior((3,), latent_dim=2)
        >>> vae = mi.VAE((1, 8, 8), prior=prior)
        >>> vae.sample(4, given=1).shape
        torch.Size([4, 1, 8, 8])
    """

    @checked(
        given_shape=shape(),
        latent_dim=size(),
        code_dim=size(),
        hidden_dims=several(size(), least=0),
        sites=names(2),
    )
    def __init__(
        self,
        given_shape: Sequence[int],
        latent_dim: int = 20,
        code_dim: int | None = None,
        *,
        hidden_dims: Sequence[int] = (64,),
        sites: Sequence[str] = ("z", "c"),
    ) -> None:
        super().__init__()
        self.given_shape = tuple(given_shape)
        sizes = zip(sites, (latent_dim, code_dim))
        self.sites = {name: count for name, count in sizes if count is not None}
        outputs = 2 * sum(self.sites.values())
        self.network = mlp([prod(self.given_shape), *hidden_dims, outputs])

    def forward(self, given: Tensor) -> Tensor:
        """Samples the sites given conditions ``(batch, *given_shape)``, returns the code."""
        parts = self.network(given.flatten(1)).split([2 * n for n in self.sites.values()], -1)
        return join(
            pyro.sample(name, dist.Normal(*location_and_scale(part)).to_event(1))
            for name, part in zip(self.sites, parts, strict=True)
        )
