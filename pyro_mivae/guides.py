"""Guides: PyroModules that sample the sites of the code from the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, OneHotCategorical, Uniform, constraints
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, function, instance, named, several, shape, size, text
from pyro_mivae.distributions import ProbitNormal, TruncatedNormal
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.networks import build_adversarial_networks, build_networks, output_dim
from pyro_mivae.networks.layers import NETWORK, BatchNorm1d
from pyro_mivae.priors import base_of, site_size

__all__ = [
    "GUIDES",
    "CorruptedGuide",
    "MeanFieldGuide",
    "MixtureGuide",
    "NormalHead",
    "RecognitionGuide",
    "TruncatedNormal",
    "mean_field_guide",
    "mixture_guide",
    "normal_guide",
    "uniform_guide",
]

MIN_SCALE = 1e-4
LEAST_WIDTH = 0.1  # of a recognised code, in half intervals or standard deviations of its prior


class TwoLinear(nn.Linear):
    """Two linear layers on the same features, computed as one product."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__(in_features, 2 * size)

    def reset_parameters(self) -> None:
        """Draws the parameters like those of two separate layers, one after the other."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        for weight, bias in zip(self.weight.chunk(2), self.bias.chunk(2), strict=True):
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, input: Tensor) -> Any:
        """Returns the outputs of the two layers."""
        return super().forward(input).chunk(2, -1)


class NormalHead(nn.Module):
    """Mean and standard deviation of a Normal: linear in the features, the latter by a softplus.

    Args:
        in_features: Number of features.
        size: Size of the Normal.
    """

    @checked(in_features=size(), size=size())
    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.linear = TwoLinear(in_features, size)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation, two tensors of shape ``(..., size)``."""
        loc, scale = self.linear(features)
        return loc, softplus(scale) + MIN_SCALE


class MeanFieldGuide(PyroModule):
    r"""Independent sites given the data: :math:`q(code \mid x) = \prod_s q(s \mid x)`.

    Args:
        data_shape: Shape of one datum.
        sites: Size of each site, by name.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
        deterministic: Sites that are a function of the data (a Delta) instead of a Normal.
        bounded: Other sites, on the unit interval: a `ProbitNormal` instead of a Normal.

    Example:
        >>> guide = MeanFieldGuide((1, 8, 8), {"z": 3, "c": 1}, bounded=["c"])
        >>> code = pyro.poutine.trace(guide).get_trace(torch.rand(5, 1, 8, 8)).nodes["c"]["value"]
        >>> code.shape, bool(((code > 0) & (code < 1)).all())
        (torch.Size([5, 1]), True)
    """

    @checked(
        data_shape=shape(),
        sites=named(size(), least=1),
        encoder=NETWORK,
        deterministic=several(text(), least=0),
        bounded=several(text(), least=0),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        sites: Mapping[str, int],
        encoder: nn.Module | None = None,
        deterministic: Collection[str] = (),
        bounded: Collection[str] = (),
    ) -> None:
        super().__init__()
        both = set(deterministic) & set(bounded)
        if both or not {*deterministic, *bounded} <= set(sites):
            raise OptionError(
                f"sites {list(sites)}, deterministic {list(deterministic)}, bounded "
                f"{list(bounded)}: only existing sites can be deterministic or bounded, and "
                "not both"
            )
        self.encoder = build_networks("auto", data_shape, 1)[0] if encoder is None else encoder
        features = output_dim(self.encoder, data_shape)
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(features, size)
                if name in deterministic
                else NormalHead(features, size)
                for name, size in sites.items()
            }
        )
        self.deterministic = frozenset(deterministic)
        self.bounded = frozenset(bounded)

    def forward(self, x: Tensor) -> None:
        """Samples the sites, given data of shape ``(batch, *data_shape)``."""
        features = self.encoder(x)  # (batch, features)
        heads = self.heads
        with pyro.plate("data", len(x)):
            for name, head in heads.items():
                if name in self.deterministic:
                    pyro.sample(name, dist.Delta(head(features), event_dim=1))
                elif name in self.bounded:
                    pyro.sample(name, ProbitNormal(*head(features)).to_event(1))
                else:
                    pyro.sample(name, dist.Normal(*head(features)).to_event(1))


def mean_field_guide(
    data_shape: Sequence[int],
    distributions: Mapping[str, Any],
    encoder: nn.Module | None = None,
    deterministic: Collection[str] = (),
) -> MeanFieldGuide:
    """Builds the guide of a prior without categories, on the prior's supports.

    The prior's ``distributions`` are those of `prior_sites`; see `MeanFieldGuide` for the others.
    """
    categories = [name for name, fn in distributions.items() if fn.has_enumerate_support]
    if categories:
        raise SiteError(
            f"the prior samples the categories {categories}, and the default guide has no "
            "category; give a guide that samples them, such as mi.MixtureGuide(...) or one of "
            "your own"
        )
    sites = {name: site_size(fn) for name, fn in distributions.items()}
    bounded = [
        name
        for name, fn in distributions.items()
        if base_of(fn).support is constraints.unit_interval and name not in deterministic
    ]
    return MeanFieldGuide(data_shape, sites, encoder, deterministic, bounded)


@checked(latent_dim=size(), code_dim=size())
def normal_guide(
    data_shape: Sequence[int],
    latent_dim: int,
    code_dim: int | None = None,
    encoder: nn.Module | None = None,
) -> MeanFieldGuide:
    """Builds the `MeanFieldGuide` of ``z`` and, if its size is above 0, ``c``."""
    sites = {"z": latent_dim} if code_dim is None else {"z": latent_dim, "c": code_dim}
    return MeanFieldGuide(data_shape, sites, encoder)


def uniform_guide(
    data_shape: Sequence[int],
    latent_dim: int,
    code_dim: int = 1,
    encoder: nn.Module | None = None,
) -> MeanFieldGuide:
    """Builds the guide of `UniformPrior`: ``z`` is a Normal, ``c`` a `ProbitNormal`."""
    return MeanFieldGuide(data_shape, {"z": latent_dim, "c": code_dim}, encoder, bounded=("c",))


class CorruptedGuide(PyroModule):
    """Gives a guide corrupted data in training, and the original data in evaluation.

    The model still scores the original data: a denoising autoencoder.

    Args:
        guide: The guide.
        corrupt: From data of shape ``(batch, *data_shape)`` to corrupted data of that shape.

    References:
        Im et al. (2017), Denoising Criterion for Variational Auto-encoding Framework.
        https://arxiv.org/abs/1511.06406
    """

    @checked(guide=NETWORK, corrupt=function("corrupt(x)"))
    def __init__(self, guide: nn.Module, corrupt: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.guide = guide
        self.corrupt = corrupt

    def forward(self, x: Tensor) -> Any:
        """Runs the guide on data of shape ``(batch, *data_shape)``."""
        return self.guide(self.corrupt(x) if self.training else x)


class MixtureGuide(PyroModule):
    r"""A category given the data, and a Normal given both: :math:`q(c \mid x)\,q(z \mid x, c)`.

    Each category has its own linear map from features to ``z``. The category is annotated for
    enumeration. It enters linearly, as a one-hot vector, so a relaxed one works too.

    Args:
        data_shape: Shape of one datum.
        num_categories: Number of categories.
        latent_dim: Size of ``z``.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.

    References:
        Pineau & Lelarge (2018), InfoCatVAE, section 2.1. https://arxiv.org/abs/1806.08240
    """

    @checked(data_shape=shape(), num_categories=size(), latent_dim=size(), encoder=NETWORK)
    def __init__(
        self,
        data_shape: Sequence[int],
        num_categories: int = 10,
        latent_dim: int = 20,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = build_networks("auto", data_shape, 1)[0] if encoder is None else encoder
        features = output_dim(self.encoder, data_shape)
        self.category = nn.Linear(features, num_categories)
        self.code = nn.Linear(features, num_categories * 2 * latent_dim)
        self.code_shape = (num_categories, 2 * latent_dim)

    def forward(self, x: Tensor) -> None:
        """Samples ``c`` and ``z``, given data of shape ``(batch, *data_shape)``."""
        features = self.encoder(x)  # (batch, features)
        codes = self.code(features).unflatten(-1, self.code_shape)  # (batch, K, 2 latent_dim)
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c",
                dist.OneHotCategorical(logits=self.category(features)),
                infer={"enumerate": "parallel"},
            )
            code = torch.einsum("...bk,bkd->...bd", c, codes)  # (..., batch, 2 latent_dim)
            loc, scale = torch.chunk(code, 2, -1)
            pyro.sample("z", dist.Normal(loc, softplus(scale) + MIN_SCALE).to_event(1))


def mixture_guide(
    data_shape: Sequence[int], distributions: Mapping[str, Any], encoder: nn.Module
) -> MixtureGuide:
    """Builds the guide of a prior with a category ``c`` and a site ``z``."""
    c, z = (site_size(distributions[name]) if name in distributions else 1 for name in "cz")
    return MixtureGuide(data_shape, c, z, encoder)


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
        loc, scale = self.linear(features)
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
    """Builds the head that recognises a site."""
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


GUIDES = {"mean-field": normal_guide, "uniform": uniform_guide, "mixture": MixtureGuide}
