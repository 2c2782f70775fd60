"""Estimated time of an evaluation, from a small part of the data."""

from __future__ import annotations

import math
import warnings
from typing import Any

from pyro_mivae.arguments import checked, number
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.diagnostics.mi_bounds import FLOW_ITEMS, MOST_NUMBERS
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.evidence.annealing_path import PILOT
from pyro_mivae.figures import parsed
from pyro_mivae.metrics.checkers import SEED
from pyro_mivae.metrics.classifier import training_steps
from pyro_mivae.metrics.evaluate import Budget, measure
from pyro_mivae.metrics.splits import Train, check_known
from pyro_mivae.variants import VARIANT, Variant

PIECE = 800
FEW = {"iwae_samples": 100, "iwae_items": 100, "generative_items": 50, "generative_samples": 100}
FEW_ANNEALED = {"ais_items": 50, "ais_temperatures": 10}
FEW_REFINED = {"refine_items": 50}
FEW_SAMPLES = 100


@checked(vae=VARIANT, seed=SEED)
def forecast(
    vae: Variant,
    x: Any,
    labels: Any = None,
    train: Train | None = None,
    *,
    factors: Any = None,
    given: Any = None,
    seed: int = 0,
    **options: Any,
) -> float:
    """Estimates the seconds that `evaluate` takes with the same arguments.

    It evaluates 400 and 800 of the data with few draws, and extrapolates the time of each part:
    with the square of the number of data if every code is scored under every datum, otherwise with
    that number or the number of draws. It may be wrong by a factor of two.
    """
    known, taught = check_known(vae, x, labels, factors, train, given)
    items, piece = len(known.x), min(PIECE, len(known.x))
    budget = Budget.of(items, **options)
    asked = budget.information
    few: dict[str, Any] = {**FEW, "subset": piece, "num_samples": 1}
    few |= FEW_ANNEALED if asked.ais_items else {}
    few |= FEW_REFINED if asked.refine_items else {}
    sizes, clocks = (math.ceil(piece / 2), piece), []
    for size in sizes:
        some = known.take(size, seed), None if taught is None else taught.take(size, seed)
        pilot = Budget.of(size, samples_per_category=FEW_SAMPLES, **few)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyroMivaeWarning)  # few draws suffice for a forecast
            found = measure(vae, *some, pilot, seed)
        clocks.append(found.seconds)
    first, last = clocks
    ratios = _draws(asked, items, piece)
    learned, pilots = len((taught or known).x), piece
    if taught is None:
        learned, pilots = math.ceil(learned / 2), math.ceil(pilots / 2)
    ratios["judge"] = training_steps(learned) / training_steps(pilots)
    ratios["probes"] = max(ratios["judge"], min(budget.probes or learned, learned) / pilots)
    ratios["categories"] = budget.samples / FEW_SAMPLES
    dims = sum(k.index is not None for k, _ in parsed(found, "kl"))
    protocol = found.protocol["information"]
    width = max(1, dims * protocol["configurations"])
    most = FLOW_ITEMS if "flow_items" in protocol else items
    squares = {
        "information, information_in_code": min(items, most),
        "information, dimensions": min(asked.subset, items, math.isqrt(MOST_NUMBERS // width)),
    }
    del last["information"]  # its parts are counted separately
    return sum(
        _with_the_square((first[part], seconds), sizes, squares[part])
        if part in squares
        else seconds * ratios.get(part, items / piece)
        for part, seconds in last.items()
    )


def _draws(asked: InformationOptions, items: int, piece: int) -> dict[str, float]:
    """Ratio of requested draws to those on the part of the data, by part of the evaluation."""

    def drawn(options: InformationOptions, of: int) -> dict[str, int]:
        own = min(options.ais_items, options.generative_items)
        there, and_back = (way * options.ais_temperatures + PILOT for way in (1, 2))
        return {
            "draw_codes": (options.num_samples or 1) * of,
            "costs": min(options.iwae_items, of) * options.iwae_samples,
            "generative_information": options.generative_items * options.generative_samples,
            "annealed_evidence": min(options.ais_items, of) * there,
            "annealed_generation": own * and_back,
            "amortization": min(options.refine_items, of),
        }

    few = drawn(InformationOptions(**FEW, **FEW_ANNEALED, **FEW_REFINED), piece)
    return {f"information, {part}": n / few[part] for part, n in drawn(asked, items).items()}


@checked(seconds=number(least=0))
def duration(seconds: float) -> str:
    """Writes a rough duration in words."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {10 * math.ceil(seconds / 10)} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


def _with_the_square(seconds: tuple[float, float], sizes: tuple[int, int], to: int) -> float:
    """Extrapolates a time that grows with a number and its square."""
    (a, b), (n, m) = seconds, sizes
    if n == m:
        return b * to / m
    square = max(0.0, (b / m - a / n) / (m - n))
    return max(0.0, b / m - square * m) * to + square * to**2
