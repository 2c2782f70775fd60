"""Sweeps over a grid of weights: the rate and the information of each model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, function, named, number, several
from pyro_mivae.diagnostics import information
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.options import checks_of
from pyro_mivae.runs.build import build_variant, check_config
from pyro_mivae.runs.config import FLAGS, RunConfig
from pyro_mivae.runs.group import RunGroup, settled
from pyro_mivae.runs.run_folder import GRID, MODELS, PICTURE, ROWS, SWEEP, TABLE, clear_models
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
    check_config(replace(config, model={**config.model, **dict.fromkeys(grid, 0.0)}))
    with RunGroup(config, folder, GRID, **how) as group:
        known: SweepTable | None = None
        if group.resume and (folder / ROWS).is_file():
            known = _known(folder)
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
        plain = check_grid(grid)
        first = config.training.get("seed") or 0
        seeds = tuple(range(first, first + (1 if count is None else count)))
        points = points_of(plain, seeds)
        done = [] if known is None else [row for row in known.rows if math.isfinite(row["rate"])]
        if known is not None and len(done) == len(points) and (folder / PICTURE).is_file():
            clear_models(folder)
            group.say(f"{folder} is finished: nothing to do")
            return known
        started = known is not None
        config = group.approve(config, folder, started=started)
        dataset = config.load_dataset()
        config = settled(config, dataset, folder, started=started)

        def make(seed: int, **options: float) -> Variant:
            own = replace(
                config,
                model={**config.model, **options},
                training={**config.training, "seed": seed},
            )
            return build_variant(own, dataset.data_shape)

        def begin() -> None:
            new = {} if started else {folder / SWEEP: config}
            group.begin(config, new, dataset, f", {len(points)} models")
            SweepTable(done, plain, seeds=seeds).to_json(folder / ROWS)

        found = sweep_points(
            make,
            dataset.x_train,
            plain,
            seeds,
            x_test=dataset.x_test,
            known=done,
            on_row=lambda table: _write_rows(table, folder),
            runs=[folder / MODELS / _name(point) for point in points],
            resume=True,
            on_start=begin,
            **{name: value for name, value in config.training.items() if name != "seed"},
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
    for name, values in check_grid(grid).items() if grid else ():
        before = known.grid.get(name)
        if values != before:
            raise OptionError(
                f"{FLAGS[name]} {_listed(values)} given, but the sweep in {folder} was started "
                f"with {'none' if before is None else _listed(before)}; leave it out to resume, "
                "or start anew with --overwrite"
            )
    if count is not None and count < len(known.seeds):
        raise OptionError(
            f"--seeds {count} given, but the sweep in {folder} is of {len(known.seeds)}; leave it "
            "out to resume, or start anew with --overwrite"
        )


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _name(point: Point) -> str:
    return ",".join(f"{name}={value!r}" for name, value in point.items())


def _write_rows(table: SweepTable, folder: Path) -> None:
    table.to_csv(folder / TABLE)
    table.to_json(folder / ROWS)
