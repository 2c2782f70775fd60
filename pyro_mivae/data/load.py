"""Data sets by name or by path."""

from __future__ import annotations

import gzip
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data.arrays import read_csv, read_given, read_npy
from pyro_mivae.data.binarize import PROTOCOLS, settled_pixels, training_pixels
from pyro_mivae.data.dataset import (
    SEED,
    Dataset,
    RawImages,
    image_sides,
    resize_images,
    split_indices,
    told,
)
from pyro_mivae.data.files import read_folder, read_npz
from pyro_mivae.data.sprites import draw_sprites
from pyro_mivae.errors import DataError, nearest

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
REMEDY = "restore the original files, or give an empty root= to download them"
ALIKE = {"MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST"}
"""Sets whose files have the same names: the folder of one is never read as the other."""


def default_root() -> Path:
    """Default folder of torchvision's data sets, for reading and downloading."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PYRO_MIVAE_DATA") or Path(cache) / "pyro_mivae")


@checked(
    name_or_path=a_path(),
    root=a_path(),
    image_size=image_sides(),
    seed=SEED,
    binarize=choice(*PROTOCOLS),
    given=a_path(),
)
def load_dataset(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    binarize: str = "none",
    given: str | Path | None = None,
) -> Dataset:
    """Loads images as tensors in [0, 1], or other data as they are, with a test part.

    Data without a test set of its own is split once, 80/20, stratified by label.

    Args:
        name_or_path: One of :data:`DATASETS`, a folder of images (see :func:`read_folder`), an
            ``.npz`` file of images or data (see :func:`read_npz`), or rows of numbers, counts and
            series of an ``.npy`` or ``.csv`` file (see `read_npy`, `read_csv`).
        root: Folder of torchvision's data sets, or of one of them, ``default_root`` if
            omitted. It holds IDX files, compressed (``.gz``) or not. Missing data sets are
            downloaded; existing files are never changed.
        image_size: Height and width to resize to; one number for both. None keeps the size.
        seed: Seed of the split, which is not that of a training run.
        binarize: Protocol that makes the pixels 0 or 1, see `binarize`. ``"fixed"`` draws the
            training images by seed 0, the test images by seed 1. ``"dynamic"`` draws the test
            images in the same way and leaves the training images grey for ``fit(binarize=)``.
        given: File with the condition of each datum, split with the data, see `read_given`.

    Raises:
        DataError: If there is no such data set, if it cannot be read, or has fewer than 2 images.
        OptionError: If a path is empty, ``image_size`` or ``seed`` out of range, or there is no
            such protocol.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.x_train.shape, digits.x_test.shape
        (torch.Size([1438, 1, 8, 8]), torch.Size([359, 1, 8, 8]))
    """
    raw = read_images(name_or_path, root=root, image_size=image_size)
    train: Tensor | slice = slice(raw.num_train)
    test: Tensor | slice = slice(raw.num_train, None)
    if raw.num_train is None:
        train, test = split_indices(len(raw.images), raw.labels, seed=seed)
    y, factors = raw.labels, raw.factors
    u = None if given is None else read_given(given, len(raw.images))
    return Dataset(
        raw.name,
        training_pixels(raw.images[train], binarize),
        None if y is None else y[train],
        settled_pixels(raw.images[test], binarize),
        None if y is None else y[test],
        raw.class_names,
        None if factors is None else factors[train],
        None if factors is None else factors[test],
        raw.factor_names,
        binarize,
        raw.column_names,
        None if u is None else u[train],
        None if u is None else u[test],
    )


@checked(name_or_path=a_path(), root=a_path(), image_size=image_sides())
def read_images(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> RawImages:
    """Reads all images of a data set, in order, unsplit (a built-in's training images come first).

    Arguments and errors are those of :func:`load_dataset`.
    """
    name, path = str(name_or_path), Path(name_or_path)
    allowed = f"{', '.join(DATASETS)}, a file ({', '.join(READERS)}), or a folder of images"
    if name in DATASETS:
        raw = DATASETS[name](Path(root) if root is not None else default_root())
    elif os.path.isdir(path):
        return read_folder(path, image_size)
    elif os.path.isfile(path):
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path} is not a {' or '.join(READERS)} file; allowed is {allowed}")
        raw = reader(path)
    else:
        hint = nearest(name, DATASETS)
        raise DataError(f"no data set, file or folder {name!r}{hint}; allowed is {allowed}")
    if image_size is None:
        return raw
    if raw.images.dim() != 4 or not 0 <= raw.images.min() <= raw.images.max() <= 1:
        shape = tuple(raw.images.shape[1:])
        raise DataError(
            f"image_size={image_size}: {name} holds no images in [0, 1], but data of shape "
            f"{shape}; leave image_size out"
        )
    return replace(raw, images=resize_images(raw.images, image_size))


def _digits(root: Path) -> RawImages:
    """1,797 handwritten digits of 8×8 pixels, shipped with scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div_(16.0)[:, None]
    labels = torch.from_numpy(digits.target).long()
    return RawImages("digits", images, labels, tuple("0123456789"))


def _mnist(root: Path) -> RawImages:
    """70,000 handwritten digits of 28×28 pixels."""
    return _torchvision("mnist", "MNIST", root)


def _fashion_mnist(root: Path) -> RawImages:
    """70,000 grey images of clothes, 28×28 pixels."""
    return _torchvision("fashion-mnist", "FashionMNIST", root)


def _sprites(root: Path) -> RawImages:
    """18,000 drawn sprites of 32×32 pixels: known shape, scale, rotation and position."""
    return draw_sprites()


def _torchvision(name: str, class_name: str, root: Path) -> RawImages:
    """A set with the files and classes of torchvision's MNIST, downloaded if missing."""
    import torchvision.datasets

    dataset_class = getattr(torchvision.datasets, class_name)
    folders = [root / class_name / "raw", root / class_name]
    if not {root.name, root.parent.name} & (ALIKE - {class_name}):
        folders += [root / "raw", root]
    if any(find_idx(folders, file) is None for file in IDX_FILES):
        _download(name, dataset_class, root)
    paths = [find_idx(folders, file) for file in IDX_FILES]
    if None in paths:
        raise DataError(f"{name} under {root} lacks {IDX_FILES[paths.index(None)]}; {REMEDY}")
    train, y_train, test, y_test = (
        read_idx(path, dims) for path, dims in zip(paths, (3, 1, 3, 1)) if path is not None
    )
    if not len(train) == len(y_train) or not len(test) == len(y_test):
        raise DataError(f"{name} under {root} has unequal numbers of labels and images; {REMEDY}")
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{name} under {root} has training and test images of different sizes; {REMEDY}"
        )
    names = tuple(c.split(" - ")[0] for c in dataset_class.classes)
    if max(int(y_train.max()), int(y_test.max())) >= len(names):
        raise DataError(f"{name} under {root} has labels above {len(names) - 1}; {REMEDY}")
    images = torch.cat([train, test]).float().div_(255.0)[:, None]
    labels = torch.cat([y_train, y_test]).long()
    return RawImages(name, images, labels, names, num_train=len(train))


def find_idx(folders: Sequence[Path], name: str) -> Path | None:
    """Finds an IDX file, plain or compressed."""
    places = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    return next((path for path in places if path.is_file()), None)


def read_idx(path: Path, dims: int) -> Tensor:
    """Reads an IDX file of bytes, and never more than its header declares."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(4 + 4 * dims)
            shape = [int(n) for n in np.frombuffer(header[4:], ">u4", -1)]
            content = bytearray(file.read(math.prod(shape) + 1))
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"cannot read {path}: {told(error)}") from error
    begins = bytes([0, 0, 8, dims])  # of unsigned bytes
    if header[:4] != begins or len(shape) != dims or not 0 < math.prod(shape) == len(content):
        raise DataError(
            f"cannot read {path}: it is not an IDX file of bytes in {dims} dimension(s), or cut "
            f"short; {REMEDY}"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _download(name: str, dataset_class: Callable[..., Any], root: Path) -> None:
    """Downloads to a scratch folder first: a data set never has partial files."""
    files = root / dataset_class.__name__ / "raw"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            loaded = Path(dataset_class(scratch, download=True).raw_folder)
            files.mkdir(parents=True, exist_ok=True)
            for file in loaded.glob("*-ubyte"):
                part = shutil.copy(file, files / f".{file.name}")
                os.replace(part, files / file.name)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} is not under {root} and could not be downloaded; "
            f"give its folder with root= ({str(error).splitlines()[0].rstrip(':')})"
        ) from error


READERS: dict[str, Callable[[Path], RawImages]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".csv": read_csv,
}
"""Readers of files by suffix."""

DATASETS: dict[str, Callable[[Path], RawImages]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "sprites": _sprites,
}
"""The built-in data sets by name; each reads its images, given torchvision's root folder."""
