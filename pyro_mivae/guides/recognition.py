"""The guide of InfoGAN: it recognises the codes of an image, and leaves the noise alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, instance, named, several, shape, size, text
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import SiteError
from pyro_mivae.guides.mean_field import NormalHead, TwoLinear
from pyro_mivae.guides.truncated_normal import TruncatedNormal
from pyro_mivae.networks import build_adversarial_networks, output_dim
from pyro_mivae.networks.layers import NETWORK, BatchNorm1d
from pyro_mivae.priors.base import base_of, site_size

MIN_SCALE = 0.1  # of half the interval


class UniformHead(nn.Module):
    """A truncated normal on the interval of a uniform code.

    Its scale is at least a tenth of half the interval: a continuous code of a deterministic
    generator can carry any amount of information, and the floor keeps the bound on it to about
    1.6 nats per dimension, and its gradient finite.
    """

    def __init__(self, in_features: int, size: int, low: float, high: float) -> None:
        super().__init__()
        self.linear = TwoLinear(in_features, size)
        self.low, self.high = low, high

    def forward(self, features: Tensor) -> Any:
        """Returns the distribution of the codes."""
        half = 0.5 * (self.high - self.low)
        loc, scale = self.linear(features)
        loc = self.low + half * (1.0 + torch.tanh(loc))
        scale = half * (MIN_SCALE + softplus(scale))
        return TruncatedNormal(loc, scale, self.low, self.high).to_event(1)


class CategoryHead(nn.Linear):
    """A one-hot category, linear in the features up to a softmax."""

    def forward(self, input: Tensor) -> Any:
        """Returns the distribution of the category."""
        return dist.OneHotCategorical(logits=super().forward(input))


class GaussianHead(NormalHead):
    """Independent Normals, at least a tenth as wide as a standard normal; see `UniformHead`."""

    def __init__(self, in_features: int, size: int, family: Callable[..., Any]) -> None:
        super().__init__(in_features, size)
        self.family = family

    def forward(self, features: Tensor) -> Any:
        """Returns the distribution of the codes."""
        loc, scale = super().forward(features)
        return self.family(loc, MIN_SCALE + scale).to_event(1)


class RecognitionGuide(PyroModule):
    r"""Codes given the data, :math:`\prod_s q(s \mid x)`; the noise is drawn from its prior.

    A hidden layer (batch norm, leaky ReLU) on the encoder's features, and on it a linear head per
    code: a category for a category, and for a uniform code a truncated normal on the code's
    interval. InfoGAN takes a normal without ends there, which puts mass where the prior has none;
    cut off, it is absolutely continuous with respect to the prior, and its bound on the
    information no lower for the same parameters.

    Args:
        data_shape: Shape of one datum.
        sites: The prior's distribution at each site, as `prior_sites` gives them.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
        noise: Sites that are not recognised, standard normal.
        hidden_dim: Width of the hidden layer.

    Raises:
        SiteError: If a site to be recognised is neither a one-hot category, nor uniform on one
            interval, nor normal or a `ProbitNormal`, or the noise is not normal.

    References:
        Chen et al. (2016), InfoGAN, section 6. https://arxiv.org/abs/1606.03657
    """

    @checked(
        data_shape=shape(),
        sites=named(instance(torch.distributions.Distribution, example="Normal(0, 1)")),
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
        if encoder is None:
            encoder = build_adversarial_networks("auto", data_shape, 1)[0]
        self.encoder = encoder
        self.hidden = nn.Sequential(
            nn.Linear(output_dim(self.encoder, data_shape), hidden_dim, bias=False),
            BatchNorm1d(hidden_dim),
            nn.LeakyReLU(0.1),
        )
        self.noise = {name: site_size(fn) for name, fn in sites.items() if name in noise}
        for name in self.noise:
            base = base_of(sites[name])
            if not isinstance(base, torch.distributions.Normal):
                raise SiteError(
                    f"the noise {name!r} is {type(base).__name__} in the prior; make it "
                    "Normal(0, 1), or give a guide of your own"
                )
        codes = {name: fn for name, fn in sites.items() if name not in self.noise}
        heads = {name: _head(name, fn, hidden_dim) for name, fn in codes.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> None:
        """Samples the sites, given data of shape ``(batch, *data_shape)``."""
        features = self.hidden(self.encoder(x))  # (batch, hidden_dim)
        zero, one, heads = features.new_zeros(()), features.new_ones(()), self.heads
        with pyro.plate("data", len(x)):
            for name, size in self.noise.items():
                pyro.sample(name, dist.Normal(zero, one).expand([size]).to_event(1))
            for name, head in heads.items():
                fn = head(features)
                infer: Any = {"enumerate": "parallel"} if fn.has_enumerate_support else None
                pyro.sample(name, fn, infer=infer)


def _head(name: str, fn: Any, in_features: int) -> nn.Module:
    """Builds the head that recognises a site."""
    base, size = base_of(fn), site_size(fn)
    if isinstance(base, torch.distributions.OneHotCategorical):
        return CategoryHead(in_features, size)
    if isinstance(base, torch.distributions.Uniform):
        ends = torch.stack([base.low, base.high]).reshape(2, -1)
        if bool((ends == ends[:, :1]).all()):
            return UniformHead(in_features, size, *ends[:, 0].tolist())
    if isinstance(base, ProbitNormal):
        return GaussianHead(in_features, size, ProbitNormal)
    if isinstance(base, torch.distributions.Normal):
        return GaussianHead(in_features, size, dist.Normal)
    raise SiteError(
        f"site {name!r} is {type(base).__name__} in the prior; the default guide recognises "
        "OneHotCategorical, Normal, ProbitNormal, and Uniform on the same interval in every "
        "dimension: give a guide of your own for others"
    )
