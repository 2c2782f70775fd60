"""Whether each category generates one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.errors import ShapeError


def generation_accuracy(judged: Tensor, live: Tensor) -> float:
    r"""Share of a category's samples that a judge gives the category's majority class.

    .. math:: \frac1{|L|} \sum_{k \in L} \max_y \frac1n \sum_i 1[judge(x'_{ki}) = y]

    over the categories L in use. Several categories may have the same majority class, and a model
    that generates one class only has 1 here: read it beside the clustering accuracy.

    Args:
        judged: Classes that a judge of real data gives to samples of each category, integers
            from 0, shape ``(categories, n)``.
        live: Which categories are in use, shape ``(categories,)``.

    Returns:
        Between 0 and 1; NaN where no category is in use.

    Raises:
        ShapeError: If the shapes do not fit.

    Example:
        >>> generation_accuracy(torch.tensor([[3, 3, 3, 1], [0, 1, 2, 3]]), torch.tensor([1, 0]))
        0.75
    """
    if judged.dim() != 2 or live.shape != judged.shape[:1] or not judged.shape[1]:
        raise ShapeError(
            f"expected judged classes of shape (categories, n) and which categories are in use, "
            f"shape (categories,), got {tuple(judged.shape)} and {tuple(live.shape)}"
        )
    return float(_shares(judged)[live.bool()].mean())


def generation_error(judged: Tensor, live: Tensor) -> float:
    """Returns the standard error of `generation_accuracy` over the samples.

    Args:
        judged: As there.
        live: As there.

    Returns:
        NaN where no category is in use.
    """
    share = _shares(judged)[live.bool()]
    variance = (share * (1 - share)).sum() / judged.shape[1]
    return float(variance.sqrt() / len(share)) if len(share) else math.nan


def _shares(judged: Tensor) -> Tensor:
    """What part of each category's samples is of its majority class."""
    counts = torch.stack([judged.eq(label).sum(1) for label in judged.unique()], 1)
    return counts.max(1).values.double() / judged.shape[1]
