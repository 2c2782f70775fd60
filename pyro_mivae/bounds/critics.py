r"""Lower bounds on mutual information, and estimates of it, from the scores of a critic, in nats.

A critic is any function :math:`T(x, z)`. A joint score is its value at a pair from the joint
distribution, a marginal score its value at an independent pair: the diagonal of a matrix of
scores, and its `off_diagonal`. Each ``..._bound`` is a lower bound for every critic if its
expectations are exact; ``docs/bounds.md`` measures all. The critic of an ``..._estimate`` learns
to distinguish the pairs by a bounded gradient, and another formula gives the value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, floats, instance, number
from pyro_mivae.bounds.shapes import like, off_diagonal, scalar_or, square, vector


class MovingAverage(nn.Module):
    r"""Exponential moving average :math:`\bar Y` of positive numbers given by their logarithms.

    .. math::
        \bar Y_t = \sum_{s \le t} (1 - \rho)^{t - s} Y_s \Big/ \sum_{s \le t} (1 - \rho)^{t - s}

    The first average is the first number. The state is two scalar buffers, the logarithms of these
    sums, updated in place: a checkpoint keeps it, a captured graph sees it, and nothing is copied
    to the host. Infinite numbers and NaN are skipped.

    Args:
        rate: :math:`\rho`, the weight of the newest number, above 0 and at most 1.

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
        r"""Adds the scalar :math:`\log Y_t`, and returns :math:`\log \bar Y_t`."""
        value = log_value.to(self.log_sum)
        keep = math.log1p(-self.rate) if self.rate < 1 else -math.inf
        counts = value < torch.inf  # as NaN is not
        for buffer, new in ((self.log_sum, value), (self.log_weight, torch.zeros_like(value))):
            moved = torch.logaddexp(buffer + keep, new)
            buffer.copy_(torch.where(counts, moved, buffer))
        return self.log_sum - self.log_weight


@checked(joint_scores=vector("n"), marginal_scores=vector("m"))
def donsker_varadhan_bound(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    r"""Lower-bounds :math:`I(X; Z)` by the critic's mean less its log-partition function.

    .. math:: \mathbb{E}_{p(x,z)}[T] - \log \mathbb{E}_{p(x)p(z)}[e^T]

    Tight for :math:`T = \log \frac{p(x \mid z)}{p(x)}` plus any constant.

    A finite sample errs high, more so for more information: the logarithm of a sample mean errs
    low, and this mean depends on pairs too rare to be drawn. The bound has no ceiling. Its
    gradient is biased too; `mine_bound` reduces that. The value is finite for finite scores.

    Args:
        joint_scores: :math:`T(x_i, z_i)`, shape ``(n,)``.
        marginal_scores: :math:`T` of independent pairs, shape ``(m,)``.

    Returns:
        Scalar, in nats, differentiable in both arguments.

    Raises:
        ShapeError: If an argument is not one-dimensional, or empty.

    References:
        Donsker & Varadhan (1983), Asymptotic Evaluation of Certain Markov Process Expectations.

    Example:
        >>> donsker_varadhan_bound(torch.ones(4), torch.zeros(4))
        tensor(1.)
    """
    return joint_scores.mean() - _log_mean_exp(marginal_scores)


@checked(
    joint_scores=vector("n"),
    marginal_scores=vector("m"),
    average=instance(MovingAverage, example="MovingAverage()"),
)
def mine_bound(joint_scores: Tensor, marginal_scores: Tensor, average: MovingAverage) -> Tensor:
    r"""Returns `donsker_varadhan_bound`, with a less biased gradient.

    The gradient of a batch's own log-partition function is the ratio of two means over the same
    few pairs. Here the denominator is a moving average over the batches:

    .. math:: \nabla = \mathbb{E}_{p(x,z)}[\nabla T]
        - \frac{\mathbb{E}_{p(x)p(z)}[e^T \nabla T]}{\bar Y},
        \qquad \bar Y \approx \mathbb{E}_{p(x)p(z)}[e^T]

    The average includes the current batch, so no weight in this gradient exceeds
    ``1 / average.rate``. The average moves only if ``average.training`` is set and gradients are
    enabled; else the gradient is that of `donsker_varadhan_bound`, as the value always is.

    Args:
        joint_scores: As in `donsker_varadhan_bound`.
        marginal_scores: Likewise.
        average: The moving average, kept from step to step.

    Returns:
        As in `donsker_varadhan_bound`, but differentiable once.

    References:
        Belghazi et al. (2018), Mutual Information Neural Estimation, section 3.2 and eq. 12.
        https://arxiv.org/abs/1801.04062

    Example:
        >>> mine_bound(torch.ones(4), torch.zeros(4), MovingAverage())
        tensor(1.)
    """
    log_partition = _log_mean_exp(marginal_scores)
    if average.training and torch.is_grad_enabled():
        denominator = average.update(log_partition.detach()).to(log_partition.dtype)
        slope = (log_partition - denominator).exp()
        log_partition = _with_gradient_of(slope, log_partition.detach())
    return joint_scores.mean() - log_partition


def nwj_bound(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    r"""Lower-bounds :math:`I(X; Z)` without the logarithm of a mean.

    .. math:: \mathbb{E}_{p(x,z)}[g] - \mathbb{E}_{p(x)p(z)}[e^{g-1}]

    Tight only for :math:`g = 1 + \log \frac{p(x \mid z)}{p(x)}`: the critic must be normalised.
    Also known as f-GAN's KL and as MINE-f.

    A lower bound in expectation at every sample size. The variance grows exponentially with the
    information: for much information most samples lie above their expectation, and a rare one far
    below. :math:`e^{g-1}` overflows float32 if a score is above about 89. The value is then
    ``-inf``, never NaN, and the gradient :math:`e^{88}` times the softmax of the scores.

    Arguments, value and errors are as in `donsker_varadhan_bound`.

    References:
        Nguyen, Wainwright & Jordan (2010), Estimating Divergence Functionals and the Likelihood
        Ratio by Convex Risk Minimization. https://arxiv.org/abs/0809.0853

    Example:
        >>> nwj_bound(torch.ones(4), torch.ones(4))
        tensor(0.)
    """
    return tuba_bound(joint_scores, marginal_scores, 1.0, 1.0)


@checked(
    joint_scores=vector("n"),
    marginal_scores=vector("m"),
    joint_log_baseline=scalar_or("n"),
    marginal_log_baseline=scalar_or("m"),
)
def tuba_bound(
    joint_scores: Tensor,
    marginal_scores: Tensor,
    joint_log_baseline: Tensor | float,
    marginal_log_baseline: Tensor | float,
) -> Tensor:
    r"""Lower-bounds :math:`I(X; Z)` with a baseline that normalises the critic for each code.

    .. math:: 1 + \mathbb{E}_{p(x,z)}[T - \log a(z)]
        - \mathbb{E}_{p(x)p(z)}\Big[\frac{e^T}{a(z)}\Big]

    Tight for :math:`T - \log a(z) = \log \frac{p(x \mid z)}{p(x)}`, as with :math:`T = \log p(z
    \mid x)` and :math:`a(z) = p(z)`. A lower bound in expectation at every sample size, for every
    baseline that depends only on the code, learned or not. `nwj_bound` is the case :math:`a = e`,
    with the same variance and overflow. A baseline near :math:`\mathbb{E}_{p(x)}[e^T]` lowers the
    variance.

    Args:
        joint_scores: As in `donsker_varadhan_bound`.
        marginal_scores: Likewise.
        joint_log_baseline: :math:`\log a` of the joint pairs' codes, a scalar or shape ``(n,)``.
        marginal_log_baseline: :math:`\log a` of the other pairs' codes, a scalar or ``(m,)``.

    Returns:
        Scalar, in nats, differentiable in all arguments.

    Example:
        >>> tuba_bound(torch.ones(4), torch.zeros(4), 0.0, 0.0)
        tensor(1.)
    """
    joint = joint_scores - like(joint_log_baseline, joint_scores)
    marginal = marginal_scores - like(marginal_log_baseline, marginal_scores)
    return 1 + joint.mean() - _exp(_log_mean_exp(marginal))


@checked(scores=square(least=2), log_baseline=scalar_or("n"), alpha=number(least=0, most=1))
def interpolated_bound(scores: Tensor, log_baseline: Tensor | float, *, alpha: float) -> Tensor:
    r"""Lower-bounds :math:`I(X; Z)` between `tuba_bound` and `infonce_bound`: :math:`I_\alpha`.

    .. math:: 1 + \mathbb{E}\Big[\log \frac{e^{T(x_1, z)}}{b(z; x_{1:K})}\Big]
        - \mathbb{E}\Big[\frac{e^{T(x_1, z')}}{b(z'; x_{1:K})}\Big], \qquad
        b(z; x_{1:K}) = \frac{\alpha}{K} \sum_{k} e^{T(x_k, z)} + (1 - \alpha)\, a(z)

    Here z is drawn together with :math:`x_1`, and :math:`z'` independently of all K data. The n
    pairs give n sub-batches of :math:`K = n - 1`, each without one pair, and both means run over
    all. So :math:`\alpha = 1` is the mean of `infonce_bound` over the sub-batches, and
    :math:`\alpha = 0` is `tuba_bound`. Tight, as n grows, for :math:`T - \log a(z) = \log
    \frac{p(x \mid z)}{p(x)}`, whatever the baseline if :math:`\alpha = 1`.

    A lower bound in expectation at every n of 2 or more, for every critic, baseline and
    :math:`\alpha`. A larger :math:`\alpha` gives less variance and more bias. No sample exceeds
    :math:`1 + \log\frac{n - 1}{\alpha}`. Finite for finite scores if :math:`\alpha > 0`.

    Args:
        scores: :math:`T_{ij}` of code i and datum j, shape ``(n, n)`` with n of 2 or more.
        log_baseline: :math:`\log a(z_i)`, a scalar or shape ``(n,)``.
        alpha: :math:`\alpha`, from 0 to 1.

    Returns:
        Scalar, in nats, differentiable in scores and baseline.

    Example:
        >>> interpolated_bound(torch.eye(3), 0.0, alpha=0.5)
        tensor(0.6426)
    """
    n = len(scores)
    baseline = like(log_baseline, scores).expand(n)
    log_alpha = math.log(alpha) if alpha > 0 else -math.inf
    log_rest = math.log1p(-alpha) if alpha < 1 else -math.inf
    own = torch.eye(n, dtype=torch.bool, device=scores.device)

    others = scores.masked_fill(own, -torch.inf).logsumexp(1) - math.log(n - 1)
    apart = torch.logaddexp(others + log_alpha, baseline + log_rest)
    without = off_diagonal(_log_sum_exp_without_each(scores)).reshape(n, n - 1)
    together = torch.logaddexp(without - math.log(n - 1) + log_alpha, baseline[:, None] + log_rest)
    return 1 + (scores.diagonal() - together.mean(1)).mean() - _exp(_log_mean_exp(others - apart))


@checked(joint_scores=vector("n"), marginal_scores=vector("m"))
def jensen_shannon_estimate(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    r"""Estimates :math:`I(X; Z)` by a critic that learns from the Jensen-Shannon divergence.

    The gradient is that of

    .. math:: -\mathbb{E}_{p(x,z)}[\log(1 + e^{-T})] - \mathbb{E}_{p(x)p(z)}[\log(1 + e^{T})]

    in which each summand has a derivative of at most 1. The value is that of
    `nwj_bound` for :math:`g = 1 + T`, without its gradient:

    .. math:: 1 + \mathbb{E}_{p(x,z)}[T] - \mathbb{E}_{p(x)p(z)}[e^T]

    In expectation the value is a lower bound for every critic, with the variance of that bound and
    ``-inf`` on overflow. An objective that adds it maximises the divergence instead, which is
    bounded: at most :math:`2 \log 2` above its value at independence.

    Arguments, value and errors are as in `donsker_varadhan_bound`.

    References:
        Nowozin et al. (2016), f-GAN. https://arxiv.org/abs/1606.00709
        Hjelm et al. (2019), Deep InfoMax. https://arxiv.org/abs/1808.06670

    Example:
        >>> jensen_shannon_estimate(torch.zeros(4), torch.zeros(4))
        tensor(0.)
    """
    value = nwj_bound(1 + joint_scores.detach(), 1 + marginal_scores.detach())
    return _with_gradient_of(_divergence(joint_scores, marginal_scores), value)


@checked(joint_scores=vector("n"), marginal_scores=vector("m"), clip=number(above=0, finite=False))
def smile_estimate(joint_scores: Tensor, marginal_scores: Tensor, *, clip: float) -> Tensor:
    r"""Estimates :math:`I(X; Z)` by Donsker and Varadhan's formula with clipped scores.

    .. math:: \mathbb{E}_{p(x,z)}[T]
        - \log \mathbb{E}_{p(x)p(z)}[\min(\max(e^T, e^{-\tau}), e^{\tau})]

    is the value, where :math:`\tau` is the clip. Scores of joint pairs are not clipped. The
    gradient is that of `jensen_shannon_estimate`, as in the authors' experiments. With the optimal
    critic the value converges to the truth for a large clip and a large sample.

    It is not a bound on either side. Clipping large scores of independent pairs raises the
    estimate, clipping small ones lowers it. In exchange the variance stays small. Errors of the
    critic and of clipping can cancel. A constant added to the critic changes the value. With an
    infinite clip the value is that of `donsker_varadhan_bound`.

    Args:
        joint_scores: As in `donsker_varadhan_bound`.
        marginal_scores: Likewise.
        clip: :math:`\tau`, above 0, in nats; the authors try 1, 5 and infinity.

    Returns:
        As in `donsker_varadhan_bound`; finite for finite scores.

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


def _log_mean_exp(scores: Tensor) -> Tensor:
    return scores.logsumexp(0) - math.log(len(scores))


def _exp(log_value: Tensor) -> Tensor:
    """Exponential, continued as a straight line just before it overflows."""
    # The line becomes infinite too, but its slope does not: the gradient by a score that
    # underflows beside the largest is 0, not 0 times infinity.
    limit = math.floor(math.log(torch.finfo(log_value.dtype).max))
    within = log_value.clamp(max=limit).exp()
    return within + (log_value - limit).clamp(min=0) * math.exp(limit)


def _log_sum_exp_without_each(scores: Tensor) -> Tensor:
    """Log-sum-exp of row i without element j, at ``[i, j]`` of shape ``(n, n)``."""
    # Without its largest element a row's sum is computed again, as the difference would cancel;
    # every other element is at most half of the sum.
    columns = torch.arange(len(scores), device=scores.device)
    largest = columns == scores.argmax(1, keepdim=True)
    total = scores.logsumexp(1, keepdim=True)
    remainder = scores.masked_fill(largest, -torch.inf).logsumexp(1, keepdim=True)
    share = (scores - total).exp().masked_fill(largest, 0.0)
    return torch.where(largest, remainder, total + torch.log1p(-share))


def _divergence(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    return -softplus(-joint_scores).mean() - softplus(marginal_scores).mean()


def _with_gradient_of(objective: Tensor, value: Tensor) -> Tensor:
    return value + (objective - objective.detach())
