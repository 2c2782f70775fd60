"""Warnings about training steps that run more slowly than requested."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pyro_mivae.errors import PyroMivaeWarning


def first_cause(error: BaseException) -> str:
    """Returns the first line of the original error."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".strip(": ")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences torch's notices, which would be errors if warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def give_up(what: str, instead: str, reason: object, name: str = "training step") -> None:
    """Warns that steps run in another mode, with the reason."""
    warnings.warn(
        f"the {name} cannot be {what}: {reason}. It runs {instead}, slower; the results "
        "are the same",
        PyroMivaeWarning,
        stacklevel=3,
    )


def tell_difference(
    difference: str,
    number: int,
    first: int | None,
    instead: str,
    name: tuple[str, str] = ("training step", "step"),
) -> None:
    """Warns that a graph and its program differ, and names the steps that may be wrong."""
    what, unit = name
    affected = f"The graph has taken no {unit} since the last agreement"
    if first is not None:
        one = first + 1 == number
        steps = f"{unit} {number}" if one else f"{unit}s {first + 1} to {number}"
        affected = (
            f"The program changed in a way that the graph did not notice: {steps} may be wrong"
        )
    warnings.warn(
        f"the graph of the {what} differs from its program at {unit} {number + 1}: {difference}. "
        f"{affected}. From here on it runs as {instead}, slower; turn a number that changes "
        "into a tensor, an argument or a buffer",
        PyroMivaeWarning,
        stacklevel=4,
    )
