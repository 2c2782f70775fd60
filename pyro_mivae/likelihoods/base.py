r"""Base class of likelihoods :math:`p(x \mid code)`: a decoder's output to a distribution."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, numbers
from pyro_mivae.errors import DataError

DENSITY = (
    "binary pixels under a {} likelihood: distortion, ELBO and log p(x) are log-densities, which "
    "cannot be compared with log-probabilities; a Bernoulli likelihood gives these"
)


class Likelihood(PyroModule):
    """Makes a distribution of the data from a decoder's output.

    A subclass defines ``forward`` and, where they differ, the attributes. The distribution has one
    batch dimension per dimension of the data: without ``to_event``. Its ``mean`` is what
    `Variant.reconstruct` and the pictures show.

    Attributes:
        num_outputs: Outputs of the decoder per element of a datum. If there are two or more, they
            are the last dimension of what the decoder returns: ``(..., *data_shape, P)``.
        interval: Smallest and largest value that it scores; None for all numbers.
        remedy: Advice for data outside the interval.
        of_grey: Remark on values strictly between 0 and 1; empty if they suit it.
        of_binary: Remark on values that are all 0 or 1.

    Example:
        >>> import pyro.distributions as dist
        >>> class LaplaceLikelihood(mi.Likelihood):
        ...     num_outputs = 2
        ...     def forward(self, decoded):
        ...         loc, log_scale = decoded.unbind(-1)
        ...         return dist.Laplace(loc, log_scale.exp() + 0.01)
        >>> vae = mi.VAE((5,), latent_dim=2, likelihood=LaplaceLikelihood())
        >>> vae.model.decoder(torch.zeros(3, 2)).shape, vae.sample(3).shape
        (torch.Size([3, 5, 2]), torch.Size([3, 5]))
    """

    num_outputs: int = 1
    interval: ClassVar[tuple[float, float] | None] = None
    remedy: ClassVar[str] = (
        "rescale them (uint8 images: divide by 255), or give likelihood='gaussian'"
    )
    of_grey: ClassVar[str] = ""
    of_binary: ClassVar[str] = ""

    @abstractmethod
    def forward(self, decoded: Tensor) -> Any:
        """Returns the distribution of data, batch shape ``(..., *data_shape)``."""

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
                f"[{self.interval[0]:g}, {self.interval[1]:g}]; {self.remedy}"
            )

    def misfit(self, x: Tensor) -> str:
        """Returns a remark on data that do not suit the likelihood, or an empty text."""
        if bool(((x > 0) & (x < 1)).any()):
            return self.of_grey
        return self.of_binary if bool(((x == 0) | (x == 1)).all()) else ""


def decoder_options(likelihood: Likelihood) -> dict[str, int]:
    """Returns the keywords of `build_networks` for a likelihood; networks of a GAN take none."""
    outputs = likelihood.num_outputs
    return {"num_outputs": outputs} if outputs > 1 else {}
