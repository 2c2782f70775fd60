"""`sweep`: trains a grid of weights at once, and measures what becomes of rate and information."""

from __future__ import annotations

import csv
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

from pyro_mivae.diagnostics import information
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.runs.build import build_variant, check_config, find_variant, plain_defaults
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.training import atomic_path, fit_many, suitable_threads
from pyro_mivae.variants import Variant

FIGURES = ("distortion", "rate", "elbo", "mi_lower", "mi_upper", "active_units")
SHOWN = ("distortion", "rate", "elbo", "mi_lower", "mi_upper")
FILES = ("sweep.csv", "sweep.json", "sweep.png")


@dataclass(frozen=True)
class SweepTable:
    """What a sweep found.

    Attributes:
        rows: One per model: its options and ``seed``, and its figures in nats per datum:
            ``distortion``, ``rate``, ``elbo``, ``mi_lower``, ``mi_upper``, and for every site
            ``kl_<site>``, ``mi_<site>_lower`` and ``mi_<site>_upper``; ``active_units`` too.
            NaN for a model that broke down.
        grid: The values of each option.
        failures: What became of models that broke down, by the number of the row.
    """

    rows: list[dict[str, float]]
    grid: dict[str, tuple[float, ...]]
    failures: dict[int, str] = field(default_factory=dict)

    def to_csv(self, path: str | Path) -> None:
        """Writes the rows as a table.

        Args:
            path: The file.
        """
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(Path(path)) as scratch, scratch.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="nan", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def to_json(self, path: str | Path) -> None:
        """Writes grid, rows and failures, with null for NaN.

        Args:
            path: The file.
        """
        rows = [
            {name: value if math.isfinite(value) else None for name, value in row.items()}
            for row in self.rows
        ]
        content = {"grid": self.grid, "rows": rows, "failed": self.failures}
        with atomic_path(Path(path)) as scratch:
            scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def to_png(self, path: str | Path) -> None:
        """Draws the models in the plane of rate and distortion.

        The lines follow the option with the most values; of another option each value has a line
        of its own.

        Args:
            path: The file.

        Raises:
            OptionError: If more than two options have several values.
        """
        from pyro_mivae.plots import new_figure, plot_rate_distortion, render_png

        along, apart = self.axes
        figure, ax = new_figure(4.0)
        plot_rate_distortion(ax, self.rows, along=along, apart=apart)
        with atomic_path(Path(path)) as scratch:
            scratch.write_bytes(render_png(figure))

    def table(self) -> str:
        """Gives the means over seeds of the figures that matter most, as lines of text."""
        names = (*self.grid, *SHOWN)
        lines = ["  ".join(f"{name:>10}" for name in names)]
        for values in itertools.product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            same = [r for r in self.rows if all(r[k] == v for k, v in point.items())]
            means = [sum(row[name] for row in same) / len(same) for name in SHOWN]
            cells = [f"{value:g}" for value in values] + [f"{mean:.3f}" for mean in means]
            lines.append("  ".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)

    @property
    def axes(self) -> tuple[str, str | None]:
        """The option that the picture's lines follow, and the one that tells them apart."""
        several = [name for name, values in self.grid.items() if len(values) > 1]
        if len(several) > 2:
            raise OptionError(
                f"{', '.join(several)} have several values; a picture shows two of them at most, "
                "draw others by plot_rate_distortion"
            )
        order = sorted(several or self.grid, key=lambda name: -len(self.grid[name]))
        return order[0], order[1] if len(several) > 1 else None


def sweep(
    make: Callable[..., Variant],
    x: Tensor,
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int] = (0,),
    x_test: Tensor | None = None,
    **training: Any,
) -> SweepTable:
    """Trains a variant for every combination of options at once, and measures each.

    Weights of 1 and of 0 are left out of a program altogether, so that their models are trained
    apart from those of other weights.

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
    return _sweep(partial(_make, make), x, grid=grid, seeds=seeds, x_test=x_test, **training)


def _sweep(
    make: Callable[..., Variant],
    x: Tensor,
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    x_test: Tensor | None,
    **training: Any,
) -> SweepTable:
    """See `sweep`; here ``make`` is given the seed too."""
    plain = {name: tuple(float(value) for value in values) for name, values in grid.items()}
    if not plain or not all(plain.values()) or not seeds:
        raise OptionError(
            f"grid={dict(grid)}, seeds={list(seeds)}: give one option or more, each with one "
            "value or more, and one seed or more"
        )
    points: list[dict[str, Any]] = [
        {**dict(zip(plain, values, strict=True)), "seed": seed}
        for values in itertools.product(*plain.values())
        for seed in seeds
    ]
    vaes = [make(**point) for point in points]
    if not vaes[0].objective().measures_fit:
        raise OptionError(
            f"{type(vaes[0]).__name__} has no ELBO, so that there is no rate and no distortion"
        )
    failures: dict[int, str] = {}
    try:
        fit_many(vaes, x, seeds=[point["seed"] for point in points], **training)
    except ManyTrainingError as error:
        failures = error.failures
        if len(failures) == len(vaes):
            raise
    measured = x if x_test is None else x_test
    rows: list[dict[str, float]] = []
    for number, (point, vae) in enumerate(zip(points, vaes, strict=True)):
        broken = dict.fromkeys(FIGURES, math.nan)
        rows.append({**point, **(broken if number in failures else _measure(vae, measured))})
    return SweepTable(rows, plain, failures)


def sweep_run(
    config: RunConfig,
    folder: str | Path,
    grid: Mapping[str, Sequence[float]],
    count: int = 1,
    *,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> SweepTable:
    """Sweeps a configuration's weights, and leaves table and picture in a folder.

    Figures are of the test images. No run folder is made of any model.

    Args:
        config: What to train, on what, and how.
        folder: Where ``sweep.csv``, ``sweep.json`` and ``sweep.png`` go.
        grid: The values of each option.
        count: How many seeds, from the configuration's on.
        overwrite: Throws the sweep that the folder holds away.
        device: ``"auto"``, ``"cuda"`` or ``"cpu"``.
        progress: Shows one progress bar for all on stderr.
        say: Called with a line of text at each stage.

    Returns:
        The figures of each model.

    Raises:
        PyroMivaeError: If something given is not allowed; nothing has been written then.
        RunError: If the folder holds a sweep already.
    """
    folder = Path(folder)
    check_config(replace(config, model={**config.model, **{name: 0.0 for name in grid}}))
    if not overwrite and any((folder / name).exists() for name in FILES):
        raise RunError(
            f"{folder} holds a sweep already; throw it away with --overwrite, or choose another "
            "--run DIR"
        )
    dataset = config.load_dataset()
    config = config.complete(dataset, plain_defaults(find_variant(config.variant)))
    seed = config.training["seed"]
    say(f"{config.variant} on {dataset.name}: {len(dataset.x_train)} images")

    def make(seed: int, **options: float) -> Variant:
        own = replace(
            config,
            model={**config.model, **options},
            training={**config.training, "seed": seed},
        )
        return build_variant(own, dataset.data_shape)

    found = _sweep(
        make,
        dataset.x_train,
        grid=grid,
        seeds=range(seed, seed + count),
        x_test=dataset.x_test,
        **{name: value for name, value in config.training.items() if name != "seed"},
        device=device,
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in zip(FILES, (found.to_csv, found.to_json, found.to_png), strict=True):
        write(folder / name)
    return found


def _make(make: Callable[..., Variant], seed: int, **options: float) -> Variant:
    """The variant of a point of the grid, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**options)


def _measure(vae: Variant, x: Tensor) -> dict[str, float]:
    with pyro.get_param_store().scope(), suitable_threads(vae, 128):
        report = information(vae.model, vae.guide, x.to(vae.device, vae.dtype), iwae_samples=2)
    figures = report.to_dict()
    sites = [
        f"{kind}_{site}{side}"
        for site in vae.sites
        for kind, side in (("kl", ""), ("mi", "_lower"), ("mi", "_upper"))
    ]
    return {name: figures.get(name, math.nan) for name in (*FIGURES, *sites)}
