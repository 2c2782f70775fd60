"""Flow priors: a normal base, and an invertible map from it to the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import AffineCoupling, Permute
from pyro.nn import DenseNN, PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_mivae.arguments import checked, choice, size, text, whole
from pyro_mivae.compat import validates_distributions
from pyro_mivae.errors import OptionError
from pyro_mivae.networks.layers import WIDTHS

Flow = Literal["coupling", "autoregressive", "spline"]


class FlowDistribution(ZukoToPyro):
    """A flow of zuko on vectors, as a distribution of Pyro that names its support."""

    support = constraints.real_vector

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, as a component of a mixture does."""
        return self(torch.Size(sample_shape))

    def expand(self, *args: Any, **kwargs: Any) -> FlowDistribution:
        """Returns the same distribution over a larger batch shape."""
        return type(self)(self.dist.expand(*args, **kwargs))


class FlowPrior(PyroModule):
    r"""A flow: :math:`z = f(u)`, :math:`u \sim N(0, I)`, with a learned invertible :math:`f`.

    .. math:: \log p(z) = \log N(f^{-1}(z); 0, I) - \log |\det J_f(f^{-1}(z))|

    Draws of the prior, such as those of ``vae.sample``, pass through the flow. The density of a
    code, which training needs, takes one pass of the networks. The KL divergence is a one-sample
    estimate.

    A flow has no known mean: where others take the prior's mean (`reconstruct` with ``keep``,
    `decode` without the site), it is the mean of 100 draws with a fixed seed.

    Args:
        latent_dim: Size of the site, 2 or more for ``"coupling"``.
        flow: ``"coupling"``: Pyro's affine coupling; draws take one pass, too.
            ``"autoregressive"``: zuko's masked affine autoregressive flow. ``"spline"``: zuko's
            neural spline flow, which is the identity outside of [-5, 5]. Draws of the last two
            take ``latent_dim`` passes. They need ``pip install 'pyro-mivae[flows]'``.
        transforms: Number of transforms; every second one reads the coordinates in reverse order.
        hidden_dims: Widths of the hidden layers of each transform's network.
        site: Name of the site.

    Raises:
        OptionError: If zuko is needed and not installed, or one coordinate is to be coupled.

    References:
        Dinh et al. (2017), Density Estimation Using Real NVP. https://arxiv.org/abs/1605.08803
        Papamakarios et al. (2017), Masked Autoregressive Flow. https://arxiv.org/abs/1705.07057
        Durkan et al. (2019), Neural Spline Flows. https://arxiv.org/abs/1906.04032

    Example:
        >>> prior = FlowPrior(latent_dim=3, transforms=2, hidden_dims=[8])
        >>> with pyro.plate("data", 5):
        ...     prior().shape
        torch.Size([5, 3])
    """

    reverse: Tensor

    @checked(
        latent_dim=size(),
        flow=choice(*get_args(Flow)),
        transforms=whole(least=1, most=1000),
        hidden_dims=WIDTHS,
        site=text(),
    )
    def __init__(
        self,
        latent_dim: int = 20,
        flow: Flow = "coupling",
        *,
        transforms: int = 3,
        hidden_dims: Sequence[int] = (64, 64),
        site: str = "z",
    ) -> None:
        super().__init__()
        self.latent_dim, self.flow, self.site = latent_dim, flow, site
        self.register_buffer("reverse", torch.arange(latent_dim).flip(0), persistent=False)
        if flow != "coupling":
            self.network = _zuko_flow(flow, latent_dim, transforms, list(hidden_dims))
            return
        if latent_dim < 2:
            raise OptionError(
                f"latent_dim={latent_dim}: a coupling moves some coordinates given the others; "
                "give 2 or more, or flow='spline'"
            )
        kept = latent_dim // 2
        moved = [latent_dim - kept] * 2  # shift and scale
        self.network = nn.ModuleList(
            DenseNN(kept, list(hidden_dims), moved) for _ in range(transforms)
        )

    def forward(self) -> Tensor:
        """Samples the site, returns it, shape ``(batch, latent_dim)``."""
        return pyro.sample(self.site, self.distribution())

    def distribution(self) -> Any:
        """Returns the distribution of one code."""
        networks = self.network  # Pyro registers every parameter each time that it is read
        if not isinstance(networks, nn.ModuleList):
            return FlowDistribution(networks())
        zero = next(networks.parameters()).new_zeros(self.latent_dim)
        steps: list[Any] = []
        for network in networks:  # transforms store what they computed last, so they are new
            steps += [AffineCoupling(self.latent_dim // 2, network), Permute(self.reverse)]
        base = dist.Normal(zero, torch.ones_like(zero)).to_event(1)
        return dist.TransformedDistribution(base, steps[:-1])


def import_zuko(what: str, other: str) -> Any:
    """Imports zuko for something that needs it; the other choice does not."""
    validates = validates_distributions()
    try:
        import zuko
    except ImportError as error:
        raise OptionError(
            f"{what} needs zuko: pip install 'pyro-mivae[flows]'; {other} does without"
        ) from error
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)  # zuko unsets it
    return zuko


def _zuko_flow(flow: Flow, features: int, transforms: int, hidden: list[int]) -> nn.Module:
    zuko = import_zuko(f"flow={flow!r}", "flow='coupling'")
    build = zuko.flows.NSF if flow == "spline" else zuko.flows.MAF
    return build(features, transforms=transforms, hidden_features=hidden)
