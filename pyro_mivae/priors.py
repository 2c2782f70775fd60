"""Priors of the code: PyroModules that sample its sites inside the data plate."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Independent

from pyro_mivae.arguments import checked, function, number, size
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.memory import check_fitting
from pyro_mivae.traces import Program

__all__ = [
    "PRIORS",
    "InfoGANPrior",
    "LaplacePrior",
    "MixturePrior",
    "StandardNormalPrior",
    "UniformPrior",
    "prior_sites",
]

PRIOR = function("prior(), such as mi.MixturePrior(...)")


@checked(prior=PRIOR)
def prior_sites(prior: Program) -> tuple[dict[str, Any], int]:
    """Runs a prior once, and returns the distributions of its sites and the size of its code.

    Args:
        prior: Called without arguments inside a plate, it samples the sites of the code and
            returns the tensor for the decoder.

    Returns:
        The distributions by site, for a batch of 1, and the size of the code's last dimension.

    Raises:
        SiteError: If the prior samples no site, or does not return a code of shape ``(batch,
            size)``.
    """
    prior = copy.deepcopy(prior)  # Pyro's modules must not run before they are part of a model

    def program() -> Tensor:
        with pyro.plate("data", 1):
            code: Tensor = prior()
            return code

    with torch.no_grad(), torch.random.fork_rng(devices=[]), poutine.block():
        with pyro.get_param_store().scope():
            trace = prune_subsample_sites(poutine.trace(program).get_trace())
    code = trace.nodes["_RETURN"]["value"]
    sites = {n: s["fn"] for n, s in trace.nodes.items() if s["type"] == "sample"}
    if not sites or not isinstance(code, Tensor) or code.shape[:-1] != (1,):
        shape = tuple(code.shape) if isinstance(code, Tensor) else type(code).__name__
        raise SiteError(
            f"the prior samples {list(sites)} and returns {shape} in a plate of size 1; sample "
            "one site or more and return the code that the likelihood decodes, shape (1, size)"
        )
    return sites, code.shape[-1]


def site_size(fn: Any) -> int:
    """Returns the number of elements of a site, or its number of categories."""
    return int(fn.probs.shape[-1] if fn.has_enumerate_support else fn.event_shape.numel())


def base_of(fn: Any) -> Any:
    """Returns the distribution of one element of a site."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def _join(values: Iterable[Tensor]) -> Tensor:
    """Concatenates values of sites; enumerated ones have one more batch dimension."""
    parts = list(values)
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, -1) for part in parts], -1)


class StandardNormalPrior(PyroModule):
    r"""Independent :math:`N(0, I)` at each site; the code is their concatenation.

    Args:
        latent_dim: Size of the site ``z``.
        code_dim: Size of a second site ``c``; 0 for none.
    """

    @checked(latent_dim=size(), code_dim=size())
    def __init__(self, latent_dim: int, code_dim: int | None = None) -> None:
        super().__init__()
        self.sites: Mapping[str, int] = {"z": latent_dim}
        if code_dim is not None:
            self.sites = {"z": latent_dim, "c": code_dim}
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns the code, shape ``(batch, latent_dim + code_dim)``."""
        one = self._element(torch.ones_like(self.zero))  # a number would be copied to the device
        return _join(
            pyro.sample(name, one.expand([size]).to_event(1)) for name, size in self.sites.items()
        )

    def _element(self, one: Tensor) -> Any:
        return dist.Normal(self.zero, one)


class LaplacePrior(StandardNormalPrior):
    r"""Independent Laplace distributions of mean 0 and variance 1 at each site.

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


class UniformPrior(PyroModule):
    r"""Independent :math:`z \sim N(0, I)` and :math:`c \sim U(0, 1)^d`.

    The uniform is implemented as a `ProbitNormal`, :math:`c = \Phi(u)` with :math:`u \sim N(0,
    I)`. So the KL divergence of a posterior of that family has a closed form, and no draw falls on
    an end of the interval, where a posterior has no density. The code is ``z`` and ``c``; the
    latter is standardised to mean 0 and variance 1.

    With such a posterior, rate and information are those of :math:`u`: a normal prior with
    :math:`\Phi` as the decoder's first layer. So a uniform prior does not change the objective,
    only which functions are easy for the networks.

    Args:
        latent_dim: Size of the site ``z``.
        code_dim: Size of the site ``c``.

    References:
        Chen et al. (2016), InfoGAN, section 7: uniform codes. https://arxiv.org/abs/1606.03657
        Ducau & Trénous, Mutual Information in Variational Autoencoders (poster), open questions.

    Example:
        >>> prior = UniformPrior(latent_dim=3, code_dim=1)
        >>> with pyro.plate("data", 5):
        ...     prior().shape
        torch.Size([5, 4])
    """

    @checked(latent_dim=size(), code_dim=size())
    def __init__(self, latent_dim: int, code_dim: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.code_dim = code_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns the code, shape ``(batch, latent_dim + code_dim)``."""
        zero, one = self.zero, torch.ones_like(self.zero)
        z = pyro.sample("z", dist.Normal(zero, one).expand([self.latent_dim]).to_event(1))
        c = pyro.sample("c", ProbitNormal(zero, one).expand([self.code_dim]).to_event(1))
        return _join((z, math.sqrt(12.0) * (c - 0.5)))


class MixturePrior(PyroModule):
    r"""A uniform category, and a Gaussian about the category's mean.

    .. math:: c \sim U\{1..K\},\quad z \mid c \sim N(\mu_c, I)

    The means are orthogonal, at equal distances: :math:`\mu_c` is constant in the ``latent_dim /
    num_categories`` coordinates of the c-th block, and 0 elsewhere. The category is one-hot; the
    mean is linear in it, so a relaxed category works too.

    Args:
        num_categories: :math:`K`.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted.
        radius: Distance :math:`|\mu_c|` of every mean from the origin. Among ten categories, the
            nearest mean is that of a draw's own category with probability 0.90 at a radius of 3,
            0.984 at 4 and 0.9999 at 6. The samples of a category cannot be purer than that.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim``, or the means do not fit
            into memory.

    References:
        Pineau & Lelarge (2018), InfoCatVAE, section 2.2. https://arxiv.org/abs/1806.08240
    """

    means: Tensor

    @checked(num_categories=size(), latent_dim=size(), radius=number(least=0, most=1e6))
    def __init__(
        self, num_categories: int = 10, latent_dim: int | None = None, radius: float = 6.0
    ) -> None:
        super().__init__()
        latent_dim = 2 * num_categories if latent_dim is None else latent_dim
        block, rest = divmod(latent_dim, num_categories)
        if rest:
            raise OptionError(
                f"latent_dim={latent_dim} is not a multiple of num_categories={num_categories}: "
                f"give every category the same number of coordinates, e.g. latent_dim="
                f"{max(1, round(latent_dim / num_categories)) * num_categories}"
            )
        check_fitting(num_categories * latent_dim, "give fewer categories, or coordinates", 4)
        self.num_categories = num_categories
        self.radius = radius
        blocks = torch.eye(num_categories).repeat_interleave(block, 1)
        self.register_buffer("means", radius / math.sqrt(block) * blocks)
        self.register_buffer("logits", torch.zeros(num_categories))

    def forward(self) -> Tensor:
        """Samples ``c`` and ``z``, returns ``z``, shape ``(batch, latent_dim)``."""
        c = pyro.sample("c", dist.OneHotCategorical(logits=self.logits))
        one = self.means.new_ones(())  # a number would be copied to the device
        z: Tensor = pyro.sample("z", dist.Normal(c @ self.means, one).to_event(1))
        return z


class InfoGANPrior(PyroModule):
    r"""Noise, a uniform category, and uniform codes; the code is their concatenation.

    .. math:: z \sim N(0, I),\quad c \sim U\{1..K\},\quad u \sim U[-1, 1]^d

    Args:
        noise_dim: Size of the noise ``z``.
        num_categories: :math:`K`, 2 or more; 0 for no category.
        uniform_dim: :math:`d`, the number of uniform codes ``u``; 0 for none, if there is a
            category.

    References:
        Chen et al. (2016), InfoGAN, section 7.2. https://arxiv.org/abs/1606.03657
    """

    @checked(noise_dim=size(), num_categories=size(least=0), uniform_dim=size(least=0))
    def __init__(
        self, noise_dim: int = 62, num_categories: int = 10, uniform_dim: int = 2
    ) -> None:
        super().__init__()
        if num_categories == 1:
            raise OptionError(
                "num_categories=1: one has no information; give 2 or more, or 0 for none"
            )
        if not num_categories and not uniform_dim:
            raise OptionError(
                "num_categories=0 and uniform_dim=0: a code is needed; give one of them"
            )
        self.noise_dim = noise_dim
        self.num_categories = num_categories
        self.uniform_dim = uniform_dim
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self) -> Tensor:
        """Samples the sites, returns their concatenation."""
        one = self.one
        noise = dist.Normal(torch.zeros_like(one), one).expand([self.noise_dim]).to_event(1)
        values = [pyro.sample("z", noise)]
        if self.num_categories:
            logits = torch.zeros_like(one).expand(self.num_categories)
            values.append(pyro.sample("c", dist.OneHotCategorical(logits=logits)))
        if self.uniform_dim:
            interval = dist.Uniform(-one, one).expand([self.uniform_dim]).to_event(1)
            values.append(pyro.sample("u", interval))
        return _join(values)


PRIORS = {
    "normal": StandardNormalPrior,
    "laplace": LaplacePrior,
    "uniform": UniformPrior,
    "mixture": MixturePrior,
    "codes": InfoGANPrior,
}
