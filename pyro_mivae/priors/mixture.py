"""Mixtures of Gaussians: a category and its Gaussian, or their sum."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal, TypedDict, Unpack, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, normalize, pad

from pyro_mivae.arguments import Sizes, checked, choice, number, several, size, text
from pyro_mivae.distributions import NormalMixture
from pyro_mivae.errors import OptionError
from pyro_mivae.memory import check_fitting
from pyro_mivae.priors.base import hold
from pyro_mivae.sites import OF_PARAMETERS

Means = Literal["orthogonal", "random"]
Part = Literal["means", "weights", "scales"]


def _text_or_none(name: str, value: Any, sizes: Sizes | None = None) -> str | None:
    return None if value is None else text()(name, value, sizes)


class MixtureOptions(TypedDict, total=False):
    """Keyword arguments of `MixturePrior`."""

    means: Means
    category: str | None
    site: str


class MixturePrior(PyroModule):
    r"""A category, and a Gaussian about the category's mean, for clusters.

    .. math:: c \sim U\{1..K\},\quad z \mid c \sim N(\mu_c, I)

    By default the means are fixed and orthogonal, at equal distances: :math:`\mu_c` is constant
    in the ``latent_dim / num_categories`` coordinates of the c-th block, and 0 elsewhere. The
    category is one-hot; the mean is linear in it, so a relaxed category works too.

    With ``category=None`` the category is summed out of the prior, and the code is ``z`` alone:
    :math:`p(z) = \sum_c w_c N(z; \mu_c, \sigma_c^2)`, whose density is exact. A variant without
    categories takes it; the KL divergence is a one-sample estimate.

    Args:
        num_categories: :math:`K`.
        latent_dim: Size of ``z``; twice the number of categories if omitted. Orthogonal means need
            a multiple of it.
        radius: Distance :math:`|\mu_c|` of every mean from the origin. Among ten categories, the
            nearest mean is that of a draw's own category with probability 0.90 at a radius of 3,
            0.984 at 4 and 0.9999 at 6. The samples of a category cannot be purer than that.
        means: ``"orthogonal"``, or ``"random"``: in directions drawn uniformly.
        learn: What is learned, of ``"means"``, ``"weights"`` (start equal), and ``"scales"``
            (a standard deviation per category and coordinate, which start at 1). Learned means
            start where fixed ones stay.
        category: Name of the category's site; None to sum it out.
        site: Name of the Gaussian's site.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim`` and the means are
            orthogonal, or the means do not fit into memory.

    References:
        Pineau & Lelarge (2018), InfoCatVAE, section 2.2. https://arxiv.org/abs/1806.08240

    Example:
        >>> prior = MixturePrior(3, 2, means="random", learn=["means", "weights"], category=None)
        >>> sorted(name for name, _ in prior.named_parameters())
        ['logits', 'means']
    """

    means: Tensor
    scales: Any

    @checked(
        num_categories=size(),
        latent_dim=size(),
        radius=number(least=0, most=1e6),
        means=choice(*get_args(Means)),
        learn=several(choice(*get_args(Part)), least=0),
        category=_text_or_none,
        site=text(),
    )
    def __init__(
        self,
        num_categories: int = 10,
        latent_dim: int | None = None,
        radius: float = 6.0,
        learn: Collection[Part] = (),
        *,
        means: Means = "orthogonal",
        category: str | None = "c",
        site: str = "z",
    ) -> None:
        super().__init__()
        if category == site:
            raise OptionError(f"category={category!r} and site={site!r}: give two names")
        latent_dim = 2 * num_categories if latent_dim is None else latent_dim
        block, rest = divmod(latent_dim, num_categories)
        if rest and means == "orthogonal":
            raise OptionError(
                f"latent_dim={latent_dim} is not a multiple of num_categories={num_categories}: "
                f"give every category the same number of coordinates, e.g. latent_dim="
                f"{max(1, round(latent_dim / num_categories)) * num_categories}, or "
                "means='random'"
            )
        check_fitting(num_categories * latent_dim, "give fewer categories, or coordinates", 4)
        self.num_categories = num_categories
        self.radius = radius
        self.learned = tuple(learn)
        self.category, self.site = category, site
        if means == "orthogonal":
            blocks = torch.eye(num_categories).repeat_interleave(block, 1)
            centres = radius / math.sqrt(block) * blocks
        else:
            centres = radius * normalize(torch.randn(num_categories, latent_dim), dim=-1)
        hold(self, "means", centres, learned="means" in learn)
        hold(self, "logits", torch.zeros(num_categories), learned="weights" in learn)
        if "scales" in learn:
            self.scales = PyroParam(torch.ones_like(centres), constraints.positive)

    def forward(self) -> Tensor:
        """Samples the sites, returns ``z``, shape ``(batch, latent_dim)``."""
        one = self.means.new_ones(())  # a number would be copied to the device
        scales = self.scales if "scales" in self.learned else None
        if self.category is None:
            weights = dist.Categorical(logits=self.log_weights())
            components = dist.Normal(self.means, one if scales is None else scales).to_event(1)
            fn: Any = NormalMixture(weights, components)
        else:
            c = pyro.sample(self.category, dist.OneHotCategorical(logits=self.log_weights()))
            fn = dist.Normal(c @ self.means, one if scales is None else c @ scales).to_event(1)
        return pyro.sample(self.site, fn)

    def log_weights(self) -> Tensor:
        """Returns the categories' log-probabilities up to a constant, shape ``(K,)``."""
        return self.logits


class StickBreakingPrior(MixturePrior):
    r"""A mixture with an open number of categories: the truncated Dirichlet process.

    .. math::
        v_k \sim Beta(1, \alpha),\quad w_k = v_k \prod_{j<k} (1 - v_j),\quad
        c \sim w,\quad z \mid c \sim N(\mu_c, \sigma_c^2)

    for :math:`k < K`, and :math:`v_K = 1`. The sticks are point estimates, with their log-odds
    :math:`s_k` as parameters. In training the model has the factor :math:`\log p(s) / N` for each
    of :math:`N` data, so that an epoch's loss, a sum over the data, has :math:`-\log p(s)` once.
    So every ELBO of Pyro is maximised at once over networks and sticks, as a bound on :math:`\log
    p(x, s)`. :math:`p(s)` is the density of the log-odds, not of :math:`v`. Given categories of
    size :math:`n_k`, the estimate is :math:`v_k = (n_k + 1) / (\sum_{j \ge k} n_j + 1 + \alpha)`,
    the posterior mean of the stick.

    ``initialize`` of the variant, which `fit` calls, sets :math:`N`. Before that it is infinite:
    the weights are then those of maximum likelihood. In evaluation mode the factor is left out:
    ELBO and log p(x) are those of the model with these weights.

    Args:
        num_categories: :math:`K`, where the process is cut off, 2 or more.
        latent_dim: Size of ``z``, see `MixturePrior`.
        radius: Distance of the means from the origin at the start.
        learn: What is learned, see `MixturePrior`. Fixed weights are those of the mean sticks.
        concentration: :math:`\alpha`: the number of categories in use grows with it.
        **options: Means and names of the sites, see `MixturePrior`.

    References:
        Ishwaran & James (2001), Gibbs Sampling Methods for Stick-Breaking Priors, section 3.
        Nalisnick & Smyth (2017), Stick-Breaking VAEs. https://arxiv.org/abs/1605.06197

    Example:
        >>> prior = StickBreakingPrior(4, concentration=1.0)
        >>> [round(weight, 3) for weight in prior.log_weights().exp().tolist()]
        [0.5, 0.25, 0.125, 0.125]
    """

    num_data: Tensor

    @checked(num_categories=size(least=2), concentration=number(above=0, most=1e6))
    def __init__(
        self,
        num_categories: int = 20,
        latent_dim: int | None = None,
        radius: float = 6.0,
        learn: Collection[Part] = ("means", "weights", "scales"),
        *,
        concentration: float = 1.0,
        **options: Unpack[MixtureOptions],
    ) -> None:
        super().__init__(num_categories, latent_dim, radius, learn, **options)
        self.concentration = concentration
        del self.logits
        log_odds = torch.full((num_categories - 1,), -math.log(concentration))
        hold(self, "sticks", log_odds, learned="weights" in self.learned)
        self.register_buffer("num_data", torch.tensor(math.inf))

    def initialize(self, x: Tensor) -> None:
        """Takes the number of the training data."""
        self.num_data.fill_(len(x))

    def forward(self) -> Tensor:
        if self.training and "weights" in self.learned:
            factor = dist.Unit(self.log_prior() / self.num_data)
            told: Any = {"is_auxiliary": True, OF_PARAMETERS: True}
            pyro.sample(f"{self.site}_sticks", factor, obs=factor.sample(), infer=told)
        return super().forward()

    def log_prior(self) -> Tensor:
        """Returns the log-density of the sticks' log-odds, a scalar."""
        each = logsigmoid(self.sticks) + self.concentration * logsigmoid(-self.sticks)
        return (each + math.log(self.concentration)).sum()

    def log_weights(self) -> Tensor:
        taken, left = logsigmoid(self.sticks), logsigmoid(-self.sticks)
        return pad(taken, (0, 1)) + pad(left.cumsum(0), (1, 0))
