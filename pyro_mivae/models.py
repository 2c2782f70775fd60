"""The model of every variant: a prior, a decoder and a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions.util import broadcast_shape
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.errors import ShapeError
from pyro_mivae.inputs import as_tensor, clamp_rounding
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.networks.conditional import checked_condition, flat_condition
from pyro_mivae.priors.base import given_shape_of


class GenerativeModel(PyroModule):
    r"""Draws a code from the prior and observes data: :math:`p(code)\,p(x \mid code, u)`.

    The condition :math:`u` of each datum is optional; the decoder reads it after the code. A prior
    with an attribute ``given_shape`` reads it too, :math:`p(code \mid u)`.
    """

    _flattens = False  # True for a decoder that takes (batch, code) alone

    def __init__(
        self,
        prior: Callable[..., Tensor],
        decoder: nn.Module,
        likelihood: Likelihood,
        event_dim: int,
        given_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.event_dim = event_dim
        self.given_shape = given_shape

    def check_data(self, x: Any) -> Tensor:
        """Returns data in the form that the likelihood scores."""
        given = as_tensor(x)
        if given.dim() != 1 + self.event_dim:
            raise ShapeError(
                f"data of shape {tuple(given.shape)} given; a batch of data has "
                f"{1 + self.event_dim} dimensions"
            )
        data = given.to(dtype_of(self) or torch.get_default_dtype())
        if data.numel():
            if self.likelihood.interval is not None:
                data = clamp_rounding(data, self.likelihood.interval, given.dtype)
            self.likelihood.check(data)
        return data

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Runs the model on data and, if it has one, their condition."""
        with pyro.plate("data", len(x)):
            code = self.draw_code(given, len(x))
            decoded = self.decode(self._with_condition(code, given, len(x)))
            distribution = self.likelihood(decoded).to_event(self.event_dim)
            observed: Tensor = pyro.sample("x", distribution, obs=x)
        return observed

    def draw_code(self, given: Tensor | None, n: int) -> Tensor:
        """Samples the prior's sites in a plate over ``n`` data, returns the code."""
        shape = given_shape_of(self.prior)
        if shape is None:
            return self.prior()
        return self.prior(checked_condition(given, shape, n))

    def decode(self, code: Tensor) -> Tensor:
        """Decodes codes ``(..., code_dim)``: those of every category and particle at once."""
        if not self._flattens or code.dim() == 2:
            return self.decoder(code)
        return self.decoder(code.flatten(0, -2)).unflatten(0, code.shape[:-1])

    def _with_condition(self, code: Tensor, given: Tensor | None, n: int) -> Tensor:
        """Appends the condition of each datum to codes ``(..., n, code_dim)``."""
        if self.given_shape is None:
            if given is not None:
                raise ShapeError("the model was built without a condition; leave given out")
            return code
        flat = flat_condition(given, self.given_shape, n, code.dtype)
        batch = broadcast_shape(code.shape[:-1], flat.shape[:-1])
        return torch.cat([code.expand(*batch, -1), flat.expand(*batch, -1)], -1)


def code_program(model: GenerativeModel) -> Callable[..., Tensor]:
    """Returns the part of a model that draws the code, without the decoder."""

    def program(x: Tensor, given: Tensor | None = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return model.draw_code(given, len(x))

    return program


def dtype_of(*modules: Any) -> torch.dtype | None:
    """Returns the floating dtype of the modules' parameters; None if they differ."""
    own = [m for m in (getattr(m, "__self__", m) for m in modules) if isinstance(m, nn.Module)]
    found = {p.dtype for module in own for p in module.parameters() if p.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def data_for(model: Any, guide: Any, x: Any) -> Tensor:
    """Returns data in the form that a model/guide pair takes."""
    if isinstance(model, GenerativeModel):
        return model.check_data(x)
    x = as_tensor(x)
    return x.to(dtype_of(model, guide) or x.dtype) if x.is_floating_point() else x
