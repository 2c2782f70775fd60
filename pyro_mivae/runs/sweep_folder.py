"""A sweep in a folder: its table grows row by row, and it goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs.build import build_variant, check_config, find_variant, plain_defaults
from pyro_mivae.runs.config import FLAGS, RunConfig
from pyro_mivae.runs.load import check_same_data
from pyro_mivae.runs.programs import approve, named_programs, remember
from pyro_mivae.runs.sweep import Point, check_grid, points_of, sweep_points
from pyro_mivae.runs.sweep_table import SweepTable
from pyro_mivae.runs.target import (
    MODELS,
    PICTURE,
    ROWS,
    SWEEP,
    TABLE,
    check_target,
    clear_models,
    clear_sweep,
    held,
    prepare_folder,
)
from pyro_mivae.training import Writer
from pyro_mivae.variants import Variant

Grid = Mapping[str, Sequence[float]]


def sweep_run(
    config: RunConfig,
    folder: str | Path,
    grid: Grid,
    count: int | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    device: str = "auto",
    progress: bool = False,
    say: Callable[[str], object] = lambda text: None,
    on_start: Callable[[], object] = lambda: None,
) -> SweepTable:
    """Sweeps a configuration's weights, and leaves table and picture in a folder.

    Figures are of the test images. Each row is written as it is measured. Until the sweep is
    finished the folder's ``models`` holds a checkpoint of each model, so that it can be resumed.
    """
    folder = Path(folder)
    check_config(replace(config, model={**config.model, **{name: 0.0 for name in grid}}))
    check_target(folder, "a sweep", resume=resume, overwrite=overwrite)
    there = held(folder) is not None
    with Writer(folder) as writer:
        named = named_programs(config)
        known: SweepTable | None = None
        if resume and (folder / ROWS).is_file():
            if not (folder / SWEEP).is_file():
                raise RunError(
                    f"{folder} holds a sweep without its {SWEEP}, so that it cannot go "
                    "on; throw it away with --overwrite, or choose another --run DIR"
                )
            known = SweepTable.from_json(folder / ROWS)
            config = config.resumed_from(RunConfig.read(folder / SWEEP), folder)
            grid = _resumed_grid(grid, known, folder)
            count = _resumed_count(count, known, folder)
        elif resume:
            say(f"{folder} holds no sweep to go on with: starting anew")
        if not grid:
            raise OptionError(
                "nothing to sweep; give --beta or --mi-weight, with one value or more, such as "
                "--beta 0.5,1,4"
            )
        plain = check_grid(grid)
        first = config.training.get("seed") or 0
        seeds = range(first, first + (1 if count is None else count))
        points = points_of(plain, seeds)
        done = [] if known is None else [row for row in known.rows if math.isfinite(row["rate"])]
        if known is not None and len(done) == len(points) and (folder / PICTURE).is_file():
            clear_models(folder)
            say(f"{folder} is finished: nothing to do")
            return known
        if known is None:
            config = replace(config, programs={})
        config = approve(config, folder, named=named, trust=trust)
        dataset = config.load_dataset()
        if known is None:
            config = config.complete(dataset, plain_defaults(find_variant(config.variant)))
        else:
            check_same_data(config, dataset, folder)

        def make(seed: int, **options: float) -> Variant:
            own = replace(
                config,
                model={**config.model, **options},
                training={**config.training, "seed": seed},
            )
            return build_variant(own, dataset.data_shape)

        def begin() -> None:
            writer.make()
            if known is None:
                check_target(
                    folder, "a sweep", resume=resume and there, overwrite=overwrite and there
                )
                prepare_folder(folder, config, clear_sweep, SWEEP)
            remember(config, named)
            SweepTable(done, plain, seeds=tuple(seeds)).to_json(folder / ROWS)
            on_start()
            say(f"{config.variant} on {dataset.name}: {len(points)} models")

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
            device=device,
            progress=progress,
        )
        _write_rows(found, folder)
        found.to_png(folder / PICTURE)
        clear_models(folder)
        return found


def _resumed_grid(grid: Grid, known: SweepTable, folder: Path) -> Grid:
    """The grid that the sweep was started with, if nothing that is given contradicts it."""
    for name, values in check_grid(grid).items() if grid else ():
        before = known.grid.get(name)
        if values != before:
            raise OptionError(
                f"{FLAGS[name]} {_listed(values)} given, but the sweep in {folder} was started "
                f"with {'none' if before is None else _listed(before)}; leave it out to resume, "
                "or start anew with --overwrite"
            )
    return known.grid


def _resumed_count(count: int | None, known: SweepTable, folder: Path) -> int:
    before = len(known.seeds)
    if count is not None and count < before:
        raise OptionError(
            f"--seeds {count} given, but the sweep in {folder} is of {before}; leave it out to "
            "resume, or start anew with --overwrite"
        )
    return count or before


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _name(point: Point) -> str:
    return ",".join(f"{name}={value!r}" for name, value in point.items())


def _write_rows(table: SweepTable, folder: Path) -> None:
    table.to_csv(folder / TABLE)
    table.to_json(folder / ROWS)
