"""`sweep`: trains a grid of weights, and measures what becomes of rate and information."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, function, named, number, several
from pyro_mivae.diagnostics import information
from pyro_mivae.errors import ManyTrainingError, OptionError
from pyro_mivae.options import checks_of
from pyro_mivae.runs.sweep_table import SweepTable
from pyro_mivae.training import TrainingOptions, fit_many, suitable_threads
from pyro_mivae.variants import VARIANT, Variant

FIGURES = ("distortion", "rate", "elbo", "mi_lower", "mi_upper", "active_units")
Point = dict[str, Any]


@checked(make=function("make(beta=1.0)"), seeds=several(checks_of(TrainingOptions)["seed"]))
def sweep(
    make: Callable[..., Variant],
    x: Tensor,
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int] = (0,),
    x_test: Tensor | None = None,
    **training: Any,
) -> SweepTable:
    """Trains a variant for every combination of options, and measures each.

    Args:
        make: Makes a variant from options of the grid, such as
            ``partial(mi.BetaVAE, data_shape, latent_dim=10)``.
        x: Training images, shape ``(N, *data_shape)``.
        grid: The values of each option.
        seeds: Each combination is trained from each seed, weights included.
        x_test: Images to measure on; ``x`` if omitted.
        **training: Options of `fit_many`, among which ``epochs`` is needed.

    Returns:
        The figures of each model.

    Raises:
        OptionError: If the grid is empty, or the variant has no ELBO to speak of.
        ManyTrainingError: If every model broke down.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO. https://arxiv.org/abs/1711.00464

    Example:
        >>> from functools import partial
        >>> import pyro_mivae as mi
        >>> digits = mi.load_dataset("digits")
        >>> make = partial(mi.BetaVAE, digits.data_shape, latent_dim=2)
        >>> x = digits.x_train[:256]
        >>> found = mi.sweep(make, x, grid={"beta": (0.5, 4.0)}, epochs=3, lr=3e-3)
        >>> found.rows[0]["rate"] > found.rows[1]["rate"]
        True
    """
    return sweep_points(
        partial(_make, make), x, check_grid(grid), seeds, x_test=x_test, **training
    )


def check_grid(grid: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Checks the values of each option."""
    plain: dict[str, tuple[float, ...]] = {}
    for name, given in named(several(number()), least=1)("grid", grid).items():
        values = _several(name, given)
        plain[name] = tuple(int(v) if isinstance(v, Integral) else float(v) for v in values)
    return plain


def points_of(grid: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Point]:
    """Gives the options of each model, its seed among them."""
    own = _several("seeds", seeds)
    return [
        {**dict(zip(grid, values, strict=True)), "seed": seed}
        for values in itertools.product(*grid.values())
        for seed in own
    ]


def sweep_points(
    make: Callable[..., Variant],
    x: Tensor,
    grid: dict[str, tuple[float, ...]],
    seeds: Sequence[int],
    *,
    x_test: Tensor | None = None,
    known: Sequence[Mapping[str, float]] = (),
    on_row: Callable[[SweepTable], object] = lambda table: None,
    runs: Sequence[Path] | None = None,
    **training: Any,
) -> SweepTable:
    """Trains and measures the models of some points; see `sweep`."""
    points = points_of(grid, seeds)
    table = partial(SweepTable, grid=grid, seeds=tuple(seeds))
    rows = {n: row for n, point in enumerate(points) for row in known if _is_of(row, point)}
    left = [number for number in range(len(points)) if number not in rows]
    vaes = [make(**points[number]) for number in left]
    for vae in vaes[:1]:
        if not vae.objective().measures_fit:
            raise OptionError(
                f"{type(vae).__name__} has no ELBO, so that there is no rate and no distortion"
            )
        vae.check_data(x if x_test is None else x_test)
    failures: dict[int, str] = {}
    if vaes:
        own = [points[number]["seed"] for number in left]
        folders = None if runs is None else [runs[number] for number in left]
        try:
            fit_many(vaes, x, seeds=own, runs=folders, **training)
        except ManyTrainingError as error:
            failures = {left[position]: told for position, told in error.failures.items()}
            if len(failures) == len(points):
                raise
    for place, vae in zip(left, vaes, strict=True):
        broken = dict.fromkeys(FIGURES, math.nan)
        figures = broken if place in failures else _measure(vae, x if x_test is None else x_test)
        rows[place] = {**points[place], **figures}
        told = {n: reason for n, reason in failures.items() if n in rows}
        on_row(table([dict(rows[n]) for n in sorted(rows)], failures=told))
    return table([dict(rows[n]) for n in sorted(rows)], failures=failures)


def _several(name: str, given: Sequence[Any]) -> list[Any]:
    """Checks that the values of an option are one or more, and each there once."""
    values = list(given)
    if not values:
        raise OptionError(f"{name}={given!r}; give one value or more")
    if len(set(values)) < len(values):
        raise OptionError(f"{name}={given!r}; give each value once")
    return values


def _is_of(row: Mapping[str, float], point: Point) -> bool:
    return all(row.get(name) == value for name, value in point.items())


def _make(make: Callable[..., Variant], seed: int, **options: float) -> Variant:
    """The variant of a point of the grid, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Variant = VARIANT("make(...)", make(**options))
        return made


def _measure(vae: Variant, x: Tensor) -> dict[str, float]:
    with pyro.get_param_store().scope(), suitable_threads(vae, 128):
        x = vae.check_data(x).to(vae.device)
        report = information(vae.model, vae.guide, x, iwae_samples=2)
    figures = report.to_dict()
    sites = [
        f"{kind}_{site}{side}"
        for site in vae.sites
        for kind, side in (("kl", ""), ("mi", "_lower"), ("mi", "_upper"))
    ]
    return {name: figures.get(name, math.nan) for name in (*FIGURES, *sites)}
