"""VampPrior: a mixture of a guide's posteriors, given learned pseudo-inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, shape, size, text
from pyro_mivae.compat import BatchNorm
from pyro_mivae.distributions import Mixture, NormalMixture
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.memory import check_fitting
from pyro_mivae.priors.base import hold


class VampPrior(PyroModule):
    r"""A mixture of the guide's posteriors, for codes that a Gaussian does not fit.

    .. math:: p(z) = \sum_k w_k\, q(z \mid u_k)

    The pseudo-inputs :math:`u_k` have the shape of data and are learned. ``initialize`` of the
    variant, which `fit` calls, sets them to data drawn at random. They stay in the interval of the
    likelihood.

    With ``num_categories`` it is the mixture of the posteriors of category and Gaussian together,
    :math:`p(c, z) = \sum_k w_k\, q(c \mid u_k)\, q(z \mid u_k, c)`, whose two sites are

    .. math::
        p(c) = \sum_k w_k\, q(c \mid u_k),\quad
        p(z \mid c) = \sum_k r_k(c)\, q(z \mid u_k, c),\quad
        r_k(c) = w_k\, q(c \mid u_k) / p(c)

    So a variant with categories, whose guide is :math:`q(c \mid x)\, q(z \mid x, c)`, has a prior
    near its codes. The weights of the categories are learned with the pseudo-inputs, and only the
    objective keeps their centres apart.

    The prior reads the guide of the variant that it is passed to, whose method ``distributions``
    returns the distribution of each site given data, as `AmortizedGuide.distributions` does. It
    owns none of the guide's parameters, but its density has a gradient in them. The guide sees all
    pseudo-inputs in one pass, as in evaluation mode: batch normalisation uses its running
    statistics and leaves them as they are, and nothing is dropped. So the density does not depend
    on the batch, and is the same in training and in evaluation.

    The KL divergence of ``z`` is a one-sample estimate.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of the site.
        num_components: Number of pseudo-inputs, at most the number of training data.
        num_categories: Number of categories; no category if omitted.
        learn_weights: True to learn :math:`w_k`, which are equal otherwise.
        category: Name of the category's site.
        site: Name of the site.

    Raises:
        OptionError: If the pseudo-inputs do not fit into memory; from ``initialize``, if there are
            fewer data than pseudo-inputs.
        SiteError: When the prior runs, if it belongs to no variant, or if its guide does not
            return the distributions of these sites.

    References:
        Tomczak & Welling (2018), VAE with a VampPrior, eq. 9. https://arxiv.org/abs/1705.07120

    Example:
        >>> prior = VampPrior((1, 8, 8), latent_dim=3, num_components=10)
        >>> vae = mi.VAE((1, 8, 8), latent_dim=3, prior=prior)
        >>> vae.initialize(torch.rand(20, 1, 8, 8))
        >>> vae.sample(4).shape
        torch.Size([4, 1, 8, 8])
    """

    logits: Tensor
    _read: tuple[Any, ...] = ()  # the guide, in a tuple: it is no submodule

    @checked(
        data_shape=shape(),
        latent_dim=size(),
        num_components=size(),
        num_categories=size(least=2),
        learn_weights=flag(),
        category=text(),
        site=text(),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int = 20,
        num_components: int = 100,
        *,
        num_categories: int | None = None,
        learn_weights: bool = False,
        category: str = "c",
        site: str = "z",
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_components, self.site = latent_dim, num_components, site
        self.num_categories = num_categories
        self.category = None if num_categories is None else category
        count = num_components * torch.Size(data_shape).numel()
        check_fitting(count, "give fewer components")
        self.interval: tuple[float, float] | None = None
        self.pseudo_inputs = nn.Parameter(torch.rand(num_components, *data_shape))
        hold(self, "logits", torch.zeros(num_components), learned=learn_weights)

    def attach(self, guide: Any, interval: tuple[float, float] | None) -> None:
        """Takes the guide that the prior reads, and the interval of the data; None for any."""
        self._read, self.interval = (guide,), interval

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Sets the pseudo-inputs to data drawn at random, each at most once."""
        if len(x) < self.num_components:
            raise OptionError(
                f"num_components={self.num_components} for {len(x)} data; give at most one "
                "pseudo-input for each"
            )
        index = torch.randperm(len(x), device=x.device)[: self.num_components]
        self.pseudo_inputs.copy_(x[index])

    def outline(self) -> Tensor:
        """Samples the sites in their shapes without the guide, see `prior_sites`."""
        zero = self.logits.new_zeros(self.latent_dim)
        if self.category is not None and self.num_categories is not None:
            equal = dist.OneHotCategorical(logits=self.logits.new_zeros(self.num_categories))
            pyro.sample(self.category, equal)
        return pyro.sample(self.site, dist.Normal(zero, torch.ones_like(zero)).to_event(1))

    def forward(self) -> Tensor:
        """Samples the sites, returns ``z``, shape ``(batch, latent_dim)``."""
        read, weights = self.posteriors(), self.logits
        components = read[self.site]
        if self.category is not None:
            joint = weights.unsqueeze(-1) + read[self.category].logits  # log w_k q(c|u_k), (K, c)
            c = pyro.sample(self.category, dist.OneHotCategorical(logits=joint.logsumexp(0)))
            weights = c @ joint.T  # (..., K)
            if not _is_known(components):
                components = components({self.category: c.unsqueeze(-2)})
        is_normal = isinstance(getattr(components, "base_dist", None), dist.Normal)
        mixture = NormalMixture if is_normal else Mixture
        return pyro.sample(self.site, mixture(dist.Categorical(logits=weights), components))

    def posteriors(self) -> Any:
        """Returns the guide's distributions given the pseudo-inputs, batch shape ``(K,)``."""
        if not self._read:
            raise SiteError(
                "VampPrior reads the guide of a variant: pass it as prior=, such as "
                "mi.VAE(data_shape, prior=prior), or call prior.attach(guide, interval)"
            )
        (guide,) = self._read
        if not callable(getattr(guide, "distributions", None)):
            raise SiteError(
                f"VampPrior needs a guide that returns its distributions given data, "
                f"guide.distributions(x)[{self.site!r}], as mi.MeanFieldGuide does; "
                f"{type(guide).__name__} has no such method"
            )
        inputs: Tensor = self.pseudo_inputs
        if self.interval is not None:
            inputs = _Inside.apply(inputs, *self.interval)
        with as_in_evaluation(guide):
            read = guide.distributions(inputs)
        own = [name for name in (self.category, self.site) if name is not None]
        alone = self.category is None
        if not set(own) <= read.keys() or (alone and not _is_known(read[self.site])):
            raise SiteError(
                f"VampPrior samples {own}, and the guide {list(read)}, of which a category is "
                "before the others; give both the same sites, the prior by num_categories"
            )
        return read


def _is_known(posterior: Any) -> bool:
    """False for a function of the categories that returns the posterior."""
    return isinstance(posterior, torch.distributions.Distribution)


class _Inside(torch.autograd.Function):
    """Values moved to the ends of an interval; a gradient that leads back inside passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.ends = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (values,), (gradient,), (low, high) = ctx.saved_tensors, gradients, ctx.ends
        passes = ((values >= low) | (gradient < 0)) & ((values <= high) | (gradient > 0))
        return gradient * passes, None, None


@contextmanager
def as_in_evaluation(network: nn.Module) -> Iterator[None]:
    """Runs a network as in evaluation mode, on copies of its running statistics.

    Another pass in training changes these in place, which would change the gradient of this one.
    """
    training = [module for module in network.modules() if module.training]
    held: list[Any] = []
    for module in training:
        module.training = False
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            held.append((module, module.running_mean, module.running_var))
            module.running_mean, module.running_var = (part.clone() for part in held[-1][1:])
    try:
        yield
    finally:
        for module, mean, variance in held:
            module.running_mean, module.running_var = mean, variance
        for module in training:
            module.training = True
