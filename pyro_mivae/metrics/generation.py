"""How well samples of each category show the label that the category stands for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, integers
from pyro_mivae.metrics.checkers import COUNT, counted


@checked(
    judged=counted("categories", "n"),
    names=counted("categories"),
    live=integers("categories"),
    num_labels=COUNT,
)
def generation_accuracy(
    judged: Tensor, names: Tensor, live: Tensor, num_labels: int
) -> tuple[float, float]:
    r"""Share of the samples that show the label that their category stands for.

    .. math:: \frac1{\max(|L|, Y)} \sum_{k \in L} \frac1n \sum_i 1[judge(x'_{ki}) = y_k]

    over the categories L in use and Y labels: a label that no category stands for counts as
    missed. A model whose categories all draw one class has 1 / Y here.

    Args:
        judged: Labels that a judge of real data gives to samples of each category, integers
            from 0, shape ``(categories, n)``.
        names: The label that each category stands for, as `match_labels` gives it, shape
            ``(categories,)``.
        live: Which categories are in use, shape ``(categories,)``.
        num_labels: Y.

    Returns:
        Between 0 and 1, and its standard error over the samples; NaN where no category is in use
        or there are under two labels.

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
    r"""Share of a category's samples that a judge gives the category's most frequent label.

    .. math:: \frac1{|L|} \sum_{k \in L} \max_y \frac1n \sum_i 1[judge(x'_{ki}) = y]

    over the categories L in use. It says that each category draws one thing, and not that they
    draw different things: a model that draws one class only has 1 here.

    Args:
        judged: As for `generation_accuracy`.
        live: As for `generation_accuracy`.

    Returns:
        Between 0 and 1, and its standard error over the samples; NaN where no category is in use.

    Raises:
        ShapeError: If the shapes do not fit.

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
