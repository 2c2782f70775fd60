"""Scores of a code by the factors that made the data; factors with one value are left out.

All scores have the arguments of `mutual_information_gap`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_mivae.arguments import checked
from pyro_mivae.metrics import checkers
from pyro_mivae.metrics.checkers import SEED, columns, counted
from pyro_mivae.metrics.clustering import contingency

BINS = 20
VOTES, ITEMS_PER_VOTE = 800, 64
RARE = 0.001
GIVEN = {
    "codes": checkers.codes("n", "d"),
    "factors": counted("n", "F"),
    "categorical": columns("d"),
}


@checked(**GIVEN)
def mutual_information_gap(
    codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = ()
) -> float:
    r"""Mutual information gap (MIG): lead of the best dimension in information on a factor.

    .. math:: \frac1F \sum_k \frac1{H(v_k)} \Big( \max_j I(z_j; v_k)
        - \max_{j \ne j^*} I(z_j; v_k) \Big)

    The informations are those of `factor_information`.

    Args:
        codes: Code of each datum, shape ``(n, d)``.
        factors: Its factors, integers from 0, shape ``(n, F)``.
        categorical: Columns of ``codes`` that hold the index of a category, which has no order.

    Returns:
        Between 0 and 1; NaN where no factor varies, or codes are not finite.

    Raises:
        ShapeError, DataError, OptionError: If codes, factors or columns are not as said above.

    References:
        Chen et al. (2018), Isolating Sources of Disentanglement in VAEs, eq. 6.
        https://arxiv.org/abs/1802.04942

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(3), torch.arange(4))
        >>> mutual_information_gap(factors.double(), factors)
        1.0
    """
    factors = varying(factors)
    if not codes.isfinite().all() or not factors.shape[1]:
        return math.nan
    information = factor_information(codes, factors, categorical=categorical)
    padded = torch.cat([information, information.new_zeros(2, factors.shape[1])])
    first, second = padded.topk(2, 0).values
    shares = [values.bincount().double() / len(values) for values in factors.unbind(1)]
    entropies = torch.stack([-share.xlogy(share).sum() for share in shares])
    return float(((first - second) / entropies).mean())


@checked(**GIVEN)
def modularity(codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = ()) -> float:
    r"""Degree to which each dimension has information on only one factor.

    .. math:: 1 - \frac{\sum_{k \ne k^*} I(z_j; v_k)^2}{(F - 1)\, I(z_j; v_{k^*})^2},
        \quad k^* = \arg\max_k I(z_j; v_k)

    on average over the informative dimensions j: those whose largest information is significant at
    0.1 % (a :math:`\chi^2` test of :math:`2nI`). The informations are those of
    `factor_information`.

    Returns:
        Between 0 and 1; NaN if fewer than two factors vary, no dimension is informative, or codes
        are not finite.

    References:
        Ridgeway & Mozer (2018), Learning Deep Disentangled Embeddings with the F-Statistic Loss,
        section 3 (there the score of a dimension is 1 minus its deviation from the template).
        https://arxiv.org/abs/1802.05312

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(3), torch.arange(4))
        >>> modularity(factors.double(), factors)
        1.0
    """
    from scipy.stats import chi2

    factors = varying(factors)
    num_factors = factors.shape[1]
    if not codes.isfinite().all() or num_factors < 2:
        return math.nan
    information = factor_information(codes, factors, categorical=categorical)
    columns = _binned(codes, categorical), factors.unbind(1)
    own, others = (torch.tensor([len(c.unique()) - 1 for c in side]) for side in columns)
    freedom = (own[:, None] * others).clamp_min(1).numpy()
    chance = torch.from_numpy(chi2.isf(RARE / num_factors, freedom) / (2 * len(codes)))
    knows = (information > chance.to(codes.device)).any(1)
    squares = information.square()
    most = squares.max(1).values
    share = (squares.sum(1) - most) / (most * (num_factors - 1))
    return float((1 - share[knows]).mean())


@checked(**GIVEN)
def factor_information(
    codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = ()
) -> Tensor:
    r"""Mutual information of each dimension of a code with each factor, in nats.

    It is computed from counts: dimensions are cut into 20 bins of equal width between their
    smallest and largest value. It errs high by about (bins - 1)(values - 1) / 2n if they are
    independent, and low by the information lost in binning.

    Returns:
        At least 0, float64, shape ``(d, F)``.

    Example:
        >>> halves = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> factor_information(halves.double(), halves)
        tensor([[0.6931, 0.0000],
                [0.0000, 0.6931]], dtype=torch.float64)
    """
    bins = _binned(codes, categorical)
    found = [_information(contingency(c, v)) for c in bins for v in factors.unbind(1)]
    empty = torch.zeros(0, dtype=torch.float64, device=codes.device)
    return (torch.stack(found) if found else empty).reshape(codes.shape[1], factors.shape[1])


@checked(**GIVEN)
def separated_attribute_predictability(
    codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = ()
) -> float:
    r"""SAP score: lead of the best dimension over the second best in predicting a factor.

    A dimension's score for a factor of K values is the balanced accuracy of K - 1 thresholds on
    it: the mean over the values of the share that is correct. The thresholds are placed one after
    the other where they lower the Gini impurity of the balanced data most, and each interval
    predicts one value. A category predicts the best value for each of its own. A useless dimension
    scores 1 / K, so a perfect code has the mean of 1 - 1 / K.

    Returns:
        Between 0 and 1; NaN where no factor varies, or codes are not finite.

    References:
        Kumar, Sattigeri & Balakrishnan (2018), Variational Inference of Disentangled Latent
        Concepts from Unlabeled Observations, section 3. https://arxiv.org/abs/1711.00848

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(2), torch.arange(2))
        >>> separated_attribute_predictability(factors.double(), factors)
        0.5
    """
    factors = varying(factors)
    if not codes.isfinite().all() or not factors.shape[1]:
        return math.nan
    gaps = []
    for values in factors.unbind(1):
        chance = 1 / len(values.unique())
        scores = [
            _named(column, values) if j in categorical else _cut(column, values)
            for j, column in enumerate(codes.unbind(1))
        ]
        best = sorted([*scores, chance, chance])[-2:]
        gaps.append(best[1] - best[0])
    return sum(gaps) / len(gaps)


@checked(**GIVEN, seed=SEED)
def factor_vae_score(
    codes: Tensor, factors: Tensor, *, categorical: Sequence[int] = (), seed: int = 0
) -> tuple[float, float]:
    r"""FactorVAE score: how often the dimension that varies least identifies the fixed factor.

    A vote draws a factor, a random datum, and 64 data (with replacement) with the same value of
    that factor. The dimension with the least variance among these, relative to its variance among
    all data, casts the vote. 800 votes assign a factor to each dimension, and 800 others are
    scored by it. The variance of a category is the sum over its values of p(1 - p). Constant
    dimensions do not vote. Chance is 1 / F.

    Returns:
        Share of correct votes, between 0 and 1, and its standard error; NaN if fewer than two
        factors or no dimension vary, or codes are not finite.

    References:
        Kim & Mnih (2018), Disentangling by Factorising, section 4. https://arxiv.org/abs/1802.05983

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(3), torch.arange(4))
        >>> factor_vae_score(factors.double(), factors)
        (1.0, 0.0)
    """
    factors = varying(factors)
    alive = (codes != codes[:1]).any(0).nonzero()[:, 0]
    if not codes.isfinite().all() or factors.shape[1] < 2 or not len(alive):
        return math.nan, math.nan
    features, groups = expand(codes.double(), categorical)
    spread = _grouped(features.var(0, correction=0), groups, codes.shape[1])
    generator = torch.Generator().manual_seed(seed)
    table = torch.zeros(codes.shape[1], factors.shape[1], dtype=torch.long)
    right = 0
    for scored in (False, True):
        fixed = torch.randint(factors.shape[1], (VOTES,), generator=generator)
        rows = _alike(factors.cpu(), fixed, generator).to(codes.device)  # (votes, items)
        parts = rows.split(100)
        within = torch.cat([features[part].var(1, correction=0) for part in parts])
        votes = alive[
            (_grouped(within, groups, codes.shape[1]) / spread)[:, alive].argmin(1)
        ].cpu()
        if scored:
            right = int((table.argmax(1)[votes] == fixed).sum())
        else:
            table.index_put_((votes, fixed), torch.ones_like(votes), accumulate=True)
    share = right / VOTES
    return share, math.sqrt(share * (1 - share) / VOTES)


def varying(factors: Tensor) -> Tensor:
    """Returns the factors that take more than one value, shape ``(n, at most F)``."""
    return factors[:, (factors != factors[:1]).any(0)]


def expand(codes: Tensor, categorical: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Expands categories to one column per value."""
    parts = [
        one_hot(column.unique(return_inverse=True)[1]).to(codes)
        if j in categorical
        else column[:, None]
        for j, column in enumerate(codes.unbind(1))
    ]
    widths = torch.tensor([part.shape[1] for part in parts], dtype=torch.long)
    groups = torch.arange(len(parts)).repeat_interleave(widths).to(codes.device)
    return torch.cat([codes[:, :0], *parts], 1), groups


def _grouped(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sums over the columns of each group, shape ``(..., count)``."""
    zeros = values.new_zeros(*values.shape[:-1], count)
    return zeros.index_add(-1, groups, values)


def _binned(codes: Tensor, categorical: Sequence[int]) -> list[Tensor]:
    """Bins of each dimension, and the values of a category."""
    found = []
    for j, column in enumerate(codes.unbind(1)):
        low, high = column.min(), column.max()
        if j in categorical:
            found.append(column.unique(return_inverse=True)[1])
        elif low == high:
            found.append(torch.zeros_like(column, dtype=torch.long))
        else:
            found.append(((column - low) / (high - low) * BINS).long().clamp(max=BINS - 1))
    return found


def _information(counts: Tensor) -> Tensor:
    joint = counts.double() / counts.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    return torch.where(joint > 0, joint * (joint / product).log(), 0.0).sum().clamp_min(0.0)


def _cut(column: Tensor, values: Tensor) -> float:
    """Balanced accuracy of as many intervals of a dimension as a factor has values."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    x, y = column[:, None].cpu().numpy(), values.cpu().numpy()
    tree = DecisionTreeClassifier(
        max_leaf_nodes=len(values.unique()), class_weight="balanced", random_state=0
    )
    return float(balanced_accuracy_score(y, tree.fit(x, y).predict(x)))


def _named(column: Tensor, values: Tensor) -> float:
    """Balanced accuracy of the best value for each category."""
    counts = contingency(column.unique(return_inverse=True)[1], values).double()
    counts = counts[:, counts.sum(0) > 0]
    return float((counts / counts.sum(0)).max(1).values.sum() / counts.shape[1])


def _alike(factors: Tensor, fixed: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of data with the same value of one factor, for each vote, ``(votes, items)``."""
    rows = torch.zeros(len(fixed), ITEMS_PER_VOTE, dtype=torch.long)
    for k, values in enumerate(factors.unbind(1)):
        votes = (fixed == k).nonzero()[:, 0]
        order, counts = values.argsort(), values.bincount()
        datum = torch.randint(len(values), (len(votes),), generator=generator)
        value = values[datum]
        place = torch.rand(len(votes), ITEMS_PER_VOTE, generator=generator)
        offset = (place * counts[value, None]).long().clamp(max=counts[value, None] - 1)
        rows[votes] = order[(counts.cumsum(0) - counts)[value, None] + offset]
    return rows
