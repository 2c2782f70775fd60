"""Mean-field guides, and a guide that sees corrupted data."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, function, named, several, shape, size, text
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.networks.layers import NETWORK
from pyro_mivae.priors.base import base_of, site_size

MIN_SCALE = 1e-4


class TwoLinear(nn.Linear):
    """Two linear layers of the same features as one product, initialised separately."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__(in_features, 2 * size)

    def reset_parameters(self) -> None:
        """Draws the parameters as those of two layers of their own, one after the other."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        for weight, bias in zip(self.weight.chunk(2), self.bias.chunk(2), strict=True):
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, input: Tensor) -> Any:
        """Returns the outputs of the two layers."""
        return super().forward(input).chunk(2, -1)


class NormalHead(nn.Module):
    """Mean and standard deviation of a Normal, linear in the features up to a softplus.

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
        deterministic: Sites that are a function of the data (a Delta) and not a Normal.
        bounded: Sites on the unit interval, which are a `ProbitNormal` and not a Normal.

    Raises:
        OptionError: If no site is given, a size is no whole number from 1 up, or a deterministic
            or bounded site is none of them, or both.

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
                f"{list(bounded)}: only sites that there are can be deterministic or bounded, and "
                "a site is one of these"
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
    """Builds the guide of a prior without categories; its sites live where the prior's do.

    Args:
        data_shape: Shape of one datum.
        distributions: The prior's distribution at each site, as `prior_sites` gives them.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
        deterministic: Sites that are a function of the data.

    Raises:
        SiteError: If a site is a category.
    """
    categories = [name for name, fn in distributions.items() if fn.has_enumerate_support]
    if categories:
        raise SiteError(
            f"the prior samples the categories {categories}, and the default guide has no "
            "category; give a guide that samples them, such as mi.MixtureGuide(...) or one of "
            "your own"
        )
    sites = {name: site_size(fn) for name, fn in distributions.items()}
    bounded = {
        n for n, fn in distributions.items() if base_of(fn).support is constraints.unit_interval
    }
    bounded -= set(deterministic)
    return MeanFieldGuide(data_shape, sites, encoder, deterministic, bounded)


@checked(latent_dim=size(), code_dim=size())
def normal_guide(
    data_shape: Sequence[int],
    latent_dim: int,
    code_dim: int | None = None,
    encoder: nn.Module | None = None,
) -> MeanFieldGuide:
    """Builds the mean-field guide of the sites ``z`` and, if it has a size, ``c``.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z``.
        code_dim: Size of ``c``, if there is one.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
    """
    sites = {"z": latent_dim} if code_dim is None else {"z": latent_dim, "c": code_dim}
    return MeanFieldGuide(data_shape, sites, encoder)


def uniform_guide(
    data_shape: Sequence[int],
    latent_dim: int,
    code_dim: int = 1,
    encoder: nn.Module | None = None,
) -> MeanFieldGuide:
    """Builds the guide of `UniformPrior`: ``z`` is a Normal, ``c`` a `ProbitNormal`.

    The arguments are those of `normal_guide`.
    """
    return MeanFieldGuide(data_shape, {"z": latent_dim, "c": code_dim}, encoder, bounded=("c",))


class CorruptedGuide(PyroModule):
    """Shows a guide altered data in training, and the data as they are in evaluation.

    The model still scores the data themselves: a denoising autoencoder.

    Args:
        guide: The guide.
        corrupt: Alters data, from shape ``(batch, *data_shape)`` to the same.

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
