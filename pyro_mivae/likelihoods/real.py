"""Likelihoods of real numbers: Normal and Student's t."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, flag, number
from pyro_mivae.likelihoods.base import DENSITY, Likelihood

SCALE = number(above=0, most=1e30)
USUAL = (0.1, 10.0)  # standard deviations that networks and scales are initialised for


class RealLikelihood(Likelihood):
    """Base class of likelihoods of real numbers, which should vary by about 1."""

    def misfit(self, x: Tensor) -> str:
        """Returns a remark on data of another scale, or of zeros and ones; empty if they suit."""
        spread = float(x.double().std(0, correction=0).max()) if x.numel() else 0.0
        if not spread or USUAL[0] <= spread <= USUAL[1]:
            return super().misfit(x)
        return (
            f"the largest standard deviation of a column is {spread:.3g}, under a likelihood "
            "and networks that begin near 1: standardise the data"
        )


class GaussianLikelihood(RealLikelihood):
    """Normal with the decoder's output as mean and one scale for all elements.

    ``likelihood="gaussian"`` learns the scale. A fixed scale above the spread of the data makes
    the code collapse (Lucas et al. 2019, Don't Blame the ELBO, section 4.1).

    Args:
        scale: Standard deviation, above 0; its first value if it is learned.
        learn_scale: True to make the scale a parameter.

    Example:
        >>> GaussianLikelihood(scale=0.5)(torch.zeros(3)).stddev
        tensor([0.5000, 0.5000, 0.5000])
    """

    of_binary = DENSITY.format("Normal")

    @checked(scale=SCALE, learn_scale=flag())
    def __init__(self, scale: float = 1.0, *, learn_scale: bool = False) -> None:
        super().__init__()
        self.learn_scale = learn_scale
        start = torch.tensor(float(scale))
        self.scale: Any
        if learn_scale:
            self.scale = PyroParam(start, constraint=constraints.positive)
        else:
            self.register_buffer("scale", start)

    def forward(self, decoded: Tensor) -> Any:
        return dist.Normal(decoded, self.scale)


class HeteroscedasticGaussianLikelihood(RealLikelihood):
    r"""Normal with a mean and a scale per element, for real values of unequal noise.

    .. math:: \log p(x \mid code) = \sum_i \log N(x_i; \mu_i, \sigma_i^2),\quad
        \sigma_i = \sigma_{min} + \log(1 + e^{r_i})

    with the decoder's two outputs :math:`\mu_i, r_i`. Without the floor :math:`\sigma_{min}` the
    density has no upper bound: an element that the decoder fits exactly raises the ELBO without
    limit as its scale falls, at the cost of all others.

    Args:
        least_scale: :math:`\sigma_{min}` in the units of the data, above 0.

    References:
        Mattei & Frellsen (2018), Leveraging the Exact Likelihood of Deep Latent Variable Models,
        section 2.1. https://arxiv.org/abs/1802.04826

    Example:
        >>> fn = HeteroscedasticGaussianLikelihood(least_scale=0.1)(torch.zeros(3, 5, 2))
        >>> fn.batch_shape, round(float(fn.stddev[0, 0]), 4)  # 0.1 + log 2
        (torch.Size([3, 5]), 0.7931)
    """

    num_outputs = 2
    of_binary = DENSITY.format("Normal")

    @checked(least_scale=SCALE)
    def __init__(self, least_scale: float = 0.01) -> None:
        super().__init__()
        self.least_scale = float(least_scale)

    def forward(self, decoded: Tensor) -> Any:
        loc, raw = decoded.unbind(-1)
        return dist.Normal(loc, softplus(raw) + self.least_scale)


class StudentTLikelihood(RealLikelihood):
    r"""Student's t with a location and a scale of its own for each element of each datum.

    Its tails fall as :math:`|x|^{-df-1}`: an outlier costs the logarithm of its distance, not its
    square. The degrees of freedom are one number above 1, so that the mean exists; the variance is
    infinite up to 2. The scale has a floor for the same reason as in
    `HeteroscedasticGaussianLikelihood`.

    ``likelihood="student-t"`` learns the degrees of freedom.

    Args:
        df: Degrees of freedom, above 1; their first value if they are learned.
        learn_df: True to make them a parameter.
        least_scale: Smallest scale, in the units of the data, above 0.

    References:
        Takahashi et al. (2018), Student-t Variational Autoencoder for Robust Density Estimation,
        eq. 8. https://www.ijcai.org/proceedings/2018/374

    Example:
        >>> StudentTLikelihood(df=3.0)(torch.zeros(4, 5, 2)).batch_shape
        torch.Size([4, 5])
    """

    num_outputs = 2
    of_binary = DENSITY.format("Student's t")

    @checked(df=number(above=1, most=1e6), learn_df=flag(), least_scale=SCALE)
    def __init__(
        self, df: float = 4.0, *, learn_df: bool = False, least_scale: float = 0.01
    ) -> None:
        super().__init__()
        self.learn_df = learn_df
        self.least_scale = float(least_scale)
        start = torch.tensor(float(df))
        self.df: Any
        if learn_df:
            self.df = PyroParam(start, constraint=constraints.greater_than(1.0))
        else:
            self.register_buffer("df", start)

    def forward(self, decoded: Tensor) -> Any:
        loc, raw = decoded.unbind(-1)
        return dist.StudentT(self.df, loc, softplus(raw) + self.least_scale)
