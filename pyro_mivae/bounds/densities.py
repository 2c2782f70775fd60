r"""Bounds on mutual information from densities, in nats.

A guide knows its conditional density. The scores :math:`T_{ij} = \log q(z_i \mid x_j)` of every
code under every datum's posterior then replace those of a learned critic (Poole et al. 2019,
section on tractable encoders).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, floats
from pyro_mivae.bounds.shapes import REDUCTION, like, off_diagonal, scalar_or, square, vector

Reduction = Literal["mean", "none"]


@checked(scores=square(least=1), reduction=REDUCTION)
def infonce_bound(scores: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Lower-bounds :math:`I(X; Z)` by classifying each code's own datum among all.

    .. math:: \frac1n \sum_i \Big[ T_{ii} - \log \frac1n \sum_j e^{T_{ij}} \Big]

    The scores are a critic's, or the densities :math:`T_{ij} = \log q(z_i \mid x_j)`, which are
    the optimal critic: the mean over j then estimates the marginal :math:`q(z_i)`. A function of
    :math:`z_i` added to row i changes nothing.

    A lower bound in expectation at every n, of small variance. It never exceeds :math:`\log n`, so
    it errs low if the information is close to that, and rises with n to the information.

    Args:
        scores: :math:`T_{ij}` of code i and datum j, shape ``(n, n)``; ``-inf`` is allowed.
        reduction: ``"mean"``, or ``"none"`` for the summand of each row. Their standard deviation
            over :math:`\sqrt n` is the standard error of the bound.

    Returns:
        Scalar, or shape ``(n,)``; in nats, differentiable.

    References:
        van den Oord et al. (2018), Contrastive Predictive Coding, eq. 4 and appendix.
        https://arxiv.org/abs/1807.03748

    Example:
        >>> infonce_bound(torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]))
        tensor(0.6931)
    """
    rows = scores.diagonal() - scores.logsumexp(1) + math.log(len(scores))
    return _reduce(rows, reduction)


@checked(log_densities=square(least=2), reduction=REDUCTION)
def leave_one_out_bound(log_densities: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Upper-bounds :math:`I(X; Z)` by scoring each code under the other data's posteriors.

    .. math::
        \frac1n \sum_i \Big[ \log q(z_i \mid x_i)
        - \log \frac{1}{n-1} \sum_{j \ne i} q(z_i \mid x_j) \Big]

    An upper bound in expectation at every n, for the densities themselves and not for a critic's
    scores. The average over the others is an unbiased estimate of :math:`q(z_i)`, so its logarithm
    errs low and the bound high, without limit if posteriors do not overlap. The rate is then
    tighter.

    Args:
        log_densities: :math:`\log q(z_i \mid x_j)`, code i by datum j, shape ``(n, n)``, with n
            of 2 or more.
        reduction: As in `infonce_bound`.

    Returns:
        As in `infonce_bound`; infinite if a code has zero density under all other data.

    Example:
        >>> leave_one_out_bound(torch.zeros(3, 3))
        tensor(0.)
    """
    n = len(log_densities)
    own = torch.eye(n, dtype=torch.bool, device=log_densities.device)
    others = log_densities.masked_fill(own, -torch.inf).logsumexp(1)
    rows = log_densities.diagonal() - others + math.log(n - 1)
    return _reduce(rows, reduction)


@checked(log_densities=square(least=2), reduction=REDUCTION)
def club_bound(log_densities: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Upper-bounds :math:`I(X; Z)` by the log-density that a code loses under another datum.

    .. math::
        \mathbb{E}_{p(x, z)}[\log q(z \mid x)] - \mathbb{E}_{p(x) p(z)}[\log q(z \mid x)]
        = I(X; Z) + KL(p(x) p(z) \| p(x, z))

    An upper bound in expectation at every n, for the densities themselves, and not for a critic's
    scores or a learned approximation of :math:`q(z \mid x)`. The gap grows exponentially: for
    Gaussians with the information spread over d dimensions, the bound is :math:`d\,(e^{2I/d} -
    1)`. A finite sample is unbiased. `leave_one_out_bound` never exceeds it in any row.

    The mean over the other data excludes the code's own datum. The paper's version includes it,
    which makes it smaller by the factor :math:`1 - 1/n`.

    Args:
        log_densities: As in `leave_one_out_bound`.
        reduction: As in `infonce_bound`.

    Returns:
        As in `infonce_bound`; infinite if a code has zero density under any other datum.

    References:
        Cheng et al. (2020), CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information.
        https://arxiv.org/abs/2006.12013

    Example:
        >>> club_bound(torch.tensor([[0.0, -1.0], [-3.0, 0.0]]))
        tensor(2.)
    """
    n = len(log_densities)
    others = off_diagonal(log_densities).reshape(n, n - 1).mean(1)
    return _reduce(log_densities.diagonal() - others, reduction)


@checked(log_recognition=vector("n"), entropy=scalar_or("n"), reduction=REDUCTION)
def barber_agakov_bound(
    log_recognition: Tensor, entropy: Tensor | float, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Lower-bounds :math:`I(C; X)` by the density that a recogniser gives to the true code.

    .. math:: \mathbb{E}_{p(c, x)}[\log q(c \mid x)] + H(c)

    A lower bound for every normalised density q; the gap is :math:`\mathbb{E}_x KL(p(c \mid x) \|
    q(c \mid x))`. A finite sample is unbiased, with a large variance if q is confidently wrong.
    The ceiling of a discrete code is :math:`H(c)`.

    Args:
        log_recognition: :math:`\log q(c_i \mid x_i)` of codes and the data that they generated,
            shape ``(n,)``.
        entropy: :math:`H(c)` in nats, a scalar, or :math:`-\log p(c_i)`, shape ``(n,)``.
        reduction: As in `infonce_bound`.

    Returns:
        As in `infonce_bound`, differentiable in both arguments.

    References:
        Barber & Agakov (2003), The IM Algorithm, eq. 3.
        Chen et al. (2016), InfoGAN, eq. 4. https://arxiv.org/abs/1606.03657

    Example:
        >>> barber_agakov_bound(torch.zeros(5), math.log(10))  # recognised with certainty
        tensor(2.3026)
    """
    return _reduce(log_recognition + like(entropy, log_recognition), reduction)


@checked(
    log_posterior=vector("n"),
    log_prior=floats("n", finite=False, hint="evaluate both densities at the same codes"),
    reduction=REDUCTION,
)
def rate(log_posterior: Tensor, log_prior: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Upper-bounds :math:`I_q(X; Z)` by the code's cost under a prior.

    .. math:: \mathbb{E}_{q(x, z)}[\log q(z \mid x) - \log p(z)]
        = I_q(X; Z) + KL(q(z) \| p(z))

    An upper bound in expectation for every normalised density :math:`p(z)`, tight for the
    aggregate posterior :math:`q(z)`. A finite sample is unbiased. The closed form of the KL
    divergence, if there is one, has no sampling error.

    Args:
        log_posterior: :math:`\log q(z_i \mid x_i)`, shape ``(n,)``.
        log_prior: :math:`\log p(z_i)`, shape ``(n,)``.
        reduction: As in `infonce_bound`.

    Returns:
        As in `infonce_bound`, differentiable in both arguments.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO, eq. 5. https://arxiv.org/abs/1711.00464

    Example:
        >>> rate(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
        tensor(1.5000)
    """
    return _reduce(log_posterior - log_prior, reduction)


def _reduce(rows: Tensor, reduction: Reduction) -> Tensor:
    return rows.mean() if reduction == "mean" else rows
