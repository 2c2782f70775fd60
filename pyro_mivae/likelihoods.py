r"""Likelihoods :math:`p(x \mid code)`: from a decoder's output to a distribution of data."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, flag, number, numbers
from pyro_mivae.errors import DataError

LARGE_LOGIT = 40.0
"""Logit above which log(1 + exp(logit)) equals the logit in float64."""
DENSITY = (
    "binary pixels under a {} likelihood: distortion, ELBO and log p(x) are log-densities, which "
    "cannot be compared with log-probabilities; a Bernoulli likelihood gives these"
)


class Likelihood(PyroModule):
    """Makes a distribution of the data from a decoder's output.

    Attributes:
        interval: Smallest and largest value that it scores; None for all numbers.
        of_grey: Remark on values strictly between 0 and 1; empty if they suit it.
        of_binary: Remark on values that are all 0 or 1.
    """

    interval: ClassVar[tuple[float, float] | None] = None
    of_grey: ClassVar[str] = ""
    of_binary: ClassVar[str] = ""

    @abstractmethod
    def forward(self, decoded: Tensor) -> Any:
        """Returns the distribution of data, shape ``(..., *data_shape)``."""

    @checked(x=numbers(finite=False))
    def check(self, x: Tensor) -> None:
        """Raises a `DataError` if a value is not finite, or is outside the interval."""
        if not x.numel():
            return
        least, most = map(float, x.aminmax())  # NaN where a value is
        if not math.isfinite(least) or not math.isfinite(most):
            raise DataError(
                f"the data hold {int((~torch.isfinite(x)).sum())} values that are NaN or "
                "infinite; finite numbers are needed: remove or fill them"
            )
        if self.interval is not None and not self.interval[0] <= least <= most <= self.interval[1]:
            raise DataError(
                f"the data range over [{least:.8g}, {most:.8g}], {type(self).__name__} needs "
                f"[{self.interval[0]:g}, {self.interval[1]:g}]; rescale them (uint8 images: "
                "divide by 255), or use GaussianLikelihood"
            )

    def misfit(self, x: Tensor) -> str:
        """Returns a remark on data that do not suit the likelihood, or an empty text."""
        if bool(((x > 0) & (x < 1)).any()):
            return self.of_grey
        return self.of_binary if bool(((x == 0) | (x == 1)).all()) else ""


class _UnitIntervalBernoulli(dist.Bernoulli):
    """A Bernoulli that also scores values between 0 and 1, by their cross-entropy."""

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the cross-entropy."""
        if self._validate_args:
            self._validate_sample(value)
        cost = softplus(self.logits, threshold=LARGE_LOGIT)
        return -torch.addcmul(cost, value, self.logits, value=-1)


class BernoulliLikelihood(Likelihood):
    """Bernoulli with the decoder's output as logits, for values in [0, 1].

    For values strictly between 0 and 1 this is a cross-entropy, not a log-probability: make
    them binary by `binarize`, or use `ContinuousBernoulliLikelihood`.
    """

    interval = (0.0, 1.0)
    of_grey = (
        "grey pixels under a Bernoulli likelihood: distortion, ELBO and log p(x) are "
        "cross-entropies, not log-probabilities of data"
    )

    def forward(self, decoded: Tensor) -> Any:
        """Returns the distribution of data."""
        return _UnitIntervalBernoulli(logits=decoded)


class DeltaLikelihood(Likelihood):
    """A point mass at the logistic of the decoder's output: a generator without noise, in [0, 1].

    Data have no density under it, so the ELBO is not defined: use it for adversarial objectives.
    """

    interval = (0.0, 1.0)
    of_binary = (
        "binary pixels beside a generator of grey ones: a discriminator can tell them apart by "
        "that alone; grey pixels do not have this fault"
    )

    def forward(self, decoded: Tensor) -> Any:
        """Returns the distribution of data."""
        return dist.Delta(torch.sigmoid(decoded))


class ContinuousBernoulliLikelihood(Likelihood):
    """Continuous Bernoulli with the decoder's output as logits: a density of values in [0, 1].

    References:
        Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli, eq. 5.
        https://arxiv.org/abs/1907.06845
    """

    interval = (0.0, 1.0)
    of_binary = DENSITY.format("continuous Bernoulli")

    def forward(self, decoded: Tensor) -> Any:
        """Returns the distribution of data."""
        return dist.ContinuousBernoulli(logits=decoded)


class GaussianLikelihood(Likelihood):
    """Normal with the decoder's output as mean and one scale for all elements.

    ``likelihood="gaussian"`` learns the scale. A fixed scale above the spread of the data makes
    the code collapse (Lucas et al. 2019, Don't Blame the ELBO, section 4.1).

    Args:
        scale: Standard deviation, above 0; its first value if it is learned.
        learn_scale: True to make the scale a parameter.
    """

    of_binary = DENSITY.format("Normal")

    @checked(scale=number(above=0, most=1e30), learn_scale=flag())
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
        """Returns the distribution of data."""
        return dist.Normal(decoded, self.scale)


def _learned_gaussian() -> GaussianLikelihood:
    """Normal with the decoder's output as mean and one learned scale for all elements."""
    return GaussianLikelihood(learn_scale=True)


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": _learned_gaussian,
}
