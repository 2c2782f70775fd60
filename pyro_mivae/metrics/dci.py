"""Disentanglement, completeness and informativeness of a code, by random forests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_mivae.arguments import Given, checked, checker, numbers
from pyro_mivae.errors import DataError
from pyro_mivae.metrics import checkers
from pyro_mivae.metrics.checkers import SEED, columns, counted
from pyro_mivae.metrics.factors import expand

TREES, LEAST_IN_LEAF = 20, 5


class DCI(NamedTuple):
    """Result of `dci_scores`.

    Attributes:
        disentanglement: `disentanglement` of the importance.
        completeness: `completeness` of the importance.
        informativeness: Accuracy on held-out data, averaged over the factors.
        importance: Importance of each dimension for each factor; columns sum to 1, shape ``(d,
            F)``.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Tensor


@checked(
    train_codes=checkers.codes("m", "d"),
    train_factors=counted("m", "F"),
    codes=checkers.codes("n", "d"),
    factors=counted("n", "F"),
    categorical=columns("d"),
    seed=SEED,
)
def dci_scores(
    train_codes: Tensor,
    train_factors: Tensor,
    codes: Tensor,
    factors: Tensor,
    *,
    categorical: Sequence[int] = (),
    seed: int = 0,
) -> DCI:
    r"""Disentanglement, completeness and informativeness (DCI).

    A random forest of scikit-learn learns each factor from the whole code. It has 20 trees with
    five data or more per leaf, and considers all dimensions at each split. The importance of a
    dimension is its share of the decrease in Gini impurity.

    Args:
        train_codes: Codes to learn on, shape ``(m, d)``.
        train_factors: Their factors, integers from 0, shape ``(m, F)``. Factors with a single
            value, here or in ``factors``, are left out.
        codes: Codes to score.
        factors: Their factors.
        categorical: Columns of the codes that hold a category; the forest reads them one-hot.
        seed: Seed of the forests.

    Returns:
        The scores, NaN if no factor varies, or codes are not finite.

    References:
        Eastwood & Williams (2018), A Framework for the Quantitative Evaluation of Disentangled
        Representations, section 2. https://openreview.net/forum?id=By-7dz-AZ

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(6), torch.arange(7)).repeat(9, 1)
        >>> scores = dci_scores(factors.double(), factors, factors.double(), factors)
        >>> scores[:3]
        (1.0, 1.0, 1.0)
    """
    from sklearn.ensemble import RandomForestClassifier

    varies = (train_factors != train_factors[:1]).any(0) & (factors != factors[:1]).any(0)
    kept, targets = train_factors[:, varies], factors[:, varies]
    finite = bool(train_codes.isfinite().all() and codes.isfinite().all())
    if not finite or not kept.shape[1] or not codes.shape[1]:
        empty = torch.full((codes.shape[1], kept.shape[1]), math.nan)
        return DCI(math.nan, math.nan, math.nan, empty)
    features, groups = expand(torch.cat([train_codes, codes]), categorical)
    learn, score = (f.cpu().numpy() for f in features.split([len(train_codes), len(codes)]))
    shares, accuracies = [], []
    for truth, target in zip(kept.unbind(1), targets.unbind(1), strict=True):
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=LEAST_IN_LEAF, max_features=None, random_state=seed
        )
        forest.fit(learn, truth.cpu().numpy())
        accuracies.append(float(forest.score(score, target.cpu().numpy())))
        found = torch.from_numpy(forest.feature_importances_)
        shares.append(torch.zeros(codes.shape[1]).double().index_add(0, groups.cpu(), found))
    importance = torch.stack(shares, 1)
    return DCI(
        disentanglement(importance),
        completeness(importance),
        sum(accuracies) / len(accuracies),
        importance,
    )


@checker
def _importance(given: Given) -> Tensor:
    """Finite numbers of at least 0, shape ``(d, F)``, as float64."""
    found: Tensor = numbers("d", "F", least=0)(given.name, given.value, given.sizes).double()
    if (found < 0).any():
        raise DataError(f"{given.name} has negative values; allowed are 0 and more")
    return found


@checked(importance=_importance())
def disentanglement(importance: Tensor) -> float:
    r"""Degree to which each dimension matters to only one factor.

    .. math:: \sum_j \rho_j (1 - H_F(P_j)),\quad P_{jk} = R_{jk} / \textstyle\sum_k R_{jk},\quad
        \rho_j = \sum_k R_{jk} / \sum_{jk} R_{jk}

    with entropies to the base of the number of factors.

    Args:
        importance: :math:`R`, at least 0, of each dimension for each factor, shape ``(d, F)``.

    Returns:
        Between 0 and 1; NaN for one factor, or if all importances are 0.

    Example:
        >>> disentanglement(torch.eye(3)), disentanglement(torch.ones(2, 2))
        (1.0, 0.0)
    """
    if importance.shape[1] < 2:
        return math.nan
    weight = importance.sum(1)
    return float((weight / weight.sum() * _purity(importance)).sum().clamp(max=1.0))


@checked(importance=_importance())
def completeness(importance: Tensor) -> float:
    r"""Degree to which only one dimension matters to each factor.

    .. math:: \frac1F \sum_k (1 - H_d(P_k)),\quad P_{jk} = R_{jk} / \textstyle\sum_j R_{jk}

    with entropies to the base of the number of dimensions, over the factors with an importance
    above 0.

    Args:
        importance: As in `disentanglement`.

    Returns:
        Between 0 and 1; NaN for one dimension, or if all importances are 0.

    Example:
        >>> completeness(torch.eye(3)), completeness(torch.ones(2, 2))
        (1.0, 0.0)
    """
    if len(importance) < 2:
        return math.nan
    return float(_purity(importance.T)[importance.sum(0) > 0].mean())


def _purity(rows: Tensor) -> Tensor:
    """1 minus the entropy of each row's shares, to the base of their number."""
    shares = rows / rows.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (1 + shares.xlogy(shares).sum(1) / math.log(rows.shape[1])).clamp(0.0, 1.0)
