r"""Estimates of mutual information that bound nothing, from the scores of a critic, in nats.

A critic that learns to tell joint pairs from independent ones has
:math:`\log \frac{p(x \mid z)}{p(x)}` as its optimum, and a gradient that is bounded whatever the
information. The functions here have that gradient, and a value by another formula of the same
scores: what is maximised is not what is returned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, number
from pyro_mivae.bounds.critics import donsker_varadhan_bound, nwj_bound
from pyro_mivae.bounds.shapes import vector


@checked(joint_scores=vector("n"), marginal_scores=vector("m"))
def jensen_shannon_estimate(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    r"""Estimates :math:`I(X; Z)` by a critic that learns from the Jensen-Shannon divergence.

    The gradient is that of

    .. math:: -\mathbb{E}_{p(x,z)}[\log(1 + e^{-T})] - \mathbb{E}_{p(x)p(z)}[\log(1 + e^{T})]

    at most 1 by any one score. The value is `nwj_bound` of :math:`g = 1 + T`, with no gradient of
    its own:

    .. math:: 1 + \mathbb{E}_{p(x,z)}[T] - \mathbb{E}_{p(x)p(z)}[e^T]

    In expectation the value is a lower bound for every critic, with the variance of that bound
    and ``-inf`` where it overflows. An objective that adds it maximises the divergence, however,
    which ends at :math:`2 \log 2` above independence, where information has no end.

    Args:
        joint_scores: :math:`T(x_i, z_i)`, shape ``(n,)``.
        marginal_scores: :math:`T` of pairs drawn apart, shape ``(m,)``.

    Returns:
        Scalar, in nats, differentiable in both arguments as said above.

    Raises:
        ShapeError: If an argument is not one-dimensional, or empty.

    References:
        Nowozin et al. (2016), f-GAN. https://arxiv.org/abs/1606.00709
        Hjelm et al. (2019), Deep InfoMax. https://arxiv.org/abs/1808.06670

    Example:
        >>> jensen_shannon_estimate(torch.zeros(4), torch.zeros(4))
        tensor(0.)
    """
    value = nwj_bound(1 + joint_scores.detach(), 1 + marginal_scores.detach())
    return _with_gradient_of(_divergence(joint_scores, marginal_scores), value)


@checked(
    joint_scores=vector("n"),
    marginal_scores=vector("m"),
    clip=number(above=0, finite=False),
)
def smile_estimate(joint_scores: Tensor, marginal_scores: Tensor, *, clip: float) -> Tensor:
    r"""Estimates :math:`I(X; Z)` by Donsker and Varadhan's formula with clipped scores.

    .. math:: \mathbb{E}_{p(x,z)}[T]
        - \log \mathbb{E}_{p(x)p(z)}[\min(\max(e^T, e^{-\tau}), e^{\tau})]

    is the value, for :math:`\tau` the clip; the scores of the joint pairs are not clipped. The
    gradient is that of `jensen_shannon_estimate`, as in the authors' experiments. At its optimum
    the value has the truth as its limit for a large clip and a large sample.

    No bound on either side: clipping takes away the rare large scores that normalise the critic,
    which raises the estimate, and the small ones, which lowers it; the variance stays small in
    exchange. Errors of the critic and of clipping can cancel. A constant added to the critic
    changes the value. With an infinite clip it is that of `donsker_varadhan_bound`.

    Args:
        joint_scores: :math:`T(x_i, z_i)`, shape ``(n,)``.
        marginal_scores: :math:`T` of pairs drawn apart, shape ``(m,)``.
        clip: :math:`\tau`, above 0, in nats; the authors try 1, 5 and infinity.

    Returns:
        Scalar, in nats, differentiable in both arguments as said above; finite for finite scores.

    Raises:
        ShapeError: If an argument is not one-dimensional, or empty.
        OptionError: If the clip is not positive.

    References:
        Song & Ermon (2020), Understanding the Limitations of Variational Mutual Information
        Estimators. https://arxiv.org/abs/1910.06222

    Example:
        >>> smile_estimate(torch.ones(4), torch.full((4,), 9.0), clip=5.0)
        tensor(-4.)
    """
    limit = clip if clip < torch.finfo(marginal_scores.dtype).max else math.inf
    clipped = marginal_scores.detach().clamp(-limit, limit)
    value = donsker_varadhan_bound(joint_scores.detach(), clipped)
    return _with_gradient_of(_divergence(joint_scores, marginal_scores), value)


def _divergence(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    return -softplus(-joint_scores).mean() - softplus(marginal_scores).mean()


def _with_gradient_of(objective: Tensor, value: Tensor) -> Tensor:
    return value + (objective - objective.detach())
