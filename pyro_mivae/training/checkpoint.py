"""Checkpoints: plain tensors and numbers, read with ``weights_only=True``."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.errors import PyroMivaeWarning, RunError
from pyro_mivae.training.files import atomic_path

Checkpoint = dict[str, Any]
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
REMEDY = "; restore a copy, or train again"
Fields = dict[str, type | tuple[type, ...]]
FIELDS: Fields = {
    "weights": dict,
    "optimiser": dict,
    "objective": dict,
    "rng": dict,
    "shuffle": Tensor,
    "epoch": int,
    "step": int,
    "finished": bool,
    "asked": int,
    "best": (dict, type(None)),
    "moments": int,
    "history": list,
    "identity": dict,
}
BEST: Fields = {"loss": float, "epoch": int, "weights": dict, "schedules": dict}


def write_checkpoint(folder: Path, state: Checkpoint) -> None:
    """Writes a folder's checkpoint, and keeps the previous one."""
    write_archive(folder / CHECKPOINT, state, previous=folder / PREVIOUS)


def write_archive(path: Path, content: Mapping[str, Any], previous: Path | None = None) -> None:
    """Writes nested dictionaries and lists of tensors and plain values."""
    buffer = io.BytesIO()  # torch's own writer hides why a file cannot be written
    torch.save(content, buffer)
    # Not getbuffer(): a view that an error keeps alive crashes the collector of Python 3.12.1.
    with atomic_path(path, previous) as scratch:
        scratch.write_bytes(buffer.getvalue())


def has_checkpoint(folder: Path) -> bool:
    """Returns whether a folder holds a checkpoint, damaged or not."""
    return any(os.path.lexists(folder / name) for name in (CHECKPOINT, PREVIOUS))


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads a folder's checkpoint onto the CPU, without running code from it.

    If it is damaged or missing, the previous one replaces it, with a warning.
    """
    path, before = Path(folder) / CHECKPOINT, Path(folder) / PREVIOUS
    try:
        return _read_state(path)
    except RunError as error:
        try:
            state = _read_state(before)
        except RunError:
            raise error from None
        told = str(error).removesuffix(REMEDY)
        warnings.warn(
            f"{told}. The previous one, of epoch {state['epoch']}, takes its place; resuming "
            "trains the rest again",
            PyroMivaeWarning,
            stacklevel=2,
        )
        return state


def kept_weights(state: Checkpoint) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint, or those of the best epoch with early stopping."""
    return (state["best"] or state)["weights"]


def _read_state(path: Path) -> Checkpoint:
    state = read_archive(path)
    _check_fields(path, state, FIELDS)
    if state["best"] is not None:
        _check_fields(path, state["best"], BEST)
    for row in state["history"]:
        _check_fields(path, {"a row of the history": row}, {"a row of the history": dict})
    return {**state, "file": path}


def _check_fields(path: Path, values: Mapping[str, Any], fields: Fields) -> None:
    for name, kinds in fields.items():
        if name not in values or not isinstance(values[name], kinds):
            what = type(values[name]).__name__ if name in values else "missing"
            raise RunError(
                f"{path} is not a checkpoint, or is from another version of pyro-mivae: {name!r} "
                f"is {what}{REMEDY}"
            )


def read_archive(path: Path) -> Checkpoint:
    """Reads a file of `write_archive` onto the CPU, without running code from it."""
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            with zipfile.ZipFile(file) as archive:
                wrong = archive.testzip()  # torch.load does not look at the checksums
            if wrong is None:
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile and torch raise a dozen kinds on damaged files
        raise RunError(
            f"cannot read {path}: it is damaged, or holds more than plain tensors{REMEDY}"
        ) from error
    if wrong is not None:
        raise RunError(
            f"cannot read {path}: it is damaged (the checksum of {wrong} is wrong){REMEDY}"
        )
    if not isinstance(content, dict):
        raise RunError(
            f"{path} holds a {type(content).__name__}, which pyro-mivae does not write{REMEDY}"
        )
    return content
