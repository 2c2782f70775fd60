"""How long an evaluation will take, from that of a small piece of the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from pyro_mivae.arguments import checked, number
from pyro_mivae.diagnostics.per_dimension import MOST_NUMBERS
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.metrics.classifier import training_steps
from pyro_mivae.metrics.effort import DEFAULTS, GIVEN, PROBE_ITEMS, SAMPLES, Effort
from pyro_mivae.metrics.evaluate import measure
from pyro_mivae.metrics.lesson import Train, check_known
from pyro_mivae.variants import Variant

PIECE = 800
FEW = {"iwae_samples": 100, "iwae_items": 100, "generative_items": 50, "generative_samples": 100}
FEW_ANNEALED = {"ais_items": 50, "ais_temperatures": 10}
FEW_SAMPLES = 100
PILOT = 140  # transitions before those that count, see `annealed_log_likelihood`


@checked(**GIVEN)
def forecast(
    vae: Variant,
    x: Any,
    labels: Any = None,
    train: Train | None = None,
    *,
    factors: Any = None,
    full: bool = False,
    probe_items: int = PROBE_ITEMS,
    samples_per_category: int = SAMPLES,
    seed: int = 0,
    **options: Any,
) -> float:
    """Says how long `evaluate` will take with the same arguments.

    It evaluates 400 and 800 of the data with few draws, and scales the time of each part up to
    what is asked for: with the square of the number of data where every code meets every datum,
    elsewhere with that number, or the number of draws. It may be off by a factor of two.

    Args:
        vae: As for `evaluate`, and so are all others.
        x: Data.
        labels: Their labels.
        train: Data to learn on.
        factors: Factors of the data.
        full: Whether to take all data.
        probe_items: What the probes learn on at most.
        samples_per_category: Images of each category.
        seed: Of every draw.
        **options: Options of `information`.

    Returns:
        Seconds on the clock.

    Raises:
        DataError: As `evaluate`.
        OptionError: As `evaluate`.

    Example:
        >>> vae, x = mi.VAE((1, 8, 8), latent_dim=2), torch.rand(60, 1, 8, 8)
        >>> forecast(vae, x, full=True) > 0
        True
    """
    known = check_known(vae, x, labels, factors, train)
    effort = Effort.of(len(known.x), full, probe_items, samples_per_category, options)
    asked = {**DEFAULTS, **effort.information}
    items, taught_on = len(known.x), len(known.x if known.train is None else known.train[0])
    piece = min(PIECE, items)
    sizes = (math.ceil(piece / 2), piece)
    few: dict[str, Any] = {**FEW, "subset": piece, "num_samples": 1}
    few |= FEW_ANNEALED if asked["ais_items"] else {}
    clocks = []
    for size in sizes:
        some = known.take(size, seed)
        pilot = Effort.of(len(some.x), False, PROBE_ITEMS, FEW_SAMPLES, few)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyroMivaeWarning)  # of what so few draws give
            found = measure(vae, some, pilot, seed)
        clocks.append(found.seconds)
    first, last = clocks
    ratios = _draws(asked, items, piece)
    learned, taught = (n if train else math.ceil(n / 2) for n in (taught_on, piece))
    ratios["judge"] = training_steps(learned) / training_steps(taught)
    ratios["probes"] = max(ratios["judge"], min(effort.probes or learned, learned) / taught)
    ratios["categories"] = effort.samples / FEW_SAMPLES
    dims = sum(key.startswith("kl_") and key.endswith("]") for key in found)
    width = max(1, dims * found.protocol["information"]["configurations"])
    squares = {
        "information, information_in_code": items,
        "information, dimensions": min(asked["subset"], items, math.isqrt(MOST_NUMBERS // width)),
    }
    del last["information"]  # its parts are told apart
    total = 0.0
    for part, seconds in last.items():
        if part in squares:
            total += _with_the_square((first[part], seconds), sizes, squares[part])
        else:
            total += seconds * ratios.get(part, items / piece)
    return total


def _draws(asked: Mapping[str, Any], items: int, piece: int) -> dict[str, float]:
    """How many times the draws of a piece are asked for, by part."""

    def drawn(options: Mapping[str, Any], of: int) -> tuple[int, ...]:
        """Importance samples, samples of generated data, and transitions of both when annealed."""
        iwae, ais = (min(int(options[f"{name}_items"]), of) for name in ("iwae", "ais"))
        generated = options["generative_items"] * options["generative_samples"]
        own = min(int(options["ais_items"]), int(options["generative_items"]))
        there, and_back = (way * options["ais_temperatures"] + PILOT for way in (1, 2))
        return iwae * options["iwae_samples"], generated, ais * there, own * and_back

    parts = ("costs", "generative_information", "annealed_evidence", "annealed_generation")
    pairs = zip(parts, drawn(asked, items), drawn({**FEW, **FEW_ANNEALED}, piece))
    found = {f"information, {part}": many / few for part, many, few in pairs}
    found["information, draw_codes"] = (asked["num_samples"] or 1) * items / piece
    return found


@checked(seconds=number(least=0))
def duration(seconds: float) -> str:
    """Says how long something takes, roughly, in words.

    Args:
        seconds: How long.

    Example:
        >>> [duration(seconds) for seconds in (3.2, 48, 250, 8000)]
        ['a few seconds', 'about 50 seconds', 'about 4 minutes', 'about 2.2 hours']
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {10 * math.ceil(seconds / 10)} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


def _with_the_square(seconds: tuple[float, float], sizes: tuple[int, int], to: int) -> float:
    """Extends a time that grows with a number and its square."""
    (a, b), (n, m) = seconds, sizes
    if n == m:
        return b * to / m
    square = max(0.0, (b / m - a / n) / (m - n))
    return max(0.0, b / m - square * m) * to + square * to**2
