"""Why something cannot be done, in a line."""

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


def give_up(what: str, instead: str, reason: str, name: str = "training step") -> None:
    """Warns that steps are taken by another means, and why."""
    warnings.warn(
        f"the {name} cannot be {what}: {reason}. It runs {instead}, slower; the results "
        "are the same",
        PyroMivaeWarning,
        stacklevel=3,
    )


def tell_no_capture(reason: object) -> None:
    """Warns that steps are taken without being captured."""
    warnings.warn(
        f"the training step cannot be captured: {reason}. It runs without, slower; the results "
        "are the same",
        PyroMivaeWarning,
        stacklevel=3,
    )


def tell_difference(
    difference: str,
    number: int,
    first: int | None,
    instead: str,
    name: str = "training step",
    unit: str = "step",
) -> None:
    """Warns that a graph and its program have parted, and which steps that may have changed."""
    affected = f"No {unit} was taken by the graph since they agreed"
    if first is not None:
        one = first + 1 == number
        steps = f"{unit} {number}" if one else f"{unit}s {first + 1} to {number}"
        affected = f"The program changed in a way that the graph did not see: {steps} may be off"
    warnings.warn(
        f"the graph of the {name} differs from its program at {unit} {number + 1}: "
        f"{difference}. {affected}. From here on it runs as {instead}, slower; a number "
        "that changes is better a tensor, an argument or a buffer",
        PyroMivaeWarning,
        stacklevel=4,
    )
