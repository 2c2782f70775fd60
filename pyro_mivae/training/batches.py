"""Sizes of batches."""

from __future__ import annotations

from pyro_mivae.terms import ENOUGH_DATA


def batch_sizes(count: int, batch_size: int, needs_batch: bool) -> list[int]:
    """Divides data into batches.

    Example:
        >>> batch_sizes(270, 128, False), batch_sizes(270, 128, True)
        ([128, 128, 14], [128, 142])
    """
    whole, rest = divmod(count, batch_size)
    sizes = [batch_size] * whole + [rest] * bool(rest)
    if needs_batch and whole and 0 < rest < ENOUGH_DATA:
        last = sizes.pop()
        sizes[-1] += last
    return sizes
