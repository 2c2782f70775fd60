"""The model side of every variant: a prior, a decoder and a likelihood."""

from __future__ import annotations

from collections.abc import Callable

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.likelihoods import Likelihood


class GenerativeModel(PyroModule):
    r"""Draws a code from the prior and observes data: :math:`p(code)\,p(x \mid code)`.

    Args:
        prior: Samples the code's sites and returns the code.
        decoder: From ``(..., code size)`` to ``(..., *data_shape)``.
        likelihood: From the decoder's output to a distribution.
        event_dim: Number of dimensions of one datum.
    """

    def __init__(
        self,
        prior: Callable[[], Tensor],
        decoder: nn.Module,
        likelihood: Likelihood,
        event_dim: int,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.event_dim = event_dim

    def forward(self, x: Tensor) -> Tensor:
        """Runs the model.

        Args:
            x: Data, shape ``(batch, *data_shape)``.

        Returns:
            The value of the site ``x``.
        """
        with pyro.plate("data", len(x)):
            decoded = self.decoder(self.prior())
            distribution = self.likelihood(decoded).to_event(self.event_dim)
            observed: Tensor = pyro.sample("x", distribution, obs=x)
        return observed


def code_program(model: GenerativeModel) -> Callable[..., Tensor]:
    """Returns the part of a model that draws the code, without the decoder.

    Args:
        model: The model.

    Returns:
        A program with the model's arguments that samples the code's sites and returns the code.
    """

    def program(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            code: Tensor = model.prior()
        return code

    return program
