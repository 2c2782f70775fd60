"""Why something cannot be done, in a line."""

from __future__ import annotations

import warnings

from pyro_mivae.errors import PyroMivaeWarning


def first_cause(error: BaseException) -> str:
    """Gives the first line of the error that began it.

    Args:
        error: What came of it.
    """
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".strip(": ")


def give_up(what: str, instead: str, reason: str) -> None:
    """Says that steps are taken by another means, and why.

    Args:
        what: What the step cannot be.
        instead: How it runs.
        reason: The reason.
    """
    warnings.warn(
        f"the training step cannot be {what}: {reason}. It runs {instead}, slower; the results "
        "are the same",
        PyroMivaeWarning,
        stacklevel=3,
    )
