"""Images, labels and factors from ``.npz`` files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data.dataset import RawImages, in_range, told
from pyro_mivae.errors import DataError, PyroMivaeWarning

ARRAYS = ("images", "labels", "factors", "factor_names")
Array = np.ndarray[Any, Any]


@checked(path=a_path())
def read_npz(path: str | Path) -> RawImages:
    """Reads ``images`` (N, H, W[, C]) and, if there, ``labels`` (N,) and ``factors`` (N, F).

    ``uint8`` counts from 0 to 255, or, where no value is above 1, is binary; floats lie in [0, 1].
    Labels are integers or strings; labels that are all the same are dropped. Factors, of which
    each image was made, are integers; ``factor_names`` (F,) may name them. A warning says so if
    ``factors`` is something else and is left out. Further arrays are ignored.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read, or does not hold what is described above.
    """
    path = Path(path)
    found = _arrays(path)
    images = _pixels(found["images"], f"'images' in {path}")
    count = len(images)
    labels, class_names = _labels(found.get("labels"), count, f"'labels' in {path}")
    factors, names = _factors(found.get("factors"), found.get("factor_names"), count, path)
    return RawImages(path.stem, images, labels, class_names, factors=factors, factor_names=names)


def _arrays(path: Path) -> dict[str, Array]:
    """Reads the arrays of a file that are used; a damaged file fails in many ways."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array; allowed is an .npz with 'images'")
            if "images" not in archive:
                names = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} holds {names}, but no array named 'images'")
            found = {name: archive[name] for name in ARRAYS if name in archive}
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {path} as an .npz file: {told(error)}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"cannot read {path} as an .npz file: its {name!r} is no array")
    return found


def _pixels(images: Array, where: str) -> Tensor:
    """Float images ``(N, C, H, W)`` of an array ``(N, H, W[, C])``."""
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{where} has shape {images.shape}; allowed is (N, H, W) or (N, H, W, C)")
    if len(images) == 0:
        raise DataError(f"{where} is empty; at least 2 images are needed")
    if images.ndim == 4 and not _channels_last(*images.shape[1:]):
        raise DataError(
            f"{where} has shape {images.shape}, in which the last axis cannot be told to be the "
            "channels; allowed is (N, H, W, C) with fewer channels than rows and columns. Where "
            "channels come first, save np.moveaxis(images, 1, -1); where they are last, give fit "
            "the tensor (N, C, H, W) itself"
        )
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
    if images.dtype == np.uint8:
        full = 255.0 if images.max() > 1 else 1.0
        return torch.from_numpy(images.astype(np.float32, order="C")).div_(full)
    if images.dtype == np.bool_ or images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            pixels = images.astype(np.float32, order="C", copy=False)
        return in_range(torch.from_numpy(pixels), where)
    raise DataError(f"{where} has dtype {images.dtype}; allowed is uint8, or floats in [0, 1]")


def _channels_last(first: int, second: int, last: int) -> bool:
    """Returns True if the last of three axes is surely that of the channels."""
    return last == 1 or last < min(first, second) or last <= 4 < first


def _labels(labels: Array | None, count: int, where: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as indices ``(N,)`` and their names; None where they tell nothing apart."""
    if labels is None:
        return None, ()
    if labels.shape != (count,):
        raise DataError(f"{where} has shape {labels.shape}; allowed is ({count},), one per image")
    if labels.dtype.kind not in "USbiu" and not _whole(labels):
        raise DataError(f"{where} has dtype {labels.dtype}; allowed are integers or strings")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int64)
    values, codes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        return None, ()
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return torch.from_numpy(codes.astype(np.int64)), tuple(names)


def _whole(values: Array) -> bool:
    """Returns True for integers, and for floats that are exact whole numbers."""
    if values.dtype.kind != "f":
        return values.dtype.kind in "biu"
    return np.array_equal(values, np.round(values)) and bool((np.abs(values) < 2**53).all())


def _factors(
    factors: Array | None, names: Array | None, count: int, path: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Factors as indices ``(N, F)`` and their names; None where they are something else."""
    if factors is None:
        return None, ()
    if not _whole(factors) or factors.ndim != 2 or len(factors) != count or not factors.shape[1]:
        warnings.warn(
            f"'factors' in {path} has dtype {factors.dtype} and shape {factors.shape} and is left "
            f"out; read are integers of shape ({count}, F), one row per image",
            PyroMivaeWarning,
            stacklevel=3,
        )
        return None, ()
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    told = tuple(f"factor_{index}" for index in range(factors.shape[1]))
    if names is not None and names.shape == (len(told),):
        told = tuple(map(str, names))
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64)), told
