"""Values of command-line flags, and messages that name options by their flags."""

from __future__ import annotations

import re

import click

from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.options import flags_of
from pyro_mivae.runs.config import FLAGS
from pyro_mivae.schedules import TARGET


def read_size(value: str) -> tuple[int, int]:
    """Reads height and width from ``N`` or ``HxW``."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
    if not match or "0" in (match[1], match[2]):
        raise click.BadParameter(f"{value!r} given; allowed is N or HxW, e.g. 28 or 28x20")
    return int(match[1]), int(match[2] or match[1])


def read_numbers(value: str) -> tuple[float, ...]:
    """Reads numbers separated by commas."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        none = "; a sweep takes no targets, train one model for each" * (TARGET in value)
        told = f"{value!r} given; allowed are numbers, e.g. 0.5,1,2{none}"
        raise click.BadParameter(told) from None


def read_weight(value: str) -> float | str:
    """Reads a number, or leaves ``target:N`` as it is."""
    try:
        return value if value.startswith(TARGET) else float(value)
    except ValueError:
        told = f"{value!r} given; allowed is a number, or target:N for a target of N nats"
        raise click.BadParameter(told) from None


OTHERS = "device run out category what resume overwrite trust data jobs labels".split()
WRITTEN = {
    **FLAGS,
    **flags_of(InformationOptions),
    **{name: f"--{name}" for name in OTHERS},
    **{"image_size": "--image-size", "root": "--data-root", "num_draws": "--draws"},
}


def in_flags(message: str) -> str:
    """Rewrites Python keywords in a message as flags.

    Example:
        >>> in_flags("lr=-1.0; allowed are finite numbers above 0, or give resume=True")
        '--lr -1.0; allowed are finite numbers above 0, or give --resume'
    """
    names = "|".join(sorted(WRITTEN, key=len, reverse=True))
    told = re.sub(rf"\b({names})=True\b", lambda found: WRITTEN[found[1]], message)
    return re.sub(
        rf"(?<![\w.])({names})=(?=(\S?))", lambda f: WRITTEN[f[1]] + " " * bool(f[2]), told
    )
