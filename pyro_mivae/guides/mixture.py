"""The guide of a mixture: a category, and a Normal that depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, shape, size
from pyro_mivae.guides.mean_field import MIN_SCALE
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.networks.layers import NETWORK
from pyro_mivae.priors.base import site_size


class MixtureGuide(PyroModule):
    r"""A category given the data, and a Normal given both: :math:`q(c \mid x)\,q(z \mid x, c)`.

    Each category has its own linear map from features to ``z``. The category is annotated for
    enumeration; it enters as a one-hot vector, linearly, so that a relaxed one serves as well.

    Args:
        data_shape: Shape of one datum.
        num_categories: Number of categories.
        latent_dim: Size of ``z``.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.

    Raises:
        OptionError: If a size is no whole number from 1 up.

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
