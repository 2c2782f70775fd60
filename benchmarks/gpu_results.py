"""The results file of the GPU benchmark, its targets, and how both are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import write
from benchmarks.speed import spread

Cell = dict[str, Any]
OURS = ("ours", "ours, compiled")
GRAPHS = ("hand-made graph", "hand-made graph, compiled")
SVI = ("mi.SVI", "mi.SVI, compiled")


class Results:
    """A results file, written after each measurement.

    Args:
        path: The file. What it holds already is kept.
        header: What all its measurements share: the machine, the scale and the data.
        source: A digest of the code that is measured.

    Raises:
        SystemExit: If the file holds measurements with another header.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], source: str) -> None:
        self.path, self.source = path, source
        shared = json.loads(json.dumps(header))
        self.content = json.loads(path.read_text()) if path.exists() else {**shared, "parts": {}}
        there = {name: self.content.get(name) for name in shared}
        if there != shared:
            raise SystemExit(
                f"{path} holds results of {there}, not of {shared}; give another --out"
            )

    def part(self, name: str, about: str) -> dict[str, Any]:
        """Returns a part: what it measures and its cells, an empty one if there is none."""
        return self.content["parts"].setdefault(name, {"about": about, "cells": {}})

    def cell(self, part: str, name: str) -> Cell | None:
        """Returns the cell to measure, or None if it is measured.

        A cell that was cut short goes on. One that was cut short or failed with other code
        starts afresh.
        """
        cells = self.content["parts"][part]["cells"]
        cell = cells.get(name)
        ended = cell is not None and cell["done"] and not failures(cell)
        if cell is None or not (ended or cell["source"] == self.source):
            cell = cells[name] = {"source": self.source, "done": False}
        return None if cell["done"] else cell

    def save(self) -> None:
        """Writes the file, in place of the one before."""
        measured = self.content["machine"]["gpu"] is not None
        self.content["targets"] = list(targets(self.content["parts"])) if measured else []
        write(self.path, self.content)


def failures(cell: Cell) -> dict[str, str]:
    """Returns what failed in a cell, by contender; a failure of the cell itself is ``"cell"``."""
    contenders = {"cell": cell, **cell.get("contenders", {})}
    return {name: found["error"] for name, found in contenders.items() if "error" in found}


def milliseconds(cell: Cell, name: str) -> list[float]:
    """Returns a contender's milliseconds per step: of each round, or alone if there is none."""
    rounds = [times[name] for times in cell.get("rounds", []) if name in times]
    alone = cell.get("contenders", {}).get(name, {}).get("milliseconds")
    return rounds or [alone] * (alone is not None)


def best(cell: Cell, names: Sequence[str]) -> str | None:
    """Returns the fastest of some contenders; None if none was measured."""
    measured = [name for name in names if milliseconds(cell, name)]
    return min(measured, key=lambda name: median(milliseconds(cell, name)), default=None)


def ratio(cell: Cell, name: str | None, baseline: str | None) -> float | None:
    """Returns the median, over the rounds, of a contender's time in units of another's."""
    if name is None or baseline is None:
        return None
    rounds = [times for times in cell.get("rounds", []) if {name, baseline} <= times.keys()]
    if rounds:
        return median(times[name] / times[baseline] for times in rounds)
    a, b = milliseconds(cell, name), milliseconds(cell, baseline)
    return median(a) / median(b) if a and b else None


def targets(parts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Compares what was measured with what was asked; "ours" is the faster of its engines.

    Args:
        parts: The parts of a results file, measured or not.

    Yields:
        What is measured, what was asked, the value, and whether it is met; None if not measured.
    """

    def cell(part: str, name: str) -> Cell:
        return parts.get(part, {"cells": {}})["cells"].get(name, {})

    def told(what: str, value: float | None, most: float, by: Callable = float.__le__) -> Any:
        asked = f"at {'most' if by is float.__le__ else 'least'} {most}"
        met = None if value is None else by(float(value), float(most))
        return {"target": what, "asked": asked, "value": value, "met": met}

    checks = {
        "against the CPU": ("losses of fit against the CPU's, in units of the tolerance", 1),
        "captured": ("captured losses against those step by step, relative difference", 1e-4),
        "compiled": ("the same, compiled", 1e-4),
    }
    for name, (what, most) in checks.items():
        found = cell("check", name)
        row = told(what, found.get("difference"), most)
        yield row | {"met": False} if "error" in found else row
    step, svi = cell("step", "vae"), cell("mi.SVI", "vae")
    ours = best(step, OURS)
    yield told("milliseconds per step", median(milliseconds(step, ours)) if ours else None, 0.08)
    epochs = [cell("epoch", engine).get("seconds", [])[1:] for engine in ("staged", "compiled")]
    least = min((median(seconds) for seconds in epochs if seconds), default=None)
    yield told("seconds per epoch of mi.fit", least, 0.04)
    for elbo in ("our ELBO", "Pyro's ELBO"):
        stock = f"stock SVI, {elbo}"
        yield told(f"{stock}, in units of ours", ratio(step, stock, ours), 20, float.__ge__)
    graph = best(step, GRAPHS)
    yield told("ours, in units of the hand-made graph", ratio(step, ours, graph), 1.05)
    yield told("mi.SVI, in units of ours", ratio(svi, best(svi, SVI), best(svi, OURS)), 1.5)


def summary(name: str, part: Mapping[str, Any]) -> str:
    """Lays out the results of a part."""
    lines = [f"\n{name}: {part['about']}"]
    for key, cell in part["cells"].items():
        if "contenders" in cell:
            lines.append(f"  {key}, batch {cell['batch_size']}, {cell['steps']} steps a turn")
            lines += _rows(cell)
        else:
            numbers = {k: v for k, v in cell.items() if isinstance(v, float)}
            lines.append(f"  {key}: {', '.join(f'{k} {v:.4g}' for k, v in numbers.items())}")
        lines += [f"    {who} FAILED: {error}" for who, error in failures(cell).items()]
        if not cell["done"]:
            lines.append("    cut short: run it again, it goes on there")
    return "\n".join(lines)


def _rows(cell: Cell) -> Iterator[str]:
    ours = best(cell, OURS)
    for name, found in cell["contenders"].items():
        times = milliseconds(cell, name)
        if times:
            low, middle, high = spread(times)
            share = ratio(cell, name, ours)
            yield (
                f"    {name:<28}{middle:9.4f} ms ({low:.4f} to {high:.4f})"
                + (f"{share:9.2f} of ours" if share else "")
                + f"  ready in {found['ready']:.1f} s"
                + (f", {found['mib']:.0f} MiB" if "mib" in found else "")
            )
        yield from (f"    {name}: {note}" for note in found.get("notes", []))


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Lays out targets."""
    names = {True: "met", False: "NOT MET", None: "not measured"}
    lines = [
        f"  {row['target']}: "
        + ("" if row["value"] is None else f"{row['value']:.4g}, ")
        + f"{row['asked']}: {names[row['met']]}"
        for row in found
    ]
    return "\n".join(["\ntargets:", *lines])
