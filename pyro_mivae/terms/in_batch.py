"""Terms that compare the codes of a batch, such as the maximum mean discrepancy."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Unpack, get_args

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, floats, number
from pyro_mivae.errors import PyroMivaeWarning, ShapeError, SiteError
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.ranks import joined, whole_size
from pyro_mivae.terms.base import InformationTerm, Particle, TermOptions
from pyro_mivae.traces import trace_program

ENOUGH_DATA = 64  # number of data in a batch that is enough to represent the data set

Kernel = Literal["rbf", "imq"]


class PairedTerm(InformationTerm):
    """A term that compares values of continuous sites, drawn once per datum, in a batch.

    The sites are concatenated in the order given.

    Example:
        >>> issubclass(MaximumMeanDiscrepancy, PairedTerm), PairedTerm.needs_batch
        (True, True)
    """

    needs_batch = True
    _has_warned = False

    def count(self, particle: Particle) -> Tensor | float:
        """Returns the number of data that the batch represents: its size times the plate's scale.

        The scale is that of the observed data, without plates that do not contain the term's
        sites.
        """
        model = particle.traces.model.nodes
        if not particle.traces.data:
            raise SiteError(
                f"{type(self).__name__} is summed over the data that the model observes, but it "
                "observes none; give one of its sites obs=x"
            )
        plates = {frame.name for frame in model[self.sites[0]]["cond_indep_stack"]}
        stacks = {name: model[name]["cond_indep_stack"] for name in particle.traces.data}
        name = max(stacks, key=lambda n: len(plates & {frame.name for frame in stacks[n]}))
        scale: Tensor | float = model[name]["scale"]
        for frame in stacks[name]:
            if frame.name not in plates and frame.full_size:
                scale = scale * (frame.size / frame.full_size)
        return scale * len(particle.args[0])

    def codes(self, trace: Any, particle: Particle) -> Tensor:
        """Returns the values of the named sites in a trace, shape ``(particles, batch, size)``.

        In processes that train together the batch is that of all of them.

        Raises:
            ShapeError: If the batch holds a single datum.
            SiteError: If a site is missing or discrete, depends on an enumerated one, or is not
                drawn once per datum.
        """
        n, traces, told = len(particle.args[0]), particle.traces, type(self).__name__
        if getattr(particle.model, "given_shape", None):
            raise SiteError(
                f"{told} compares codes of data of different conditions, so it is about the data "
                "of all conditions together; leave it out of a conditional model, or use "
                "BarberAgakov"
            )
        self._check_batch(whole_size(n))
        self.check_latent(traces)
        codes = []
        for name in self.sites:
            fn, value = trace.nodes[name]["fn"], trace.nodes[name]["value"]
            if traces.enumerated or fn.support.is_discrete:
                raise SiteError(
                    f"{told} needs the gradient of the draws, but {name!r} is discrete, or drawn "
                    f"beside the enumerated {traces.enumerated}; use BarberAgakov there"
                )
            if value.dim() == fn.event_dim or value.shape[value.dim() - fn.event_dim - 1] != n:
                raise SiteError(
                    f"{told} needs a value of {name!r} for each of {n} data; its shape is "
                    f"{tuple(value.shape)}: draw it in the plate over the data, and give model "
                    "and guide the mini-batch itself if the plate sub-samples them"
                )
            codes.append(value.reshape(-1, n, fn.event_shape.numel()))
        return joined(torch.cat(codes, -1).transpose(0, 1)).transpose(0, 1)

    def _check_batch(self, n: int) -> None:
        if n < 2:
            raise ShapeError(
                f"a batch of {n} given to {type(self).__name__}, which compares each datum with "
                f"the others; 2 are needed, {ENOUGH_DATA} or more are better: use a larger batch"
            )
        if n < ENOUGH_DATA and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"a batch of {n} for {type(self).__name__}: fewer than {ENOUGH_DATA} data "
                "represent the data set poorly; use a larger batch",
                PyroMivaeWarning,
                stacklevel=2,
            )


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
    (``"imq"``), *h* the bandwidth. Unbiased: for equal distributions it scatters around 0, also
    below. It is not an information, and has no unit.

    Args:
        a: Shape ``(n, d)``, n at least 2.
        b: Shape ``(m, d)``, m at least 2.
        kernel: ``"rbf"`` or ``"imq"``.
        bandwidth: *h*, a squared distance above 0.

    Returns:
        Scalar, differentiable in both.

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
    r"""Pulls the aggregate posterior of sites towards their prior.

    .. math:: -n \cdot MMD^2(q(z), p(z)),\qquad q(z) = E_x q(z \mid x)

    estimated from the guide's codes of a batch and as many draws of the model's prior. Unlike the
    KL divergence of each posterior, it does not penalise information in the code. It has no unit.
    In the ledger, and for a `Target`, it is the discrepancy itself, without the sign.

    A kernel resolves distances of the order of the square root of its bandwidth. Much narrower
    posteriors act like points. The gradient of codes far outside the prior vanishes, for ``"rbf"``
    sooner than for ``"imq"``.

    Args:
        sites: The sites, as `PairedTerm` takes them.
        kernel: As in `maximum_mean_discrepancy`.
        bandwidth: As there. Twice the number of dimensions if omitted: the mean squared distance
            of two draws from N(0, I).
        **term: The weight, see `InformationTerm`.

    References:
        Zhao, Song & Ermon (2017), InfoVAE, section 4. https://arxiv.org/abs/1706.02262

    Example:
        >>> print(mi.explain(mi.MutualInformationELBO([MaximumMeanDiscrepancy("z", weight=10.0)])))
        J =  E_q[log p(x|code)]
           - 1 * KL of every site
           + 10 * (-MMD^2(q(z), p(z)), not in nats)
        maximised; nats per datum
    """

    is_cost = True

    @checked(kernel=choice(*get_args(Kernel)), bandwidth=number(above=0))
    def __init__(
        self,
        *sites: str,
        kernel: Kernel = "rbf",
        bandwidth: float | None = None,
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(*sites, **term)
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.name, code = f"mmd_{self.key}", ",".join(sites)
        self.formula = f"(-MMD^2(q({code}), p({code})), not in nats)"

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
