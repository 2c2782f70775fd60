"""Reads images from ``.npz`` files and from folders."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.data.dataset import RawImages, resize_images
from pyro_mivae.errors import DataError, PyroMivaeWarning

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = ("images", "labels", "factors", "factor_names")
SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff .webp".split())


def read_npz(path: Path) -> RawImages:
    """Reads ``images`` (N, H, W[, C]) and, if there, ``labels`` (N,) and ``factors`` (N, F).

    ``uint8`` counts from 0 to 255, or, where no value is above 1, is binary; floats lie in [0, 1].
    Labels are integers or strings; one and the same for all images are as good as none: dropped.
    Factors, of which each image was made, are integers; ``factor_names`` (F,) may name them. If
    ``factors`` is something else, a warning says so and it is left out. Further arrays are
    ignored.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read, or does not hold what is described above.
    """
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path} as an .npz file: {error}") from error
    pixels = _pixels(found["images"], path)
    codes, class_names = _labels(found.get("labels"), len(pixels), path)
    factors, factor_names = _factors(
        found.get("factors"), found.get("factor_names"), len(pixels), path
    )
    return RawImages(
        path.stem, pixels, codes, class_names, factors=factors, factor_names=factor_names
    )


def _pixels(images: np.ndarray[Any, Any], path: Path) -> Tensor:
    """Float images ``(N, C, H, W)`` of an array ``(N, H, W[, C])``."""
    where = f"'images' in {path}"
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{where} has shape {images.shape}; allowed is (N, H, W) or (N, H, W, C)")
    if len(images) == 0:
        raise DataError(f"{where} is empty; at least 2 images are needed")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DataError(
            f"{where} has shape {images.shape}, channels first; allowed is (N, H, W, C): "
            "transpose it with images.transpose(0, 2, 3, 1)"
        )
    if images.dtype == np.uint8:
        full = 255.0 if images.max() > 1 else 1.0
        pixels = torch.from_numpy(images).float().div_(full)
    elif images.dtype == np.bool_ or images.dtype.kind == "f":
        pixels = torch.from_numpy(images.astype(np.float32))
        _check_range(pixels, where)
    else:
        raise DataError(f"{where} has dtype {images.dtype}; allowed is uint8, or floats in [0, 1]")
    pixels = pixels[:, None] if images.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.contiguous()


def _check_range(pixels: Tensor, where: str) -> None:
    """Raises DataError on pixels that are not finite or not in [0, 1]."""
    bad = int((~pixels.isfinite()).sum())
    if bad:
        raise DataError(f"{where} has {bad} pixels that are NaN or infinite; remove or mend them")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise DataError(
            f"{where} has pixels from {low:g} to {high:g}; allowed are floats in [0, 1] "
            "(or uint8 from 0 to 255): rescale them"
        )


def _labels(
    labels: np.ndarray[Any, Any] | None, count: int, path: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as indices ``(N,)`` and their names; None where they tell nothing apart."""
    if labels is None:
        return None, ()
    where = f"'labels' in {path}"
    if labels.shape != (count,):
        raise DataError(f"{where} has shape {labels.shape}; allowed is ({count},), one per image")
    if labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels)):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biuUS":
        raise DataError(f"{where} has dtype {labels.dtype}; allowed are integers or strings")
    values, codes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        return None, ()
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return torch.from_numpy(codes.astype(np.int64)), tuple(names)


def _factors(
    factors: np.ndarray[Any, Any] | None,
    names: np.ndarray[Any, Any] | None,
    count: int,
    path: Path,
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Factors as indices ``(N, F)`` and their names; None where they are something else."""
    if factors is None:
        return None, ()
    whole = factors.dtype.kind in "biu" or (
        factors.dtype.kind == "f" and np.array_equal(factors, np.round(factors))
    )
    if not whole or factors.ndim != 2 or len(factors) != count or not factors.shape[1]:
        warnings.warn(
            f"'factors' in {path} has dtype {factors.dtype} and shape {factors.shape} and is left "
            f"out; read are integers of shape ({count}, F), one row per image",
            PyroMivaeWarning,
            stacklevel=3,
        )
        return None, ()
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    told = [f"factor_{index}" for index in range(factors.shape[1])]
    if names is not None and names.shape == (len(told),):
        told = [str(name) for name in names]
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64)), tuple(told)


def read_folder(path: Path, image_size: tuple[int, int] | None = None) -> RawImages:
    """Reads a folder of image files, or one sub-folder of them per label.

    Grey images stay grey; if any is in colour, all become RGB. Transparency is dropped.

    Args:
        path: The folder.
        image_size: Height and width to give every image; None if all have one size already.

    Raises:
        DataError: If it holds no images, images beside sub-folders of them, a file that cannot be
            read, or images of several sizes and no ``image_size``.
    """
    files = _images_in(path)
    classes = {d: _images_in(d) for d in sorted(_visible(path), key=_natural) if d.is_dir()}
    classes = {folder: found for folder, found in classes.items() if found}
    if files and classes:
        raise DataError(
            f"{path} holds both images and sub-folders of images ({next(iter(classes)).name}, "
            "...); allowed is one or the other"
        )
    paths = files or [file for found in classes.values() for file in found]
    if not paths:
        raise DataError(f"{path} holds no images; allowed are files ending in {_endings()}")
    images = _read_all(paths, image_size)
    if len(classes) < 2:
        return RawImages(path.resolve().name, images)
    counts = torch.tensor([len(found) for found in classes.values()])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    names = tuple(folder.name for folder in classes)
    return RawImages(path.resolve().name, images, labels, names)


def _visible(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def _images_in(folder: Path) -> list[Path]:
    found = [p for p in _visible(folder) if p.suffix.lower() in SUFFIXES and p.is_file()]
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[bool, int, str]:
    """Sorts numbers by value, before all other names."""
    stem = path.stem
    return (not stem.isdecimal(), int(stem) if stem.isdecimal() else 0, path.name)


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))


def _read_all(paths: list[Path], image_size: tuple[int, int] | None) -> Tensor:
    """All images as one tensor ``(N, C, H, W)``."""
    images = [_read_image(p) for p in paths]
    if image_size is not None:
        images = [resize_images(image[None], image_size)[0] for image in images]
    for image, p in zip(images, paths, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            sizes = [f"{i.shape[1]}x{i.shape[2]}" for i in (images[0], image)]
            raise DataError(
                f"images of several sizes: {paths[0].name} is {sizes[0]}, {p.name} is {sizes[1]}; "
                "give all of them one size with --image-size N or HxW"
            )
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _read_image(path: Path) -> Tensor:
    """One image, in [0, 1], shape ``(1 or 3, H, W)``."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            array, full = _to_array(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error
    pixels = torch.from_numpy(array.astype(np.float32)).div_(full).clamp_(0.0, 1.0)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _to_array(image: Image) -> tuple[np.ndarray[Any, Any], float]:
    """Pixels ``(H, W)`` or ``(H, W, 3)`` and the value of white."""
    if image.mode.startswith("I"):  # 16 bits, which PIL may widen to 32
        return np.asarray(image), 65535.0
    grey = image.mode in ("1", "L", "LA")
    return np.asarray(image.convert("L" if grey else "RGB")), 255.0
