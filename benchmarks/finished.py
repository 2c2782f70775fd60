"""Finished runs in a file: none is lost, and none is mixed with others of another making."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pyro_mivae
from benchmarks.common import machine, write

Run = dict[str, Any]


class MixError(SystemExit):
    """Runs that are there were made otherwise than those that are asked for."""


def source(folder: Path | None = None) -> str:
    """Returns a digest of the Python files of a folder, the package's if omitted."""
    folder = Path(pyro_mivae.__file__).parent if folder is None else folder
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def made_with() -> dict[str, Any]:
    """Says what runs are made with: machine, versions, and a digest of the package's source."""
    versions = {name: metadata.version(name) for name in ("numpy", "scikit-learn")}
    return {
        **machine(),
        **versions,
        "pyro_mivae": metadata.version("pyro-mivae"),
        "source": source(),
    }


def commit() -> str | None:
    """Names the commit that is checked out, if this is a checkout; ``+`` where it was changed."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None


def read(path: Path) -> dict[str, Any]:
    """Reads a results file.

    Args:
        path: The file; it need not be there.

    Returns:
        Its content, with no runs if there is none.
    """
    return json.loads(path.read_text()) if path.exists() else {"runs": []}


def put(
    path: Path, beside: Mapping[str, Any], run: Run | None = None, order: Sequence[Run] = ()
) -> None:
    """Writes a run, and what holds of all of them, to a results file at once.

    The file is read again before, so that two commands may fill the same one.

    Args:
        path: The file.
        beside: What is not of one run; dictionaries are added to those there.
        run: The run, if there is one to add. It replaces the same one.
        order: What runs are of, in the order of the file; seeds follow each other in it.
    """
    content = read(path)
    runs = content.pop("runs")
    for name, value in beside.items():
        old = content.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        content[name] = {**old, **value} if both else value
    if run is not None:
        names = [key(one)[:-1] for one in order]
        runs = [other for other in runs if key(other) != key(run)] + [run]
        runs.sort(key=lambda one: (names.index(key(one)[:-1]), one["seed"]))
    write(path, content | {"runs": runs})


def key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tells which run of a file it is: what was trained, and from which seed."""
    names = ("variant", "categorical", "start", "labels")
    return *(run[name] for name in names if name in run), run.get("seed")


def rounded(value: float) -> float | None:
    """Gives a figure as a file holds it: four decimals, None where it is not defined."""
    return round(float(value), 4) if math.isfinite(value) else None


def check_same(where: Path, what: str, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuses to put runs beside others that were made otherwise.

    Args:
        where: What holds the others.
        what: Which of the others, for the message.
        there: How they were made.
        asked: How it is to be now.

    Raises:
        MixError: If something differs; it says what.
    """
    differences = [
        f"{name} {there.get(name)!r} there, {asked.get(name)!r} now"
        for name in {**there, **asked}
        if there.get(name) != asked.get(name)
    ]
    if differences:
        raise MixError(
            f"{where} holds {what}, made otherwise: {'; '.join(differences)}. Ask for what it "
            "holds, give --out another folder, or, for other versions alone, --mix"
        )


class Times:
    """Tells how long runs will take, by those that are done."""

    COST: ClassVar = {
        "mmd": 1.2, "vmi": 1.9, "critic-infomax": 1.8, "cat": 5.5, "infocat": 6.0, "infogan": 6.6,
    }  # fmt: skip
    """What a step costs, about, in the VAE's; it serves until a variant has run."""

    def __init__(self) -> None:
        self._took: dict[tuple[str, ...], list[float]] = {}
        self._units: dict[str, list[float]] = {}

    def add(self, data: str, run: Run) -> None:
        """Learns from a finished run.

        Args:
            data: The data set.
            run: The run.
        """
        self._took.setdefault((data, *key(run)[:-1]), []).append(run["took"])
        self._units.setdefault(data, []).append(run["took"] / self._size(run))

    def _size(self, run: Run) -> float:
        return self.COST.get(run["variant"], 1.0) * run["settings"]["fit"]["epochs"]

    def told(self, left: Sequence[tuple[str, Run]], jobs: int) -> str:
        """Says how long runs will take, as far as that is known.

        Args:
            left: The data set, and what is trained with its settings, of each run.
            jobs: How many at once.
        """
        total = 0.0
        for data, run in left:
            took = self._took.get((data, *key(run)[:-1]))
            units = self._units.get(data)
            if took is None and units is None:
                return f"; {len(left)} left"
            total += fmean(took) if took else fmean(units or [0]) * self._size(run)
        minutes = math.ceil(total / jobs / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        return f"; {len(left)} left, about {hours}{minutes % 60} min" if left else ""
