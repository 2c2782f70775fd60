"""Sweeps over a grid of weights, with the rate and the information of each model."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import Checker, Given, checked, checker, function, named, number, several
from pyro_mivae.data.binarize import settled_pixels, training_pixels
from pyro_mivae.diagnostics import information
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.figures import LOWER, OF_SWEEPS, UPPER, key
from pyro_mivae.inputs import as_tensor
from pyro_mivae.options import checks_of
from pyro_mivae.ranks import Ranks
from pyro_mivae.runs.build import build_variant
from pyro_mivae.runs.config import FLAGS, RunConfig, check_model_options, started_with
from pyro_mivae.runs.group import RunGroup, seeds_from, settled
from pyro_mivae.runs.run_folder import (
    GRID,
    MODELS,
    PICTURE,
    ROWS,
    SWEEP,
    TABLE,
    clear_models,
    write_json,
)
from pyro_mivae.tables import Shown, align
from pyro_mivae.training import History, TrainingOptions, fit_many, suitable_threads, write_file
from pyro_mivae.variants import VARIANT, Variant

MEASURED = (*OF_SWEEPS, "active_units")


@dataclass(frozen=True, repr=False)
class SweepTable(Shown):
    """Figures of the models of a sweep.

    Attributes:
        rows: One per model: its options and ``seed``, and its figures in nats per datum:
            ``distortion``, ``rate``, ``elbo``, ``mi_lower``, ``mi_upper``, and for every site
            ``kl_<site>``, ``mi_<site>_lower`` and ``mi_<site>_upper``; ``active_units`` too.
            NaN for a model that broke down.
        grid: The values of each option.
        failures: Reasons of failed trainings, by row number.
        seeds: The seeds of each combination.
        binarize: Protocol of the pixels, see `binarize`.

    Example:
        >>> SweepTable([{"beta": 1.0, "rate": 3.0}], {"beta": (1.0,)}).rows[0]["rate"]
        3.0
    """

    rows: list[dict[str, float]]
    grid: dict[str, tuple[float, ...]]
    failures: dict[int, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    binarize: str = "none"

    def to_csv(self, path: str | Path) -> None:
        """Writes the rows as a table."""
        History(self.rows).to_csv(path)  # a history has the same columns: all names, in order

    def to_json(self, path: str | Path) -> None:
        """Writes grid, seeds, protocol, rows and failures, with null for NaN."""
        content = {"grid": self.grid, "seeds": self.seeds, "binarize": self.binarize}
        content |= {"rows": self.rows}
        write_json(Path(path), {**content, "failed": self.failures})

    @classmethod
    def from_json(cls, path: str | Path) -> SweepTable:
        """Reads what `to_json` wrote.

        Raises:
            RunError: If it cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = [
                {name: math.nan if value is None else value for name, value in row.items()}
                for row in content["rows"]
            ]
            grid = {name: tuple(values) for name, values in content["grid"].items()}
            seeds = tuple(content["seeds"])
            binarize = str(content.get("binarize", "none"))
            failures = {int(number): told for number, told in content["failed"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"cannot read the sweep {path}: {error}; restore a copy, or sweep again"
            ) from error
        return cls(rows, grid, failures, seeds, binarize)

    def to_png(self, path: str | Path) -> None:
        """Draws the models in the plane of rate and distortion.

        Lines follow the option with the most values, one line per value of the other option.

        Raises:
            OptionError: If more than two options have several values.
        """
        from pyro_mivae.plots import new_figure, plot_rate_distortion, render_png

        along, apart = self.axes
        figure, ax = new_figure(4.0)
        plot_rate_distortion(ax, self.rows, along=along, apart=apart)
        write_file(Path(path), render_png(figure))

    def __repr__(self) -> str:
        grid = ", ".join(f"{name} {list(values)}" for name, values in self.grid.items())
        return f"SweepTable({len(self.rows)} models: {grid})"

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Formats the means over seeds of the main figures as lines of text."""
        rows = [[*self.grid, *OF_SWEEPS]]
        for values in itertools.product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            same = [r for r in self.rows if all(r[k] == v for k, v in point.items())]
            means = [sum(row[name] for row in same) / len(same) for name in OF_SWEEPS]
            rows.append([f"{value:g}" for value in values] + [f"{mean:.3f}" for mean in means])
        told = [] if self.binarize == "none" else [f"binarize {self.binarize}"]
        return "\n".join([*align(rows), *told])

    @property
    def points(self) -> list[dict[str, float]]:
        """The options of each model, with its seed."""
        values = itertools.product(*self.grid.values(), self.seeds)
        return [dict(zip((*self.grid, "seed"), point, strict=True)) for point in values]

    @property
    def axes(self) -> tuple[str, str | None]:
        """The option along the picture's lines, and the option that differs between lines."""
        several = [name for name, values in self.grid.items() if len(values) > 1]
        if len(several) > 2:
            raise OptionError(
                f"{', '.join(several)} have several values; a picture shows two options at most: "
                "draw others by plot_rate_distortion"
            )
        order = sorted(several or self.grid, key=lambda name: -len(self.grid[name]))
        return order[0], order[1] if len(several) > 1 else None


@checker
def _each_once(given: Given, each: Checker) -> tuple[Any, ...]:
    """One or more distinct values."""
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
    given_test: Any = None,
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
        given_test: Their condition, if training has ``given``; that of ``x`` if omitted.
        **training: Options of `fit_many`, among which ``epochs`` is needed.

    Returns:
        The figures of each model.

    Raises:
        OptionError: If the grid is empty, or the variant has no ELBO.
        ManyTrainingError: If the training of every model failed.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO. https://arxiv.org/abs/1711.00464

    Example:
        >>> from functools import partial
        >>> digits = mi.load_dataset("digits")
        >>> make = partial(mi.BetaVAE, digits.data_shape, latent_dim=2)
        >>> x = digits.x_train[:64]
        >>> found = mi.sweep(make, x, grid={"beta": (0.5, 4.0)}, epochs=5, lr=1e-2)
        >>> found.rows[0]["rate"] > found.rows[1]["rate"]
        True
    """
    pixels = training.get("binarize", TrainingOptions.binarize)
    values = {k: tuple(v) for k, v in grid.items()}
    table = SweepTable([], values, seeds=tuple(seeds), binarize=pixels)
    how = {"x_test": x_test, "given_test": given_test, **training}
    return fill_table(table, partial(_make, make), x, **how)


def fill_table(
    table: SweepTable,
    make: Callable[..., Variant],
    x: Tensor,
    *,
    x_test: Tensor | None = None,
    given_test: Any = None,
    models: Path | None = None,
    on_row: Callable[[SweepTable], object] = lambda table: None,
    **training: Any,
) -> SweepTable:
    """Trains and measures the models that are missing in a table; see `sweep`."""
    given_test = training.get("given") if x_test is None else given_test
    x = training_pixels(as_tensor(x), table.binarize)
    x_test = settled_pixels(x if x_test is None else as_tensor(x_test), table.binarize)
    points = table.points
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
            raise OptionError(f"{type(first).__name__} has no ELBO; sweep another variant")
        first.arguments(x_test, given_test)
        seeds = [int(points[n]["seed"]) for n in left]
        names = [",".join(f"{name}={v!r}" for name, v in points[n].items()) for n in left]
        runs = None if models is None else [models / name for name in names]
        try:
            fit_many([*left.values()], x, seeds=seeds, runs=runs, **training)
        except ManyTrainingError as error:
            failures = {[*left][position]: told for position, told in error.failures.items()}
            if len(failures) == len(points):
                raise
    ranks, broken = Ranks.of_group(), dict.fromkeys(MEASURED, math.nan)
    whole = [n for n in left if n not in failures] if ranks.size > 1 else []
    own = {n: _measure(left[n], x_test, given_test) for n in ranks.own(whole)}
    measured = {n: found for share in ranks.from_each(own) for n, found in share.items()}
    for n, vae in left.items():
        found = broken if n in failures else measured.get(n) or _measure(vae, x_test, given_test)
        rows[n] = {**points[n], **found}
        told = {place: reason for place, reason in failures.items() if place in rows}
        table = replace(table, rows=[dict(rows[k]) for k in sorted(rows)], failures=told)
        on_row(table)
    return table


def _make(make: Callable[..., Variant], seed: int, **options: float) -> Variant:
    """The variant of a point of the grid, with weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VARIANT("make(...)", make(**options))


def _measure(vae: Variant, x: Tensor, given: Any) -> dict[str, float]:
    with pyro.get_param_store().scope(), suitable_threads(vae, 128):
        x = vae.check_data(x).to(vae.device)
        figures = information(vae.model, vae.guide, x, given=given, iwae_samples=2).to_dict()
    sites = [
        key(name, site, side)
        for site in vae.sites
        for name, side in (("kl", ""), ("mi", LOWER), ("mi", UPPER))
    ]
    return {name: figures.get(name, math.nan) for name in (*MEASURED, *sites)}


def sweep_run(
    config: RunConfig,
    folder: str | Path,
    grid: Mapping[str, Sequence[float]],
    count: int | None = None,
    **how: Any,
) -> SweepTable:
    """Sweeps a configuration's weights, and writes table and picture to a folder.

    Figures are measured on the test data, and each row is written at once. Until the sweep is
    finished, ``models`` in the folder holds a checkpoint of each model, for resuming. The seeds
    are ``count`` consecutive ones from the configuration's own. Keywords are those of `train_run`.

    Example:
        >>> config = mi.runs.RunConfig("beta")
        >>> sweep_run(config, "runs/sweep", {"beta": [0.5, 1]})  # doctest: +SKIP
    """
    folder = Path(folder)
    check_model_options(config.variant, {**config.model, **grid})
    if config.labels is not None:
        raise OptionError(f"labels={config.labels}: a sweep has none; leave labels out")
    with RunGroup(config, folder, GRID, **how) as group:
        known = None
        if group.resume and (folder / ROWS).is_file():
            if not (folder / SWEEP).is_file():
                raise RunError(
                    f"{folder} holds a sweep without its {SWEEP}, so it cannot continue; delete "
                    "it with --overwrite, or choose another --run DIR"
                )
            known = SweepTable.from_json(folder / ROWS)
            config = config.resumed_from(RunConfig.read(folder / SWEEP), folder)
            _check_resumed(grid, count, known, folder)
            grid, count = known.grid, count or len(known.seeds)
        elif group.resume:
            group.say(f"{folder} holds no sweep to continue: starting over")
        if not grid:
            raise OptionError(
                "nothing to sweep; give --beta or --mi-weight, with one value or more, such as "
                "--beta 0.5,1,4"
            )
        seeds = tuple(seeds_from(config, 1 if count is None else count))
        done = [] if known is None else [row for row in known.rows if math.isfinite(row["rate"])]
        table = SweepTable(done, _GRID("grid", grid), seeds=seeds, binarize=config.binarize)
        if known and len(done) == len(table.points) and (folder / PICTURE).is_file():
            if group.ranks.is_first:
                clear_models(folder)
            group.say(f"{folder} is finished: nothing to do")
            return known
        config = group.approve(config, folder)
        dataset = config.load_dataset()
        config = settled(config, dataset, folder, started=known is not None)

        def make(seed: int, **options: float) -> Variant:
            model, training = {**config.model, **options}, {**config.training, "seed": seed}
            return build_variant(
                replace(config, model=model, training=training), dataset.data_shape
            )

        def begin() -> None:
            new = {} if known else {folder / SWEEP: config}
            group.begin(config, new, dataset, f", {len(table.points)} models")
            table.to_json(folder / ROWS)

        def write(table: SweepTable) -> None:
            if group.ranks.is_first:
                table.to_csv(folder / TABLE)
                table.to_json(folder / ROWS)

        found = fill_table(
            table,
            make,
            dataset.x_train,
            x_test=dataset.x_test,
            given=dataset.given_train,
            given_test=dataset.given_test,
            models=folder / MODELS,
            on_row=write,
            on_start=begin,
            **{name: value for name, value in config.training.items() if name != "seed"},
            resume=True,
            device=group.device,
            progress=group.progress,
            jobs=group.jobs,
        )
        if group.ranks.is_first:
            found.to_png(folder / PICTURE)
            clear_models(folder)
        return found


def _check_resumed(
    grid: Mapping[str, Sequence[float]], count: int | None, known: SweepTable, folder: Path
) -> None:
    """Checks that no given value contradicts the sweep to continue."""
    for name, values in grid.items():
        if _GRID("grid", grid)[name] != known.grid.get(name):
            raise started_with(
                FLAGS[name], _listed(values), _listed(known.grid.get(name, ())), folder
            )
    if count is not None and count < len(known.seeds):
        raise started_with("--seeds", count, len(known.seeds), folder)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"
