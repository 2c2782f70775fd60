"""The guide that recognises codes in generated data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, OneHotCategorical, Uniform
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, instance, named, several, shape, size, text
from pyro_mivae.distributions import ProbitNormal, TruncatedNormal
from pyro_mivae.errors import SiteError
from pyro_mivae.guides.heads import NormalHead
from pyro_mivae.networks import build_adversarial_networks, output_dim
from pyro_mivae.networks.layers import NETWORK, BatchNorm1d
from pyro_mivae.priors import base_of, site_size

LEAST_WIDTH = 0.1  # of a recognised code, in half intervals or standard deviations of its prior


class _CodeHead(NormalHead):
    """The distribution of a recognised code, at least a tenth as wide as its prior.

    A continuous code of a deterministic generator can carry any amount of information. The minimum
    width limits the bound to about 1.6 nats per dimension, and keeps its gradient finite.
    """

    def __init__(self, features: int, size: int, family: Any, ends: Sequence[float] = ()) -> None:
        super().__init__(features, size)
        self.family, self.ends = family, tuple(ends)

    def forward(self, features: Tensor) -> Any:
        """Returns the distribution; for a uniform code a truncated normal on its interval."""
        if not self.ends:
            loc, scale = super().forward(features)
            return self.family(loc, LEAST_WIDTH + scale).to_event(1)
        low, high = self.ends
        half = 0.5 * (high - low)
        loc, scale = self.linear(features).chunk(2, -1)
        loc = low + half * (1.0 + torch.tanh(loc))
        return self.family(loc, half * (LEAST_WIDTH + softplus(scale)), low, high).to_event(1)


class RecognitionGuide(PyroModule):
    r"""Codes given the data, :math:`\prod_s q(s \mid x)`; the noise is drawn from its prior.

    A hidden layer (batch norm, leaky ReLU) follows the encoder's features, then a linear head per
    code. A uniform code has a truncated normal on its interval. InfoGAN uses an untruncated normal
    there, which puts mass outside the prior's support. The truncated one does not, and its bound
    on the information is no lower for the same parameters.

    Args:
        data_shape: Shape of one datum.
        sites: The prior's distribution at each site, as `prior_sites` gives them.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
        noise: Standard normal sites that are not recognised.
        hidden_dim: Width of the hidden layer.

    Raises:
        SiteError: If a recognised site is not a one-hot category, uniform on one interval, normal,
            or a `ProbitNormal`; or if the noise is not normal.

    References:
        Chen et al. (2016), InfoGAN, section 6. https://arxiv.org/abs/1606.03657

    Example:
        >>> sites, _ = mi.priors.prior_sites(mi.InfoGANPrior(noise_dim=3))
        >>> guide = RecognitionGuide((1, 8, 8), sites)
        >>> mi.InfoGAN((1, 8, 8), prior=mi.InfoGANPrior(noise_dim=3), guide=guide).noise
        {'z'}
    """

    @checked(
        data_shape=shape(),
        sites=named(instance(Distribution, example="Normal(0, 1)")),
        encoder=NETWORK,
        noise=several(text(), least=0),
        hidden_dim=size(),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        sites: Mapping[str, Any],
        encoder: nn.Module | None = None,
        *,
        noise: Collection[str] = ("z",),
        hidden_dim: int = 128,
    ) -> None:
        super().__init__()
        default = build_adversarial_networks
        self.encoder = default("auto", data_shape, 1)[0] if encoder is None else encoder
        self.hidden = nn.Sequential(
            nn.Linear(output_dim(self.encoder, data_shape), hidden_dim, bias=False),
            BatchNorm1d(hidden_dim),
            nn.LeakyReLU(0.1),
        )
        self.noise = {name: site_size(fn) for name, fn in sites.items() if name in noise}
        for name in self.noise:
            base = base_of(sites[name])
            if not isinstance(base, Normal):
                raise SiteError(
                    f"the noise {name!r} is {type(base).__name__} in the prior; make it "
                    "Normal(0, 1), or give a guide of your own"
                )
        self.heads = nn.ModuleDict(
            {n: _head(n, fn, hidden_dim) for n, fn in sites.items() if n not in noise}
        )

    def forward(self, x: Tensor) -> None:
        """Samples the sites, given data of shape ``(batch, *data_shape)``."""
        features = self.hidden(self.encoder(x))  # (batch, hidden_dim)
        zero, one, heads = features.new_zeros(()), features.new_ones(()), self.heads
        with pyro.plate("data", len(x)):
            for name, size in self.noise.items():
                pyro.sample(name, dist.Normal(zero, one).expand([size]).to_event(1))
            for name, head in heads.items():
                if isinstance(head, nn.Linear):
                    category = dist.OneHotCategorical(logits=head(features))
                    pyro.sample(name, category, infer={"enumerate": "parallel"})
                else:
                    pyro.sample(name, head(features))


def _head(name: str, fn: Any, in_features: int) -> nn.Module:
    base, size = base_of(fn), site_size(fn)
    if isinstance(base, OneHotCategorical):
        return nn.Linear(in_features, size)
    if isinstance(base, Uniform):
        ends = torch.stack([base.low, base.high]).reshape(2, -1)
        if bool((ends == ends[:, :1]).all()):
            return _CodeHead(in_features, size, TruncatedNormal, ends[:, 0].tolist())
    if isinstance(base, ProbitNormal | Normal):
        family = ProbitNormal if isinstance(base, ProbitNormal) else dist.Normal
        return _CodeHead(in_features, size, family)
    raise SiteError(
        f"site {name!r} is {type(base).__name__} in the prior; the default guide recognises "
        "OneHotCategorical, Normal, ProbitNormal, and Uniform on the same interval in every "
        "dimension: give a guide of your own for others"
    )
