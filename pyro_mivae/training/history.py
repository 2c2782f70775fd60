"""The record of a training run, a row per epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, overload

import torch

from pyro_mivae.errors import RunError
from pyro_mivae.training.files import atomic_path, writing

Row = Mapping[str, float]
WHOLE = ("epoch", "step")


class History:
    """A table with a row per epoch.

    Its columns are ``epoch`` and ``step`` (both counted from 1, at the epoch's end), ``seconds``
    (that the epoch took), ``lr`` (of its last step), every entry of the objective's ledger as a
    mean over the epoch's images (nats per datum: ``loss``, ``elbo``, ``distortion``, ``rate``,
    ``kl_<site>``, ``mi_...``), and the same with ``val_`` before it on held-out images.

    It is a sequence of rows, each from column name to value: ``len``, iteration and numbers are
    about epochs, ``history[-1]`` is the last and ``history[-5:]`` a history of the last five. A
    name gives a column, one value per row, NaN where a row has none; ``"loss" in history`` tells
    whether there is such a column.

    Attributes:
        rows: The rows, each from column name to value.

    Example:
        >>> history = History([{"epoch": 1, "loss": 30.5}, {"epoch": 2, "loss": 28.0}])
        >>> history["loss"], "rate" in history
        ([30.5, 28.0], False)
        >>> history[-1], [row["epoch"] for row in history]
        ({'epoch': 2, 'loss': 28.0}, [1, 2])
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[dict[str, float]] = [dict(row) for row in rows]

    @property
    def columns(self) -> list[str]:
        """The columns' names, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def __contains__(self, item: object) -> bool:
        return item in (self.columns if isinstance(item, str) else self.rows)

    @overload
    def __getitem__(self, key: str) -> list[float]: ...

    @overload
    def __getitem__(self, key: int) -> dict[str, float]: ...

    @overload
    def __getitem__(self, key: slice) -> History: ...

    def __getitem__(self, key: str | int | slice) -> list[float] | dict[str, float] | History:
        if isinstance(key, slice):
            return History(self.rows[key])
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.columns:
            raise KeyError(f"no column {key!r}; there are {', '.join(self.columns)}")
        return [row.get(key, math.nan) for row in self.rows]

    def __repr__(self) -> str:
        return f"History({len(self)} epochs: {', '.join(self.columns)})"

    def append(self, row: Row) -> None:
        """Adds a row."""
        self.rows.append(dict(row))

    def to_state(self) -> dict[str, Any]:
        """Returns the table as a checkpoint holds it: names, and float64 of shape (rows, columns).

        NaN stands where a row has no value.
        """
        values = [[row.get(name, math.nan) for name in self.columns] for row in self.rows]
        return {"columns": self.columns, "values": torch.tensor(values, dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> History:
        """Reads what `to_state` returned, to the same values."""
        try:
            names = state["columns"]
            return cls(
                {k: int(v) if k in WHOLE else v for k, v in zip(names, row, strict=True)}
                for row in state["values"].tolist()
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"the checkpoint's history is damaged: {error}") from error

    def to_csv(self, path: str | Path) -> None:
        """Writes the table; what it replaces stays until all is written."""
        with atomic_path(Path(path)) as scratch:
            scratch.write_text(self._text(), newline="")

    def _text(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def is_in_csv(self, path: Path) -> bool:
        """Returns whether a file holds this very table."""
        try:
            return path.read_text() == self._text()
        except (OSError, UnicodeDecodeError):
            return False

    def append_to_csv(self, path: Path) -> None:
        """Adds the last row to a file that holds the others, or writes the file if need be."""
        before, last = self.rows[-2:-1], list(self.rows[-1])
        if not before or last != list(before[0]) or last != self.columns or not path.exists():
            self.to_csv(path)
            return
        with writing(path), path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.rows[-1])

    @classmethod
    def from_csv(cls, path: str | Path) -> History:
        """Reads a table that `to_csv` wrote, to the same values."""
        try:
            with Path(path).open(newline="") as file:
                return cls(
                    {k: int(v) if k in WHOLE else float(v) for k, v in row.items()}
                    for row in csv.DictReader(file)
                    if None not in row.values()  # a last line that a crash cut short
                )
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise RunError(f"cannot read the history {path}: {error}") from error
