"""Information in a code by a marginal fitted on other data, not limited by log N."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_mivae.diagnostics.aggregate import AggregatePosterior
from pyro_mivae.diagnostics.context import UNDEFINED, Figure, mean_of
from pyro_mivae.posterior.densities import Codes
from pyro_mivae.posterior.layout import SiteLayout, coordinates

LEAST_ITEMS = 20  # data from which a marginal is fitted
LEARNED = 0.8  # share of a half that the mixtures are fitted on; the rest weighs them
EVENTS = 30  # alpha times the number of data of a half, at the least
ALPHAS = tuple(10 ** (0.5 * step) for step in range(4))  # in units of the least
OFFSETS = tuple(0.25 * step for step in range(17))  # of t, in nats
COMPONENTS = (1, 4, 16)  # sizes of the mixtures, in each configuration
FLOOR = 1e-3  # least variance of a component, in variances of the codes
STEPS, TOLERANCE = 30, 1e-3  # of expectation maximisation
ENOUGH = 4  # codes per component and dimension from which a mixture is fitted

Places = tuple[Tensor, Tensor] | None


class Fitted(NamedTuple):
    """Bounds of the information in a code, by a marginal fitted on other data."""

    lower: Figure = UNDEFINED
    upper: Figure = UNDEFINED
    reach: float = math.nan  # the ceiling of the lower bound
    why_unfitted: str | None = None  # why no mixtures were fitted; None if they were


def fitted_information(
    aggregate: AggregatePosterior,
    codes: Codes,
    log_prior: Tensor | None,
    layout: SiteLayout,
    seed: int,
) -> Fitted:
    r"""Bounds the information in a code by a marginal that was fitted on other data.

    On each half of the data a density r of codes is fitted: mixtures of Gaussians in `coordinates`
    of the codes' support (none for discrete sites or spheres), the prior, and the mean of the
    half's own posteriors, weighed on a part of the half that the mixtures were not fitted on. The
    n codes of the other half are scored by r. From above,

    .. math:: E_{q(x, z)}\Big[\log \frac{q(z \mid x)}{r(z)}\Big]
        = I_q + KL(q(z) \| r(z)) \ge I_q.

    From below, `tuba_bound` with the baseline r has no ceiling either. But its average of
    :math:`q(z_j \mid x_i) / r(z_j)` over pairs :math:`i \ne j` depends on the share :math:`e^{-I}`
    of pairs whose codes could be exchanged. If :math:`n^2` pairs contain none of these, it is up
    to :math:`1 + KL(q(z) \| r(z))` too high. The interpolated bound limits the part of a code in
    that average to :math:`1 / \alpha`:

    .. math:: I_q \ge 1 + E\Big[\log \frac{q(z_j \mid x_j)}{(1 - \alpha)\, e^t r(z_j)
        + \alpha\, m(z_j)}\Big] - E\Big[\frac{m'(z_j)}{(1 - \alpha)\, e^t r(z_j)
        + \alpha\, m'(z_j)}\Big],

    with :math:`m'(z_j)` the mean of :math:`q(z_j \mid x_i)` over :math:`i \ne j` and :math:`m(z_j)
    = m'(z_j) + q(z_j \mid x_j) / (n - 1)`. Its ceiling is :math:`1 + \log \frac{n - 1}{\alpha}`,
    about :math:`2 \log n - 2.4` nats for :math:`\alpha = 30 / n`. The fitting half chooses
    :math:`\alpha`, 30/n or more, and t. Both bounds hold in expectation over data from a
    population for every r, because no choice depends on the scored half.

    References:
        Poole et al. (2019), On Variational Bounds of Mutual Information, eqs. 2, 6 and 12.
        https://arxiv.org/abs/1905.06922
        McAllester & Stratos (2020), Formal Limitations on the Measurement of Mutual Information.
        https://arxiv.org/abs/1811.04251
    """
    n = len(codes.configuration)
    places, why_unfitted = _places(codes, layout)
    same = aggregate.others_by_half()[0]
    log_marginal = torch.empty_like(same)
    gain, average = torch.empty_like(same), torch.empty_like(same)
    reach = 0.0
    for fitting, rows, within, across in _judgements(
        aggregate, places, codes.configuration, layout.num_configurations, log_prior, seed
    ):
        alpha, t = _choose(aggregate.own[fitting], same[fitting], within)
        log_marginal[rows] = across
        gain[rows], average[rows] = _interpolated(
            aggregate.own[rows], same[rows], across, alpha, t
        )
        reach += (1 + math.log((len(rows) - 1) / alpha)) * len(rows) / n
    lower, error = mean_of(1 + gain - average)
    # The data that the average is over scatter it too, and no more than its codes do.
    error = math.hypot(error, mean_of(average)[1])
    upper = mean_of(aggregate.own - log_marginal)
    return Fitted((lower, error), upper, reach, why_unfitted)


def fitted_log_marginal(
    aggregate: AggregatePosterior, codes: Codes, layout: SiteLayout, seed: int
) -> Tensor:
    r"""Scores the drawn sites by a density that was fitted on the other half of the data."""
    places, why_unfitted = _places(codes, layout)
    if why_unfitted:
        return aggregate.others
    result = torch.empty_like(aggregate.own)
    alike = torch.zeros_like(codes.configuration)
    for _, rows, _, across in _judgements(aggregate, places, alike, 1, None, seed):
        result[rows] = across
    return result


def mixture_densities(
    values: Tensor, configuration: Tensor, learned: Tensor, num_configurations: int, seed: int
) -> Tensor:
    r"""Scores the drawn part of codes under mixtures of Gaussians of several sizes.

    :math:`r(k, z) = \pi_k\, r(z \mid k)` with :math:`\pi_k` the share of the configuration, and
    :math:`r(z \mid k)` a mixture with full covariances, fitted by expectation maximisation. A
    configuration with too few codes for a size gets the next smaller size, or finally the single
    Gaussian of all codes. Returns a column per size.
    """
    spread = values[learned].std(0).clamp_min(torch.finfo(values.dtype).tiny ** 0.5)
    scaled = (values - values[learned].mean(0)) / spread
    kinds = configuration[learned]
    counts = kinds.bincount(minlength=num_configurations).double()
    log_shares = ((counts + 1) / (counts.sum() + num_configurations)).log()
    mixtures = [_fit(scaled[learned], 1, seed)] * num_configurations
    columns: list[Tensor] = []
    for size in COMPONENTS:
        is_new = not columns
        for k in range(num_configurations):
            some = scaled[learned][kinds == k]
            if len(some) >= ENOUGH * size * (values.shape[1] + 1):
                mixtures[k], is_new = _fit(some, size, seed), True
        if is_new:
            column = values.new_empty(len(values))
            for k in configuration.unique().tolist():
                of_it = configuration == k
                column[of_it] = mixtures[k].scores(scaled[of_it]).logsumexp(1)
            columns.append(column)
    table = torch.stack(columns, 1)
    table += log_shares[configuration, None] - spread.log().sum()
    return table


def stack_densities(log_densities: Tensor) -> Tensor:
    r"""Weighs densities so that their mixture is most likely.

    References:
        Smyth & Wolpert (1999), Linearly Combining Density Estimators via Stacking.
        https://doi.org/10.1023/A:1007511322260
    """
    weights = torch.full_like(log_densities[0], 1 / log_densities.shape[1])
    log_densities = log_densities[(log_densities != -torch.inf).any(1)]
    for _ in range(50 if len(log_densities) else 0):
        weights = (log_densities + weights.log()).softmax(1).mean(0)
    return weights


def _places(codes: Codes, layout: SiteLayout) -> tuple[Places, str | None]:
    """Coordinates of the drawn sites with the log of their volume, or why there are none."""
    parts = []
    for name in layout.drawn:
        part = coordinates(codes.values[name], layout.supports.get(name))
        if part is None:
            return None, (
                f"site {name} has no coordinates in R^d: no mixture of Gaussians is fitted, and "
                "the codes are judged by the prior and the posteriors of other data"
            )
        parts.append(part)
    places, slopes = zip(*parts, strict=True)
    return (torch.cat(places, 1), torch.stack(slopes).sum(0)), None


def _judgements(
    aggregate: AggregatePosterior,
    places: Places,
    configuration: Tensor,
    num_configurations: int,
    log_prior: Tensor | None,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields for each half in turn: its rows, those of the other, and log-densities of both."""
    same, cross = aggregate.others_by_half()
    generator = torch.Generator().manual_seed(seed)
    second = torch.as_tensor(aggregate.second)
    for judged in (second, ~second):
        fitting, rows = (part.nonzero()[:, 0] for part in (~judged, judged))
        fitting = fitting[torch.randperm(len(fitting), generator=generator).to(fitting.device)]
        learned, rest = fitting.tensor_split([round(LEARNED * len(fitting))])
        columns = [] if log_prior is None else [log_prior[:, None]]
        if places is not None:
            values, slope = places
            mixtures = mixture_densities(values, configuration, learned, num_configurations, seed)
            columns.insert(0, mixtures - slope[:, None])
        within = torch.cat([*columns, same[:, None]], 1)  # each code's own posterior left out
        across = torch.cat([*columns, cross[:, None]], 1)
        log_weights = stack_densities(within[rest]).log()
        yield (
            fitting,
            rows,
            (within[fitting] + log_weights).logsumexp(1),
            (across[rows] + log_weights).logsumexp(1),
        )


def _choose(own: Tensor, others: Tensor, log_marginal: Tensor) -> tuple[float, float]:
    """The alpha and t under which the lower bound is highest."""
    least = EVENTS / len(own)
    offsets = own.new_tensor(OFFSETS)
    best: list[tuple[float, float, float]] = []
    for alpha in [min(0.5, least * times) for times in ALPHAS]:
        gain, average = _interpolated(own, others, log_marginal, alpha, offsets[:, None])
        bound, place = (gain - average).mean(1).max(0)
        best.append((float(bound), alpha, OFFSETS[int(place)]))
    return max(best)[1:]


def _interpolated(
    own: Tensor, others: Tensor, log_marginal: Tensor, alpha: float, t: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the two expectations of the interpolated bound, for one t or a column of them."""
    base = log_marginal + t + math.log1p(-alpha)
    everyone = torch.logaddexp(others, own - math.log(len(own) - 1))
    gain = own - torch.logaddexp(base, everyone + math.log(alpha))
    average = (others - torch.logaddexp(base, others + math.log(alpha))).exp()
    return gain, average


class _Gaussians(NamedTuple):
    """A mixture of k Gaussians in d dimensions."""

    log_weights: Tensor  # (k,)
    means: Tensor  # (k, d)
    roots: Tensor  # (k, d, d), of the precisions

    def scores(self, values: Tensor) -> Tensor:
        """Returns each component's log of weight times density, shape ``(n, k)``."""
        parts = zip(self.means, self.roots, strict=True)
        squares = torch.stack([((values - m) @ root).square().sum(1) for m, root in parts], 1)
        log_det = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = 0.5 * values.shape[1] * math.log(2 * math.pi)
        return self.log_weights + log_det - constant - 0.5 * squares


def _fit(values: Tensor, components: int, seed: int) -> _Gaussians:
    """Fits by expectation maximisation, without scikit-learn's checks in every step."""
    shares = values.new_ones(len(values), 1)
    if components > 1:
        from sklearn.cluster import kmeans_plusplus

        _, centers = kmeans_plusplus(values.cpu().numpy(), components, random_state=seed)
        shares = values.new_zeros(len(values), components)
        shares[centers, range(components)] = 1
    fitted, before = _weighed(values, shares), -math.inf
    for _ in range(STEPS if components > 1 else 0):
        scores = fitted.scores(values)
        total = scores.logsumexp(1, keepdim=True)
        fitted = _weighed(values, (scores - total).exp())
        if abs((now := float(total.mean())) - before) < TOLERANCE:
            break
        before = now
    return fitted


def _weighed(values: Tensor, shares: Tensor) -> _Gaussians:
    """The Gaussians that are most likely given each component's share of each code."""
    n, dims = values.shape
    counts = shares.sum(0) + 10 * torch.finfo(values.dtype).eps
    means = shares.T @ values / counts[:, None]
    parts = [(values - mean, share[:, None]) for mean, share in zip(means, shares.T, strict=True)]
    covariance = torch.stack([(share * centred).T @ centred for centred, share in parts])
    covariance = covariance / counts[:, None, None]
    eye = torch.eye(dims).to(values)
    if n < 2 * (dims + 1):
        covariance = covariance * eye
    lower = torch.linalg.cholesky(covariance + FLOOR * eye)
    roots = torch.linalg.solve_triangular(lower, eye, upper=False).mT
    return _Gaussians((counts / counts.sum()).log(), means, roots)
