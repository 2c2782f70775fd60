"""A moving average of positive numbers too large to hold, kept by its logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, floats, number


class MovingAverage(nn.Module):
    r"""Exponential moving average :math:`\bar Y` of positive numbers given by their logarithms.

    .. math::
        \bar Y_t = \sum_{s \le t} (1 - \rho)^{t - s} Y_s \Big/ \sum_{s \le t} (1 - \rho)^{t - s}

    The first average is the first number, not one on its way from 0. The state is two scalar
    buffers, the logarithms of these sums, updated in place: a checkpoint keeps it, a captured
    graph sees it, and nothing is copied to the host. A number that is infinite or NaN is left out.

    Args:
        rate: :math:`\rho`, the share of the newest number, above 0 and at most 1.

    Raises:
        OptionError: If the rate is not in that range.

    Example:
        >>> average = MovingAverage(rate=0.5)
        >>> average.update(torch.tensor(1.0)), average.update(torch.tensor(1.0))
        (tensor(1.), tensor(1.))
    """

    log_sum: Tensor
    log_weight: Tensor

    @checked(rate=number(above=0, most=1))
    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("log_sum", torch.tensor(-torch.inf))
        self.register_buffer("log_weight", torch.tensor(-torch.inf))

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"

    @torch.no_grad()
    @checked(log_value=floats("()", finite=False))
    def update(self, log_value: Tensor) -> Tensor:
        r"""Takes a number in.

        Args:
            log_value: :math:`\log Y_t`, a scalar.

        Returns:
            :math:`\log \bar Y_t`, a scalar without gradient, in the buffers' type: at least
            :math:`\log \rho Y_t`.
        """
        value = log_value.to(self.log_sum)
        keep = math.log1p(-self.rate) if self.rate < 1 else -math.inf
        counts = value < torch.inf  # as NaN is not
        for buffer, new in ((self.log_sum, value), (self.log_weight, torch.zeros_like(value))):
            moved = torch.logaddexp(buffer + keep, new)
            buffer.copy_(torch.where(counts, moved, buffer))
        return self.log_sum - self.log_weight
