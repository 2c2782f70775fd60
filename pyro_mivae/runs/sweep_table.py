"""Tables of sweeps as CSV, JSON, text and picture."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs.run_folder import write_json
from pyro_mivae.tables import align
from pyro_mivae.training import atomic_path

SHOWN = ("distortion", "rate", "elbo", "mi_lower", "mi_upper")


@dataclass(frozen=True)
class SweepTable:
    """Figures of the models of a sweep.

    Attributes:
        rows: One per model: its options and ``seed``, and its figures in nats per datum:
            ``distortion``, ``rate``, ``elbo``, ``mi_lower``, ``mi_upper``, and for every site
            ``kl_<site>``, ``mi_<site>_lower`` and ``mi_<site>_upper``; ``active_units`` too.
            NaN for a model that broke down.
        grid: The values of each option.
        failures: Reasons of the models that broke down, by the number of the row.
        seeds: The seeds of each combination.
    """

    rows: list[dict[str, float]]
    grid: dict[str, tuple[float, ...]]
    failures: dict[int, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

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
        """Writes grid, seeds, rows and failures, with null for NaN.

        Args:
            path: The file.
        """
        content = {"grid": self.grid, "seeds": self.seeds, "rows": self.rows}
        write_json(Path(path), {**content, "failed": self.failures})

    @classmethod
    def from_json(cls, path: str | Path) -> SweepTable:
        """Reads what `to_json` wrote.

        Args:
            path: The file.

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
            failures = {int(number): told for number, told in content["failed"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"cannot read the sweep {path}: {error}") from error
        return cls(rows, grid, failures, seeds)

    def to_png(self, path: str | Path) -> None:
        """Draws the models in the plane of rate and distortion.

        The lines follow the option with the most values, one for each value of another option.

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
        """Writes the means over seeds of the figures that matter most, as lines of text."""
        rows = [[*self.grid, *SHOWN]]
        for values in itertools.product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            same = [r for r in self.rows if all(r[k] == v for k, v in point.items())]
            means = [sum(row[name] for row in same) / len(same) for name in SHOWN]
            rows.append([f"{value:g}" for value in values] + [f"{mean:.3f}" for mean in means])
        return "\n".join(align(rows))

    @property
    def points(self) -> list[dict[str, float]]:
        """The options of each model, its seed among them."""
        values = itertools.product(*self.grid.values(), self.seeds)
        return [dict(zip((*self.grid, "seed"), point, strict=True)) for point in values]

    @property
    def axes(self) -> tuple[str, str | None]:
        """The option along the picture's lines, and the one that tells them apart."""
        several = [name for name, values in self.grid.items() if len(values) > 1]
        if len(several) > 2:
            raise OptionError(
                f"{', '.join(several)} have several values; a picture shows two of them at most, "
                "draw others by plot_rate_distortion"
            )
        order = sorted(several or self.grid, key=lambda name: -len(self.grid[name]))
        return order[0], order[1] if len(several) > 1 else None
