"""Data of any kind from ``.npy`` and ``.csv`` files, and from ``data`` of an ``.npz`` file.

Rows of numbers, counts, series: values are kept as they are, as float32.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, whole
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data.dataset import RawImages, indexed_labels, told
from pyro_mivae.errors import DataError

Array = np.ndarray[Any, Any]
LARGEST = float(np.finfo(np.float32).max)
LABELS = ("label", "labels")
"""Names of a column of labels."""


@checked(path=a_path())
def read_npy(path: str | Path) -> RawImages:
    """Reads one array of numbers: ``(N, d)``, ``(N, channels, length)``, or another shape.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read, or is not such an array of finite numbers.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = tempfile.mkdtemp() + "/few.npy"
        >>> np.save(path, np.zeros((3, 4)))
        >>> read_npy(path).images.shape
        torch.Size([3, 4])
    """
    path = Path(path)
    return RawImages(path.stem, plain_values(_array(path), f"the array in {path}"))


def _array(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"cannot read {path} as an .npy file: {told(error)}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays; name it .npz, with 'data' or 'images'")
    return array


@checked(path=a_path(), count=whole())
def read_given(path: str | Path, count: int | None = None) -> Tensor:
    r"""Reads the condition of each datum from an ``.npy`` or ``.csv`` file.

    Integers ``(N,)`` of an ``.npy`` file, and a ``.csv`` of one column with the header ``label``,
    are labels from 0. Everything else is numbers, see `read_npy` and `read_csv`.

    Args:
        path: The file; its rows are in the order of the data.
        count: Number of data, if it is known.

    Returns:
        Numbers, float32 ``(N, *given_shape)``, or labels, int64 ``(N,)``.

    Raises:
        DataError: If it cannot be read, or does not hold one condition for each datum.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "given.csv"
        >>> _ = path.write_text("label\n0\n2\n1\n")
        >>> read_given(path)
        tensor([0, 2, 1])
    """
    path = Path(path)
    if not path.is_file() or path.suffix.lower() not in (".npy", ".csv"):
        raise DataError(f"given={path}: no such .npy or .csv file; give one with a row per datum")
    if path.suffix.lower() == ".npy":
        values = _array(path)
    elif _are_labels(rows := [row for _, row in _rows(path)]):
        values = _whole_numbers(np.array([row[0].strip() for row in rows[1:]]))
    else:
        raw = read_csv(path)
        if raw.labels is not None:
            raise DataError(
                f"given={path} holds labels beside numbers; give the labels alone, or a column of "
                "0 and 1 for each class"
            )
        values = raw.images.numpy()
    is_labels = values.ndim == 1 and values.dtype.kind in "biuUS"
    if is_labels and (values.dtype.kind in "US" or (len(values) and values.min() < 0)):
        raise DataError(f"the labels of given={path} are not all integers from 0; number them")
    if count not in (None, len(values)):
        raise DataError(
            f"given={path} holds {len(values):,} conditions for {count:,} data; give a row for "
            "each datum, in the order of the data"
        )
    if is_labels:
        return torch.from_numpy(values.astype(np.int64))
    return plain_values(values, f"the array in {path}")


def plain_values(array: Array, where: str) -> Tensor:
    """Returns numbers as they are, as float32; refuses others."""
    if array.ndim < 2 or 0 in array.shape:
        hint = "; give values.reshape(-1, 1) for one number per datum" if array.ndim == 1 else ""
        raise DataError(f"{where} has shape {array.shape}; allowed is (N, *data_shape){hint}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} has dtype {array.dtype}; allowed are real numbers")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, order="C", copy=False)
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise DataError(
            f"{where} holds {array[place]} at {list(place)}; allowed are finite numbers of "
            "float32: fill or remove such values"
        )
    return torch.from_numpy(np.require(values, requirements="W"))


@checked(path=a_path())
def read_csv(path: str | Path) -> RawImages:
    r"""Reads a table: a row per datum, a column per number, separated by commas.

    The first line is a header if one of its cells is not a number. A column whose header is
    ``label`` or ``labels`` holds labels, numbers or texts; every other column is data.

    Args:
        path: The file.

    Returns:
        Data of shape ``(N, columns)``, with the names of the columns if there is a header.

    Raises:
        DataError: If it cannot be read; for a malformed file the message names line and column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "few.csv"
        >>> _ = path.write_text("a,b,label\n1,2,0\n3,4,1\n")
        >>> read_csv(path).images.shape, read_csv(path).class_names, read_csv(path).column_names
        (torch.Size([2, 2]), ('0', '1'), ('a', 'b'))
    """
    path = Path(path)
    line, first = next(_rows(path), (0, []))
    header = first if any(not _is_number(cell) for cell in first) else []
    names = [cell.strip() for cell in header]
    column = next((i for i, name in enumerate(names) if name.lower() in LABELS), None)
    texts: dict[str, int] = {}
    converters: Any = (
        {} if column is None else {column: lambda text: texts.setdefault(text.strip(), len(texts))}
    )
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            table = np.loadtxt(
                path,
                delimiter=",",
                skiprows=line if header else 0,
                ndmin=2,
                comments=None,
                quotechar='"',
                converters=converters,
                encoding="utf-8-sig",
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(table.astype(np.float32)).all()
        if table.size and not (finite and table.shape[1] == len(first)):
            raise ValueError("a number is not finite, or a column is missing")
    except (ValueError, OverflowError, OSError, RuntimeError) as error:
        raise DataError(_fault(path, names, column) or f"cannot read {path}: {told(error)}") from (
            error
        )
    values = table if column is None or not table.size else np.delete(table, column, axis=1)
    if not values.size:
        raise DataError(f"{path} holds no data; give a row of numbers per datum")
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    if column is not None:
        found = np.array(list(texts))[table[:, column].astype(np.int64)]
        where = f"the column {names[column]!r} of {path}"
        labels, class_names = indexed_labels(_whole_numbers(found), len(values), where)
    columns = tuple(name for index, name in enumerate(names) if index != column)
    images = plain_values(values, str(path))
    return RawImages(path.stem, images, labels, class_names, column_names=columns)


def _are_labels(rows: list[list[str]]) -> bool:
    """True for one column with the header of labels."""
    return {len(row) for row in rows} == {1} and rows[0][0].strip().lower() in LABELS


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a .csv file: {told(error)}") from error


def _fault(path: Path, names: list[str], column: int | None) -> str:
    """Describes the first invalid cell of a table."""
    width, header = 0, bool(names)
    for line, row in _rows(path):
        width = width or len(row)
        hint = ""
        if len(row) == 1 and any(mark in row[0] for mark in ";\t"):
            hint = "; separate the columns by commas"
        if len(row) != width:
            return f"{path}, line {line}: {len(row)} columns, {width} in the first line{hint}"
        for index, cell in enumerate(row):
            if header or index == column or _is_number(cell):
                continue
            name = f" ({names[index]!r})" if names else ""
            return (
                f"{path}, line {line}, column {index + 1}{name}: {cell!r} is not a finite "
                f"number of float32{hint}"
            )
        header = False
    return ""


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def _whole_numbers(texts: Array) -> Array:
    """Converts texts to integers if all are whole numbers, so that 10 comes after 9."""
    try:
        return texts.astype(np.int64)
    except ValueError:
        return texts
