"""Several run folders side by side."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyro_mivae.data import CONDITION, Dataset
from pyro_mivae.errors import OptionError
from pyro_mivae.report.comparison import Contender, write_comparison
from pyro_mivae.report.comparison_table import Line, compare_metrics
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.page import flatten
from pyro_mivae.runs.outputs import check_out
from pyro_mivae.runs.run import Run, open_run
from pyro_mivae.runs.run_folder import runs_of_seeds
from pyro_mivae.tables import Shown, align
from pyro_mivae.training import History, writing

PAGE = "compare.html"
_WIDTH = 100  # of the table, in characters
_LEFT_OUT = ("command", "data_root")
_MEASURED_BY = ("items", "num_samples", "iwae_samples", "iwae_items", "generative_items")
_DATA = ("data", "image_size", "data_shape", "binarize")


@dataclass(frozen=True)
class Side:
    """A model in a comparison: a run, or the runs of several seeds."""

    name: str  # its folder, with the shortest distinct path
    runs: Sequence[Run]
    metrics: Sequence[Mapping[str, float]]
    protocols: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison(Shown):
    """A comparison of models, see `compare`.

    Attributes:
        sides: The models.

    Example:
        >>> comparison = mi.compare("runs/infocat-digits", "runs/vae-digits")  # doctest: +SKIP
        >>> print(comparison.table())  # doctest: +SKIP
    """

    sides: Sequence[Side]

    @cached_property
    def lines(self) -> list[Line]:
        """Figures of any of the models."""
        return compare_metrics([side.metrics for side in self.sides])

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """Settings that differ, with a text per model."""
        made = [_settings(side) for side in self.sides]
        names = dict.fromkeys(name for one in made for name in one)
        rows = {name: [one.get(name, "–") for one in made] for name in names}
        return {name: texts for name, texts in rows.items() if len(set(texts)) > 1}

    @cached_property
    def costs(self) -> dict[str, list[str]]:
        """Length and cost of the trainings by model, as text; means of several seeds."""
        rows: dict[str, list[str]] = {}
        for side in self.sides:
            histories = [run.history for run in side.runs]
            parameters = sum(p.numel() for p in side.runs[0].vae.parameters())
            cells = {
                "epochs": f"{statistics.fmean(map(len, histories)):g}",
                "seconds of training": f"{statistics.fmean(map(_seconds, histories)):.0f}",
                "parameters": f"{parameters:,}",
            }
            for name, cell in cells.items():
                rows.setdefault(name, []).append(cell)
        return rows

    @cached_property
    def warnings(self) -> list[str]:
        """Reasons that figures may not be comparable, in sentences."""
        return list(_warnings(self.sides))

    def table(self, width: int = _WIDTH) -> str:
        """Makes a table of figures by models; blocks of columns fit in ``width`` characters."""
        pixels = [side.runs[0].config.binarize for side in self.sides]
        told = ["binarize"] if set(pixels) != {"none"} else []
        heads = ["nats per test datum", *(line.name for line in self.lines), *self.costs, *told]
        blocks: list[list[list[str]]] = [[heads]]
        for number, side in enumerate(self.sides):
            cells = [line.cells[number] for line in self.lines]
            column = [side.name, *(f"{cell} {'*' if cell.differs else ' '}" for cell in cells)]
            column += [f"{cells[number]}  " for cells in self.costs.values()]
            column += [f"{pixels[number]}  "] * len(told)
            room = width - sum(max(map(len, other)) + 2 for other in blocks[-1])
            if len(blocks[-1]) > 1 and max(map(len, column)) > room:
                blocks.append([heads])
            blocks[-1].append(column)
        lines = [f"warning: {warning}" for warning in self.warnings]
        for block in blocks:
            lines += [*align(list(zip(*block, strict=True))), ""]
        lines.append(f"* more than two standard errors from {self.sides[0].name}")
        spread = "±: the standard error over the test data"
        if any(len(side.runs) > 1 for side in self.sides):
            spread += "; of several seeds, their standard deviation"
        return "\n".join([*lines, spread])

    def write(
        self,
        folder: str | Path,
        *,
        root: str | Path | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Writes ``compare.html``, one page with table, curves and pictures.

        Args:
            folder: Folder of the page, created if missing.
            root: Folder of torchvision's data sets, if they have moved.
            overwrite: True to replace an existing page.

        Returns:
            The page.

        Raises:
            OptionError: If the page exists, or ``folder`` is a file.
            WriteError: If it cannot be written.
            DataError: If the data cannot be read any more.
            RunError: If they have changed.
        """
        path = check_page(folder, overwrite)
        loaded: dict[tuple[object, ...], Dataset] = {}
        contenders = []
        for side in self.sides:
            run = side.runs[0]
            own = run.config
            place = (own.data, own.image_size, own.binarize, own.given)
            dataset = loaded[place] = loaded.get(place) or run.dataset(root)
            histories = [run.history for run in side.runs]
            x, labels = dataset.x_test, dataset.y_test
            u = dataset.given_test
            data = ReportData(run.vae, x, labels, histories[0], side.metrics[0], given=u)
            contenders.append(Contender(side.name, data, histories, side.metrics, dataset.title))
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        return write_comparison(
            path, contenders, self.lines, self.settings, self.warnings, self.costs
        )

    def __repr__(self) -> str:
        return f"Comparison({', '.join(side.name for side in self.sides)})"

    def __str__(self) -> str:
        return self.table()


def compare(*folders: str | Path, trust: bool = False) -> Comparison:
    """Opens run folders to compare their figures.

    A folder of several seeds, as ``train --seeds`` makes it, counts as one model, by its means.

    Args:
        *folders: Two or more run folders, evaluated; all are compared with the first.
        trust: True to run the code that the folders name, see `load`.

    Returns:
        The comparison: its ``table()``, its ``warnings``, and the page by ``write(folder)``.

    Raises:
        OptionError: If fewer than two folders are given, or one is given twice.
        RunError: If a folder holds no run, or if a run was not evaluated or names untrusted code.

    Example:
        >>> compare("runs/infocat-digits", "runs/vae-digits").write("runs")  # doctest: +SKIP
    """
    places = [Path(folder) for folder in folders]
    if len(places) < 2:
        raise OptionError(f"{len(places)} run folder(s) given; give two or more")
    resolved = [place.resolve() for place in places]
    for place, whole in zip(places, resolved, strict=True):
        if resolved.count(whole) > 1:
            raise OptionError(f"{place} given twice; give every run folder once")
    names = _names(resolved)
    return Comparison([_open(p, n, trust) for p, n in zip(places, names, strict=True)])


def check_page(folder: str | Path, overwrite: bool) -> Path:
    """Checks that a comparison's page may be written."""
    folder = Path(folder)
    if os.path.isdir(folder):
        check_out(folder / PAGE, ".html", overwrite)
    elif os.path.exists(folder):
        raise OptionError(f"out={folder} is a file; give a folder")
    elif not os.path.isdir(folder.resolve().parent):
        raise OptionError(f"out={folder}: there is no folder {folder.parent}; make it first")
    return folder / PAGE


def _open(folder: Path, name: str, trust: bool) -> Side:
    runs = [open_run(place, trust=trust) for place in runs_of_seeds(folder) or [folder]]
    measured = [run.measured() for run in runs]
    return Side(name, runs, [m for m, _ in measured], [p for _, p in measured])


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest endings of paths that distinguish them."""
    depth, names = 1, [folder.name for folder in folders]
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
    return names


def _seconds(history: History) -> float:
    return sum(history["seconds"]) if len(history) else 0.0


def _settings(side: Side) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for run in side.runs:
        made = {k: v for k, v in run.config.describe().items() if k not in _LEFT_OUT}
        for name, text in flatten(made):
            texts.setdefault(name.rpartition(".")[2], []).append(text)
    return {name: ", ".join(dict.fromkeys(values)) for name, values in texts.items()}


def _warnings(sides: Sequence[Side]) -> Iterator[str]:
    first = sides[0]
    for side in sides[1:]:
        pair = f"{first.name} and {side.name}"
        ours, theirs = first.runs[0].config, side.runs[0].config
        apart = ours.fingerprints["test images"] != theirs.fingerprints["test images"]
        if apart:
            data = [name for name in _DATA if getattr(ours, name) != getattr(theirs, name)]
            yield (
                f"{pair} were measured on different data ({', '.join(data or ['test data'])}): "
                "their nats and accuracies cannot be compared"
            )
        if ours.fingerprints.get(CONDITION) != theirs.fingerprints.get(CONDITION):
            yield (
                f"{pair} have different conditions ({ours.given or 'none'}, "
                f"{theirs.given or 'none'}): what is given is not counted, so their nats cannot "
                "be compared"
            )
        kinds = [type(of.runs[0].vae.likelihood).__name__ for of in (first, side)]
        notes = [of.protocols[0].get("likelihood", "") for of in (first, side)]
        if kinds[0] != kinds[1]:
            yield (
                f"{pair} have likelihoods of different kinds ({kinds[0]}, {kinds[1]}): "
                "distortion, ELBO and log p(x) cannot be compared"
            )
        elif notes[0] != notes[1]:
            name, note = (first.name, notes[0]) if notes[0] else (side.name, notes[1])
            yield f"the figures of {pair} cannot be compared, because {name} has {note}"
        one, other = (dict(flatten(of.protocols[0])) for of in (first, side))
        differing = [
            f"{name} {one[name]} and {other[name]}"
            for name in (f"information.{name}" for name in _MEASURED_BY)
            if name in one and name in other and one[name] != other[name]
        ]
        if differing and not apart:
            yield f"{pair} were measured in different ways: {', '.join(differing)}"
    for side in sides:
        if not all(run.finished for run in side.runs):
            yield f"{side.name} was not trained to its end"
