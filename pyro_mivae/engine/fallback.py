"""Warnings that a training step runs more slowly than asked, and why."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pyro_mivae.errors import PyroMivaeWarning


def first_cause(error: BaseException) -> str:
    """Returns the first line of the error that began it."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".strip(": ")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences notices of torch's, which are errors where warnings are made errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def give_up(what: str, instead: str, reason: object, name: str = "training step") -> None:
    """Warns that steps are taken in another mode, and why."""
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
    """Warns that a graph and its program have parted, and which steps that may have changed."""
    what, unit = name
    affected = f"No {unit} was taken by the graph since they agreed"
    if first is not None:
        one = first + 1 == number
        steps = f"{unit} {number}" if one else f"{unit}s {first + 1} to {number}"
        affected = f"The program changed in a way that the graph did not see: {steps} may be off"
    warnings.warn(
        f"the graph of the {what} differs from its program at {unit} {number + 1}: "
        f"{difference}. {affected}. From here on it runs as {instead}, slower; a number "
        "that changes is better a tensor, an argument or a buffer",
        PyroMivaeWarning,
        stacklevel=4,
    )
