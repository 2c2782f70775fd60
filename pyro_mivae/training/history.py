"""The record of a training run: a row per epoch with the means of its steps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, overload

import torch
from torch import Tensor

from pyro_mivae.errors import RunError, TrainingError
from pyro_mivae.training.files import write_file, writing

Row = Mapping[str, float]
WHOLE = ("epoch", "step")


class History:
    """A table with a row per epoch.

    Its columns are ``epoch`` and ``step`` (both counted from 1, at the epoch's end), ``seconds``,
    ``lr`` (of the last step), every entry of the objective's ledger as a mean over the images
    (nats per datum: ``loss``, ``elbo``, ``distortion``, ``rate``, ``kl_<site>``, ``mi_...``; the
    weight of a `Target` as ``weight_kl_<site>``), and the same with ``val_`` before it on held-out
    images.

    It is a sequence of rows: ``history[-1]`` is the last one, ``history[-5:]`` a history of the
    last five. ``history[name]`` is a column, with NaN for missing values.

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

    def to_csv(self, path: str | Path) -> None:
        """Writes the table atomically."""
        write_file(Path(path), self._text())

    def _text(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def is_in_csv(self, path: Path) -> bool:
        """Returns True if a file holds exactly this table."""
        try:
            return path.read_text() == self._text()
        except (OSError, UnicodeDecodeError):
            return False

    def append_to_csv(self, path: Path) -> None:
        """Appends the last row to a file with the others, or writes the whole file."""
        before, last = self.rows[-2:-1], list(self.rows[-1])
        if not before or last != list(before[0]) or last != self.columns or not path.exists():
            self.to_csv(path)
            return
        with writing(path), path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.rows[-1])

    @classmethod
    def from_csv(cls, path: str | Path) -> History:
        """Reads a table of `to_csv`, with exactly the same values."""
        try:
            with Path(path).open(newline="") as file:
                return cls(
                    {k: int(v) if k in WHOLE else float(v) for k, v in row.items()}
                    for row in csv.DictReader(file)
                    if None not in row.values()  # a last line that a crash cut short
                )
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise RunError(f"cannot read the history {path}: {error}") from error


class Meter:
    """Collects an objective's ledgers; returns their mean per datum with one synchronisation."""

    def __init__(self, first_step: int = 1) -> None:
        self._keys: tuple[str, ...] = ()
        self._values: list[Tensor] = []
        self._first_step = first_step
        self._count = 0

    def add(self, keys: tuple[str, ...], values: Tensor, count: int) -> None:
        """Adds the ledger of a batch, or of several."""
        self._keys = keys
        self._values.append(values.view(-1, len(keys)))
        self._count += count

    def means(self, *, finite: bool = True) -> dict[str, float]:
        """Returns each entry's mean per datum; ``finite`` raises if a loss is not."""
        values = torch.cat(self._values).double().cpu()  # (steps, entries)
        bad = (~values[:, self._keys.index("loss")].isfinite()).nonzero()
        if finite and len(bad):
            self._raise(values[: int(bad[0]) + 1])
        return dict(zip(self._keys, (values.sum(0) / self._count).tolist(), strict=True))

    def _raise(self, values: Tensor) -> NoReturn:
        """Raises an error that names the broken entries, with values of the step before."""
        *before, now = values.unbind()
        defined = values[:-1].isfinite().all(0).tolist()
        broken = [
            f"{key} = {value:g}"
            for key, value, was in zip(self._keys, now.tolist(), defined, strict=True)
            if was and not math.isfinite(value)
        ]
        told = ", ".join(broken)
        if before and len(broken) == sum(defined):
            typical = values[:-1].abs().nanmedian(0).values.clamp(min=1.0)
            key = int((before[-1].abs() / typical).nan_to_num(0.0).argmax())
            told += f"; the step before had {self._keys[key]} = {before[-1][key]:g}"
            told += f", typically {values[:-1, key].nanmedian():g}"
        raise TrainingError(
            f"the loss is not finite at step {self._first_step + len(values) - 1} ({told}); try "
            "a lower learning rate, gradient clipping, or a smaller weight of the named term"
        )
