"""Priors of independent coordinates: normal, Laplace, Student's t, and uniform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, number, size
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.priors.base import join, names


class SiteNames(TypedDict, total=False):
    """Names of the sites of a prior of two."""

    sites: Sequence[str]


class StandardNormalPrior(PyroModule):
    r"""Independent :math:`N(0, I)` at each site, the usual prior; the code concatenates them.

    Args:
        latent_dim: Size of the first site.
        code_dim: Size of a second site; no such site if omitted.
        sites: Names of the two.

    Example:
        >>> StandardNormalPrior(3, code_dim=2)().shape
        torch.Size([5])
    """

    @checked(latent_dim=size(), code_dim=size(), sites=names(2))
    def __init__(
        self,
        latent_dim: int,
        code_dim: int | None = None,
        *,
        sites: Sequence[str] = ("z", "c"),
    ) -> None:
        super().__init__()
        self.sites = {
            name: size for name, size in zip(sites, (latent_dim, code_dim)) if size is not None
        }
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns the code, shape ``(batch, latent_dim + code_dim)``."""
        one = self._element(torch.ones_like(self.zero))  # a number would be copied to the device
        return join(
            pyro.sample(name, one.expand([size]).to_event(1)) for name, size in self.sites.items()
        )

    def _element(self, one: Tensor) -> Any:
        return dist.Normal(self.zero, one)


class LaplacePrior(StandardNormalPrior):
    r"""Independent Laplace distributions of mean 0 and variance 1, for sparse codes.

    The peak at 0 and the heavy tails favour codes with few large coordinates. The KL divergence of
    a Normal posterior has a closed form.

    References:
        Olshausen & Field (1997), Sparse coding with an overcomplete basis set, eq. 9.

    Example:
        >>> with pyro.plate("data", 5):
        ...     LaplacePrior(latent_dim=3)().shape
        torch.Size([5, 3])
    """

    def _element(self, one: Tensor) -> Any:
        return dist.Laplace(self.zero, math.sqrt(0.5) * one)


class StudentTPrior(StandardNormalPrior):
    r"""Independent Student's t distributions of mean 0 and variance 1, for codes with outliers.

    With its heavy tails, a few data may have codes far from 0. The KL divergence has no closed
    form: it is a one-sample estimate.

    Args:
        latent_dim: Size of the first site.
        code_dim: Size of a second site; no such site if omitted.
        df: Degrees of freedom, above 2, where the variance is finite. The larger, the closer to
            the normal.
        **options: The names of the sites, see `StandardNormalPrior`.

    Example:
        >>> with pyro.plate("data", 5):
        ...     StudentTPrior(latent_dim=3, df=5.0)().shape
        torch.Size([5, 3])
    """

    @checked(df=number(above=2, most=1e6))
    def __init__(
        self,
        latent_dim: int,
        code_dim: int | None = None,
        *,
        df: float = 4.0,
        **options: Unpack[SiteNames],
    ) -> None:
        super().__init__(latent_dim, code_dim, **options)
        self.df = df

    def _element(self, one: Tensor) -> Any:
        return dist.StudentT(self.df * one, self.zero, math.sqrt((self.df - 2) / self.df) * one)


class UniformPrior(PyroModule):
    r"""Independent :math:`z \sim N(0, I)` and :math:`c \sim U(0, 1)^d`, for a bounded code.

    The uniform is implemented as a `ProbitNormal`, :math:`c = \Phi(u)` with :math:`u \sim N(0,
    I)`. So the KL divergence of a posterior of that family has a closed form, and no draw falls on
    an end of the interval, where a posterior has no density. The code is ``z`` and ``c``; the
    latter is standardised to mean 0 and variance 1.

    With such a posterior, rate and information are those of :math:`u`: a normal prior with
    :math:`\Phi` as the decoder's first layer. So a uniform prior does not change the objective,
    only which functions are easy for the networks.

    Args:
        latent_dim: Size of ``z``.
        code_dim: Size of ``c``.
        sites: Names of the two.

    References:
        Chen et al. (2016), InfoGAN, section 7: uniform codes. https://arxiv.org/abs/1606.03657
        Ducau & Trénous, Mutual Information in Variational Autoencoders (poster), open questions.

    Example:
        >>> prior = UniformPrior(latent_dim=3, code_dim=1)
        >>> with pyro.plate("data", 5):
        ...     prior().shape
        torch.Size([5, 4])
    """

    @checked(latent_dim=size(), code_dim=size(), sites=names(2))
    def __init__(
        self, latent_dim: int, code_dim: int = 1, *, sites: Sequence[str] = ("z", "c")
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.latent_dim = latent_dim
        self.code_dim = code_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns the code, shape ``(batch, latent_dim + code_dim)``."""
        zero, one = self.zero, torch.ones_like(self.zero)
        normal = dist.Normal(zero, one).expand([self.latent_dim]).to_event(1)
        uniform = ProbitNormal(zero, one).expand([self.code_dim]).to_event(1)
        z, c = (pyro.sample(*pair) for pair in zip(self.sites, (normal, uniform)))
        return join((z, math.sqrt(12.0) * (c - 0.5)))
