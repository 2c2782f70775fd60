"""Sweeps over a grid of weights: the rate and the information of each model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import (
    Checker,
    Given,
    checked,
    checker,
    function,
    named,
    number,
    several,
)
from pyro_mivae.diagnostics import information
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.figures import LOWER, UPPER, key
from pyro_mivae.options import checks_of
from pyro_mivae.runs.build import build_variant
from pyro_mivae.runs.config import FLAGS, RunConfig, started_with
from pyro_mivae.runs.group import RunGroup, seeds_from, settled
from pyro_mivae.runs.options import check_model_options
from pyro_mivae.runs.run_folder import GRID, MODELS, PICTURE, ROWS, SWEEP, TABLE, clear_models
from pyro_mivae.runs.sweep_table import SweepTable
from pyro_mivae.training import TrainingOptions, fit_many, suitable_threads
from pyro_mivae.variants import VARIANT, Variant

FIGURES = ("distortion", "rate", "elbo", "mi_lower", "mi_upper", "active_units")


@checker
def _each_once(given: Given, each: Checker) -> tuple[Any, ...]:
    """One value or more, each of them once."""
    values = several(each)(given.name, given.value)
    if len(set(values)) < len(values):
        raise OptionError(f"{given.name}={values}; give each value once")
    return tuple(values)


_GRID = named(_each_once(number()), least=1)
_SEEDS = _each_once(checks_of(TrainingOptions)["seed"])


@checked(make=function("make(beta=1.0)"), grid=_GRID, seeds=_SEEDS)
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
    table = SweepTable([], dict(grid), seeds=tuple(seeds))
    return fill_table(table, partial(_make, make), x, x_test=x_test, **training)


def fill_table(
    table: SweepTable,
    make: Callable[..., Variant],
    x: Tensor,
    *,
    x_test: Tensor | None = None,
    models: Path | None = None,
    on_row: Callable[[SweepTable], object] = lambda table: None,
    **training: Any,
) -> SweepTable:
    """Trains and measures the models that a table has no figures of; see `sweep`."""
    points, x_test = table.points, x if x_test is None else x_test
    rows = {
        n: row
        for n, point in enumerate(points)
        for row in table.rows
        if point.items() <= row.items()
    }
    left = {n: make(**point) for n, point in enumerate(points) if n not in rows}
    failures: dict[int, str] = {}
    if left:
        first = next(iter(left.values()))
        if not first.objective().measures_fit:
            raise OptionError(f"{type(first).__name__} has no ELBO, so no rate and no distortion")
        first.check_data(x_test)
        seeds = [points[n]["seed"] for n in left]
        runs = None if models is None else [models / _name(points[n]) for n in left]
        try:
            fit_many([*left.values()], x, seeds=seeds, runs=runs, **training)
        except ManyTrainingError as error:
            failures = {[*left][position]: told for position, told in error.failures.items()}
            if len(failures) == len(points):
                raise
    for n, vae in left.items():
        broken = dict.fromkeys(FIGURES, math.nan)
        rows[n] = {**points[n], **(broken if n in failures else _measure(vae, x_test))}
        told = {place: reason for place, reason in failures.items() if place in rows}
        table = replace(table, rows=[dict(rows[k]) for k in sorted(rows)], failures=told)
        on_row(table)
    return replace(table, rows=[dict(rows[k]) for k in sorted(rows)], failures=failures)


def _make(make: Callable[..., Variant], seed: int, **options: float) -> Variant:
    """The variant of a point of the grid, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Variant = VARIANT("make(...)", make(**options))
        return made


def _measure(vae: Variant, x: Tensor) -> dict[str, float]:
    with pyro.get_param_store().scope(), suitable_threads(vae, 128):
        x = vae.check_data(x).to(vae.device)
        figures = information(vae.model, vae.guide, x, iwae_samples=2).to_dict()
    sites = [
        key(name, site, side)
        for site in vae.sites
        for name, side in (("kl", ""), ("mi", LOWER), ("mi", UPPER))
    ]
    return {name: figures.get(name, math.nan) for name in (*FIGURES, *sites)}


def _name(point: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value!r}" for name, value in point.items())


def sweep_run(
    config: RunConfig,
    folder: str | Path,
    grid: Mapping[str, Sequence[float]],
    count: int | None = None,
    **how: Any,
) -> SweepTable:
    """Sweeps a configuration's weights, and leaves table and picture in a folder.

    Figures are of the test images. Each row is written as it is measured. Until the sweep is
    finished the folder's ``models`` holds a checkpoint of each model, so that it can be resumed.

    Args:
        config: What to train.
        folder: The sweep's folder.
        grid: The values of each option.
        count: The number of seeds, from the configuration's own on; 1 if omitted.
        **how: ``resume``, ``overwrite``, ``device`` and the other options of `RunGroup`.
    """
    folder = Path(folder)
    check_model_options(config.variant, {**config.model, **grid})
    with RunGroup(config, folder, GRID, **how) as group:
        known = _known(folder) if group.resume and (folder / ROWS).is_file() else None
        if known is not None:
            config = config.resumed_from(RunConfig.read(folder / SWEEP), folder)
            _check_resumed(grid, count, known, folder)
            grid, count = known.grid, count or len(known.seeds)
        elif group.resume:
            group.say(f"{folder} holds no sweep to go on with: starting anew")
        if not grid:
            raise OptionError(
                "nothing to sweep; give --beta or --mi-weight, with one value or more, such as "
                "--beta 0.5,1,4"
            )
        seeds = tuple(seeds_from(config, 1 if count is None else count))
        done = [] if known is None else [row for row in known.rows if math.isfinite(row["rate"])]
        table = SweepTable(done, _GRID("grid", grid), seeds=seeds)
        if known and len(done) == len(table.points) and (folder / PICTURE).is_file():
            clear_models(folder)
            group.say(f"{folder} is finished: nothing to do")
            return known
        started = known is not None
        config = group.approve(config, folder, started=started)
        dataset = config.load_dataset()
        config = settled(config, dataset, folder, started=started)

        def make(seed: int, **options: float) -> Variant:
            model, training = {**config.model, **options}, {**config.training, "seed": seed}
            return build_variant(
                replace(config, model=model, training=training), dataset.data_shape
            )

        def begin() -> None:
            new = {} if started else {folder / SWEEP: config}
            group.begin(config, new, dataset, f", {len(table.points)} models")
            table.to_json(folder / ROWS)

        found = fill_table(
            table,
            make,
            dataset.x_train,
            x_test=dataset.x_test,
            models=folder / MODELS,
            on_row=lambda table: _write_rows(table, folder),
            on_start=begin,
            **{name: value for name, value in config.training.items() if name != "seed"},
            resume=True,
            device=group.device,
            progress=group.progress,
        )
        _write_rows(found, folder)
        found.to_png(folder / PICTURE)
        clear_models(folder)
        return found


def _known(folder: Path) -> SweepTable:
    """Reads the table of a sweep that is to go on."""
    if not (folder / SWEEP).is_file():
        raise RunError(
            f"{folder} holds a sweep without its {SWEEP}, so that it cannot go on; throw it away "
            "with --overwrite, or choose another --run DIR"
        )
    return SweepTable.from_json(folder / ROWS)


def _check_resumed(
    grid: Mapping[str, Sequence[float]], count: int | None, known: SweepTable, folder: Path
) -> None:
    """Checks that nothing that is given contradicts the sweep that goes on."""
    for name, values in grid.items():
        if _GRID("grid", grid)[name] != known.grid.get(name):
            raise started_with(
                FLAGS[name], _listed(values), _listed(known.grid.get(name, ())), folder
            )
    if count is not None and count < len(known.seeds):
        raise started_with("--seeds", count, len(known.seeds), folder)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"


def _write_rows(table: SweepTable, folder: Path) -> None:
    table.to_csv(folder / TABLE)
    table.to_json(folder / ROWS)
