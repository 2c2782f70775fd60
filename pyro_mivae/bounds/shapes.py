"""What shapes scores come in, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_mivae.errors import ShapeError


def check_square(scores: Tensor, *, at_least: int) -> int:
    """Checks that scores are those of n codes under n data.

    Args:
        scores: Any tensor.
        at_least: The smallest n allowed.

    Returns:
        n.

    Raises:
        ShapeError: If the shape is not ``(n, n)`` with n that large.
    """
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or len(scores) < at_least:
        raise ShapeError(
            f"scores: expected a square matrix (n, n) of n >= {at_least}, got "
            f"{tuple(scores.shape)}; row i is to hold code i under every datum"
        )
    return len(scores)


def check_vector(name: str, value: Tensor) -> None:
    """Checks that a tensor holds one value per sample.

    Args:
        name: What to call it.
        value: Any tensor.

    Raises:
        ShapeError: If the shape is not ``(n,)`` with n at least 1.
    """
    if value.dim() != 1 or not len(value):
        raise ShapeError(
            f"{name}: expected one value per sample, shape (n,), got {tuple(value.shape)}; "
            "sum over the dimensions of the code, and take pairs out of a matrix with "
            "diagonal() and off_diagonal()"
        )


def check_baseline(name: str, value: Tensor | float, scores: Tensor) -> Tensor:
    """Makes a baseline a tensor that fits scores.

    Args:
        name: What to call it.
        value: A number, a scalar tensor, or one value per score.
        scores: Shape ``(n, ...)``.

    Returns:
        A scalar or shape ``(n,)``, of the scores' type and on their device.

    Raises:
        ShapeError: If it is neither a scalar nor of shape ``(n,)``.
    """
    baseline = torch.as_tensor(value, dtype=scores.dtype, device=scores.device)
    if baseline.shape not in (torch.Size(), scores.shape[:1]):
        raise ShapeError(
            f"{name}: expected a scalar or shape {tuple(scores.shape[:1])}, got "
            f"{tuple(baseline.shape)}; give the baseline's logarithm at each score's code"
        )
    return baseline


def off_diagonal(scores: Tensor) -> Tensor:
    """Takes the independent pairs out of a matrix of scores.

    Args:
        scores: Of code i and datum j, shape ``(n, n)``; the diagonal holds the joint pairs.

    Returns:
        Shape ``(n * (n - 1),)``, row by row.

    Raises:
        ShapeError: If the scores are not a square matrix of at least two rows.

    Example:
        >>> off_diagonal(torch.arange(9).reshape(3, 3))
        tensor([1, 2, 3, 5, 6, 7])
    """
    n = check_square(scores, at_least=2)
    return scores.flatten()[1:].reshape(n - 1, n + 1)[:, :-1].reshape(-1)
