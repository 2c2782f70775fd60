"""Agreement of categories with labels, and use of the categories.

Categories and labels are integers from 0, one per datum, as in `contingency`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, integers
from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.metrics.checkers import COUNT, MOST_CELLS, counted

LIVE = 0.005  # share of the data from which a category counts as used
PAIRS = checked(categories=counted("n"), labels=counted("n"))


@PAIRS
def contingency(categories: Tensor, labels: Tensor) -> Tensor:
    """Counts the data with each pair of category and label.

    Args:
        categories: Category of each datum, integers from 0, shape ``(n,)``.
        labels: Label of each datum, integers from 0, shape ``(n,)``.

    Returns:
        Counts, int64, shape ``(categories, labels)``, each up to its largest value.

    Raises:
        ShapeError: If there is not one label per category.
        DataError: If they are not integers from 0, or too large to be counted.

    Example:
        >>> contingency(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]))
        tensor([[0, 2],
                [1, 0]])
    """
    return _count_pairs(categories, labels, int(categories.max()) + 1)


@PAIRS
def cluster_accuracy(categories: Tensor, labels: Tensor) -> float:
    r"""Share of the data whose category is matched to their label.

    .. math:: \max_\pi \frac1n \sum_i 1[\pi(c_i) = y_i]

    over all one-to-one maps from categories to labels (the Hungarian method). If there are more
    categories than labels, the categories left over count as wrong.

    Returns:
        Between 0 and 1.

    References:
        Xie, Girshick & Farhadi (2016), Unsupervised Deep Embedding for Clustering Analysis,
        eq. 10. https://arxiv.org/abs/1511.06335

    Example:
        >>> cluster_accuracy(torch.tensor([2, 2, 0, 1]), torch.tensor([0, 0, 1, 1]))
        0.75
    """
    from scipy.optimize import linear_sum_assignment

    counts = contingency(categories, labels).cpu().numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


@PAIRS
def normalised_mutual_information(categories: Tensor, labels: Tensor) -> float:
    r"""Mutual information of categories and labels over the mean of their entropies.

    .. math:: \frac{2\, I(c; y)}{H(c) + H(y)}

    Returns:
        Between 0 and 1; 0 if one of the two has a single value, NaN if both have.

    Example:
        >>> normalised_mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0]))
        1.0
    """
    from sklearn.metrics import normalized_mutual_info_score

    if _both_constant(categories, labels):
        return math.nan
    return float(normalized_mutual_info_score(labels.cpu().numpy(), categories.cpu().numpy()))


@PAIRS
def adjusted_rand_index(categories: Tensor, labels: Tensor) -> float:
    """Agreement of categories and labels on pairs of data, adjusted for chance.

    Returns:
        1 for equal partitions, about 0 for independent ones; NaN if both have a single value.

    References:
        Hubert & Arabie (1985), Comparing partitions, eq. 5.

    Example:
        >>> adjusted_rand_index(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0]))
        1.0
    """
    from sklearn.metrics import adjusted_rand_score

    if _both_constant(categories, labels):
        return math.nan
    return float(adjusted_rand_score(labels.cpu().numpy(), categories.cpu().numpy()))


@checked(categories=counted("n"), num_categories=COUNT)
def occupancy(categories: Tensor, num_categories: int) -> Tensor:
    """Share of the data in each category.

    Args:
        categories: Category of each datum, shape ``(n,)``.
        num_categories: Number of categories.

    Returns:
        Shares that sum to 1, shape ``(num_categories,)``.

    Raises:
        ShapeError: If a category is not below ``num_categories``.

    Example:
        >>> occupancy(torch.tensor([0, 0, 0, 2]), 3)
        tensor([0.7500, 0.0000, 0.2500])
    """
    _check_count(categories, num_categories)
    return torch.bincount(categories, minlength=num_categories) / len(categories)


def categories_used(categories: Tensor, num_categories: int) -> int:
    """Number of categories with at least 0.5 % of the data each, see `occupancy`.

    Example:
        >>> categories_used(torch.tensor([0, 0, 2, 2]), num_categories=3)
        2
    """
    return int((occupancy(categories, num_categories) >= LIVE).sum())


@checked(categories=counted("n"), labels=counted("n"), num_categories=COUNT)
def match_labels(categories: Tensor, labels: Tensor, num_categories: int) -> Tensor:
    """Matches categories to labels, one to one, with the most agreement (Hungarian method).

    If there are more categories than labels, each category left over gets its most frequent label.
    If there are more labels than categories, some labels get no category.

    Args:
        categories: As in `contingency`.
        labels: As in `contingency`.
        num_categories: Number of categories.

    Returns:
        The label of each category, shape ``(num_categories,)``.

    Raises:
        ShapeError: As `contingency`, or if a category is not below ``num_categories``.
        DataError: As `contingency`.

    Example:
        >>> match_labels(torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([5, 5, 3, 5, 3, 5]), 3)
        tensor([5, 3, 5])
    """
    from scipy.optimize import linear_sum_assignment

    _check_count(categories, num_categories)
    counts = _count_pairs(categories, labels, num_categories).cpu()
    present = counts.sum(0).nonzero()[:, 0]
    matched = present[counts[:, present].argmax(1)]
    rows, columns = linear_sum_assignment(counts[:, present].numpy(), maximize=True)
    matched[torch.from_numpy(rows)] = present[torch.from_numpy(columns)]
    return matched


@checked(
    judged=counted("categories", "n"),
    names=counted("categories"),
    live=integers("categories"),
    num_labels=COUNT,
)
def generation_accuracy(
    judged: Tensor, names: Tensor, live: Tensor, num_labels: int
) -> tuple[float, float]:
    r"""Share of the samples that show the label of their category.

    .. math:: \frac1{\max(|L|, Y)} \sum_{k \in L} \frac1n \sum_i 1[judge(x'_{ki}) = y_k]

    over the categories L in use and Y labels. A label without a category counts as missed. If all
    categories draw the same class, this is 1 / Y.

    Args:
        judged: Labels that a classifier of real data gives to samples of each category, integers
            from 0, shape ``(categories, n)``.
        names: The label of each category, from `match_labels`, shape ``(categories,)``.
        live: True for categories in use, shape ``(categories,)``.
        num_labels: Y.

    Returns:
        Between 0 and 1, and its standard error over the samples; NaN if no category is in use or
        there are fewer than two labels.

    Raises:
        ShapeError: If the shapes do not fit.

    Example:
        >>> judged = torch.tensor([[3, 3, 3, 1], [0, 1, 2, 3]])
        >>> names, live = torch.tensor([3, 2]), torch.tensor([True, True])
        >>> generation_accuracy(judged, names, live, 2)[0]
        0.5
    """
    if num_labels < 2 or not live.any():
        return math.nan, math.nan
    right = judged.eq(names[:, None].to(judged.device)).double().mean(1)[live.bool()]
    count = max(len(right), num_labels)
    error = float((right * (1 - right)).sum().div(judged.shape[1]).sqrt() / count)
    return float(right.sum() / count), error


@checked(judged=counted("categories", "n"), live=integers("categories"))
def generation_consistency(judged: Tensor, live: Tensor) -> tuple[float, float]:
    r"""Share of a category's samples that get the category's most frequent judged label.

    .. math:: \frac1{|L|} \sum_{k \in L} \max_y \frac1n \sum_i 1[judge(x'_{ki}) = y]

    over the categories L in use. It measures if each category draws one thing, and not if
    categories draw different things: it is 1 for a model that only draws one class.

    The arguments are those of `generation_accuracy`.

    Returns:
        Between 0 and 1, and its standard error over the samples; NaN where no category is in use.

    Example:
        >>> judged = torch.tensor([[3, 3, 3, 1], [0, 1, 2, 3]])
        >>> generation_consistency(judged, torch.tensor([True, False]))[0]
        0.75
    """
    if not live.any():
        return math.nan, math.nan
    counts = torch.stack([judged.eq(label).sum(1) for label in judged.unique()], 1)
    share = (counts.max(1).values.double() / judged.shape[1])[live.bool()]
    error = float((share * (1 - share)).sum().div(judged.shape[1]).sqrt() / len(share))
    return float(share.mean()), error


def _count_pairs(categories: Tensor, labels: Tensor, num_categories: int) -> Tensor:
    width = int(labels.max()) + 1
    if num_categories * width > MOST_CELLS:
        raise DataError(
            f"{num_categories} categories and {width} labels given; allowed are {MOST_CELLS} "
            "pairs of them: number both by unique(return_inverse=True)"
        )
    counts = torch.bincount(categories * width + labels, minlength=num_categories * width)
    return counts.reshape(-1, width)


def _check_count(categories: Tensor, num_categories: int) -> None:
    if int(categories.max()) >= num_categories:
        raise ShapeError(
            f"category {int(categories.max())} found, and num_categories={num_categories}; give "
            "a larger num_categories"
        )


def _both_constant(categories: Tensor, labels: Tensor) -> bool:
    return bool((categories == categories[0]).all() and (labels == labels[0]).all())
