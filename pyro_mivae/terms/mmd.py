r"""The maximum mean discrepancy between the aggregate posterior and the prior.

Gretton et al. (2012), A Kernel Two-Sample Test; Zhao, Song & Ermon (2017), InfoVAE,
https://arxiv.org/abs/1706.02262
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, floats, number
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms.base import Particle
from pyro_mivae.terms.paired import PairedTerm
from pyro_mivae.traces import trace_program

Kernel = Literal["rbf", "imq"]


@checked(
    a=floats("n", "d", finite=False, least=2),
    b=floats("m", "d", finite=False, least=2),
    kernel=choice(*get_args(Kernel)),
    bandwidth=number(above=0),
)
def maximum_mean_discrepancy(
    a: Tensor, b: Tensor, *, kernel: Kernel = "rbf", bandwidth: float
) -> Tensor:
    r"""Estimates the squared maximum mean discrepancy of two distributions from their samples.

    .. math:: E[k(a, a')] + E[k(b, b')] - 2 E[k(a, b)]

    with :math:`k(a, b) = e^{-|a - b|^2 / h}` (``"rbf"``) or :math:`h / (h + |a - b|^2)`
    (``"imq"``), *h* the bandwidth. Unbiased, so that it scatters about 0, below it too, where the
    distributions are the same. It is no information and has no unit.

    Args:
        a: Shape ``(n, d)``, n at least 2.
        b: Shape ``(m, d)``, m at least 2.
        kernel: ``"rbf"`` or ``"imq"``.
        bandwidth: *h*, a squared distance.

    Returns:
        Scalar, differentiable in both.

    Raises:
        ShapeError: If the samples are not two matrices of as many columns and 2 rows or more.
        OptionError: If the kernel is unknown or the bandwidth not positive.

    References:
        Gretton et al. (2012), A Kernel Two-Sample Test, eq. 3.

    Example:
        >>> a = torch.tensor([[0.0], [0.0]])
        >>> maximum_mean_discrepancy(a, a + 1, kernel="imq", bandwidth=1.0)
        tensor(1.)
    """
    centre = b.detach().mean(0)  # near which little is lost in differences of squares
    a = a - centre
    b = (b - centre).to(a)

    def mean(x: Tensor, y: Tensor) -> Tensor:
        # |x|² + |y|² - 2 xy: a matrix product, and n m numbers in place of n m d
        squares = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T
        values = (-squares / bandwidth).exp() if kernel == "rbf" else 1 / (1 + squares / bandwidth)
        if x is not y:
            return values.mean()
        return (values.sum() - len(x)) / (len(x) * (len(x) - 1))  # without k(x, x) = 1

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


class MaximumMeanDiscrepancy(PairedTerm):
    r"""Draws the aggregate posterior of sites towards their prior.

    .. math:: -n \cdot MMD^2(q(z), p(z)),\qquad q(z) = E_x q(z \mid x)

    estimated from the codes that the guide drew for a batch, and as many drawn from the model's
    prior. Other than the KL divergence of each posterior it leaves the data free to be told
    apart, so the code may keep their information. It has no unit, nats least of all.

    A kernel tells distances of the order of its bandwidth's root apart. Posteriors much narrower
    than that look like points to it, whatever their KL divergence, and of codes far outside the
    prior the gradient dies out, for ``"rbf"`` sooner than for ``"imq"``.

    Args:
        sites: The sites, continuous, drawn once per datum; taken together.
        weight: Its weight per datum.
        kernel: ``"rbf"`` or ``"imq"``.
        bandwidth: Of the kernel, a squared distance; if omitted twice the number of dimensions,
            the mean squared distance of two draws from N(0, I).

    Raises:
        OptionError: If the kernel is unknown, or weight or bandwidth are out of range.

    References:
        Zhao, Song & Ermon (2017), InfoVAE, section 4. https://arxiv.org/abs/1706.02262
    """

    @checked(kernel=choice(*get_args(Kernel)), bandwidth=number(above=0))
    def __init__(
        self,
        *sites: str,
        weight: float | Schedule = 1.0,
        kernel: Kernel = "rbf",
        bandwidth: float | None = None,
    ) -> None:
        super().__init__(*sites, weight=weight)
        self.kernel = kernel
        self.bandwidth = bandwidth

    @property
    def name(self) -> str:
        """``mmd_<sites>``: no information, so not named as one."""
        return f"mmd_{'_'.join(self.sites)}"

    @property
    def formula(self) -> str:
        """The term, as `explain` writes it."""
        code = ",".join(self.sites)
        return f"(-MMD^2(q({code}), p({code})), not in nats)"

    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the term."""
        posterior = self.codes(particle.traces.guide, particle)
        model = particle.model
        program = code_program(model) if isinstance(model, GenerativeModel) else model
        program = particle.traces.on_same_batches(program)
        prior = self.codes(trace_program(program, particle.args, particle.kwargs), particle)
        bandwidth = self.bandwidth or 2.0 * posterior.shape[-1]
        discrepancies = [
            maximum_mean_discrepancy(q, p, kernel=self.kernel, bandwidth=bandwidth)
            for q, p in zip(posterior, prior.expand_as(posterior), strict=True)
        ]
        return -self.count(particle) * torch.stack(discrepancies).mean()
