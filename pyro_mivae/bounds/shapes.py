"""Checks of the shapes of scores."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from pyro_mivae.arguments import Checker, checked, choice, either, floats, number, numbers

REDUCTION = choice("mean", "none")
vector = partial(
    floats,
    finite=False,
    hint="sum over the dimensions of the code, and take pairs out of a matrix with diagonal() "
    "and off_diagonal()",
)
SQUARE = "row i must hold the scores of code i under every datum"


def square(*, least: int) -> Checker:
    """Scores of n codes under n data, shape ``(n, n)``."""
    return floats("n", "n", finite=False, least=least, hint=SQUARE)


def scalar_or(size: str) -> Checker:
    """A number, or a tensor with a single value or one per score."""
    hint = "give a scalar, or a value for each score's code"
    return either(number(), floats(size, finite=False, hint=hint), floats("()", finite=False))


def like(value: Tensor | float, scores: Tensor) -> Tensor:
    """Returns a number or a tensor in the scores' dtype, on their device."""
    if isinstance(value, Tensor):
        return value.to(scores)
    return scores.new_full((), value)  # as_tensor would copy it to the device


@checked(scores=numbers("n", "n", finite=False, least=2, hint=SQUARE))
def off_diagonal(scores: Tensor) -> Tensor:
    """Extracts the independent pairs of a matrix of scores.

    Args:
        scores: Scores of code i and datum j, shape ``(n, n)`` with n of 2 or more; joint pairs on
            the diagonal.

    Returns:
        Shape ``(n * (n - 1),)``, row by row.

    Example:
        >>> off_diagonal(torch.arange(9).reshape(3, 3))
        tensor([1, 2, 3, 5, 6, 7])
    """
    n = len(scores)
    return scores.flatten()[1:].reshape(n - 1, n + 1)[:, :-1].reshape(-1)
