"""Images from ``.npz`` files and from folders: each format is read correctly, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data.arrays import plain_values
from pyro_mivae.data.dataset import (
    RawImages,
    image_sides,
    in_range,
    indexed_labels,
    is_whole,
    resize_images,
    told,
)
from pyro_mivae.errors import DataError, PyroMivaeWarning

Array = np.ndarray[Any, Any]
ARRAYS = ("images", "data", "labels", "factors", "factor_names")
SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff .webp".split())
STACKS = ("TIFF", "GIF", "WEBP", "PNG")
"""Formats in which every frame is an image; further frames of a JPEG are previews."""

TWELVE_BITS = 4095
SUBFILE_TYPE, REDUCED = 254, 1  # a TIFF's page that is a thumbnail of another


@checked(path=a_path())
def read_npz(path: str | Path) -> RawImages:
    """Reads ``images`` (N, H, W[, C]) or ``data`` (N, ...), and optional labels and factors.

    Images of ``uint8`` range from 0 to 255, or are binary if no value is above 1; floats lie in
    [0, 1]. Without ``images``, ``data`` of any kind, ``(N, d)`` or ``(N, channels, length)``, are
    kept as they are. ``labels`` (N,) are integers or strings; they are dropped if all are equal.
    ``factors`` (N, F), from which each datum was made, are integers; ``factor_names`` (F,) may
    name them. Any other ``factors`` are dropped with a warning. Further arrays are ignored.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read, or does not hold what is described above.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = tempfile.mkdtemp() + "/few.npz"
        >>> np.savez(path, images=np.zeros((3, 8, 8), dtype="uint8"))
        >>> read_npz(path).images.shape
        torch.Size([3, 1, 8, 8])
    """
    path = Path(path)
    found = _arrays(path)
    if "images" in found:
        images = _pixels(found["images"], f"'images' in {path}")
    else:
        images = plain_values(found["data"], f"'data' in {path}")
    count = len(images)
    labels, class_names = indexed_labels(found.get("labels"), count, f"'labels' in {path}")
    factors, names = _factors(found.get("factors"), found.get("factor_names"), count, path)
    return RawImages(path.stem, images, labels, class_names, factors=factors, factor_names=names)


def _arrays(path: Path) -> dict[str, Array]:
    """Reads the needed arrays of a file; a damaged file fails in many ways."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path} holds a single array; allowed is an .npz with 'images' or 'data'; "
                    "name a single array .npy"
                )
            if not {"images", "data"} & set(archive.files):
                names = ", ".join(archive.files) or "nothing"
                raise DataError(
                    f"{path} holds {names}, but no array named 'images' or 'data'; rename the data"
                )
            found = {name: archive[name] for name in ARRAYS if name in archive}
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {path} as an .npz file: {told(error)}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"cannot read {path} as an .npz file: its {name!r} is not an array")
    return found


def _pixels(images: Array, where: str) -> Tensor:
    """Float images ``(N, C, H, W)`` of an array ``(N, H, W[, C])``."""
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{where} has shape {images.shape}; allowed is (N, H, W) or (N, H, W, C)")
    if len(images) == 0:
        raise DataError(f"{where} is empty; at least 2 images are needed")
    if images.ndim == 4 and not _channels_last(*images.shape[1:]):
        raise DataError(
            f"{where} has shape {images.shape}, in which the axis of the channels is unclear; "
            "allowed is (N, H, W, C) with fewer channels than rows and columns. If channels "
            "come first, save np.moveaxis(images, 1, -1); if they are last, give fit the tensor "
            "(N, C, H, W) itself"
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
    """Returns True if the last of three axes must be that of the channels."""
    return last == 1 or last < min(first, second) or last <= 4 < first


def _factors(
    factors: Array | None, names: Array | None, count: int, path: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Factors as indices ``(N, F)`` and their names; None for other arrays."""
    if factors is None:
        return None, ()
    if not is_whole(factors) or factors.ndim != 2 or len(factors) != count or not factors.shape[1]:
        warnings.warn(
            f"'factors' in {path} has dtype {factors.dtype} and shape {factors.shape} and is "
            f"left out; allowed are integers of shape ({count}, F), one row per image",
            PyroMivaeWarning,
            stacklevel=3,
        )
        return None, ()
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    told = tuple(f"factor_{index}" for index in range(factors.shape[1]))
    if names is not None and names.shape == (len(told),):
        told = tuple(map(str, names))
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64)), told


@checked(path=a_path(), image_size=image_sides())
def read_folder(path: str | Path, image_size: int | tuple[int, int] | None = None) -> RawImages:
    """Reads a folder of image files, or one sub-folder of them per label.

    Grey images stay grey, also with a palette; if any is in colour, all become RGB. Images are
    rotated upright by their EXIF data. Every frame of a stack or an animation is an image. White
    is 255 for 8 bits, 65535 for 16 bits, and 1 for floats.

    Args:
        path: The folder.
        image_size: New height and width of every image, or one number for both; None if all have
            the same size.

    Raises:
        DataError: If it holds no images, both images and sub-folders of images, or images of
            several sizes without ``image_size``; or if a file cannot be read, or its white is
            unknown: transparent pixels, 32-bit integers, floats outside [0, 1], or 16-bit images
            that use at most 12 bits.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("L", (8, 8)).save(folder / "one.png")
        >>> read_folder(folder).images.shape
        torch.Size([1, 1, 8, 8])
    """
    path = Path(path)
    files = _images_in(path)
    folders = sorted((p for p in _visible(path) if p.is_dir()), key=_natural)
    classes = {folder: found for folder in folders if (found := _images_in(folder))}
    if files and classes:
        raise DataError(
            f"{path} holds both images and sub-folders of images ({next(iter(classes)).name}, "
            "...); allowed is one or the other"
        )
    paths = files or [file for found in classes.values() for file in found]
    if not paths:
        allowed = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{path} holds no images; allowed are files ending in {allowed}")
    images, counts = _read_all(paths, image_size)
    if len(classes) < 2:
        return RawImages(path.resolve().name, images)
    numbers = [number for number, found in enumerate(classes.values()) for _ in found]
    labels = torch.tensor(numbers).repeat_interleave(torch.tensor(counts))
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
    """Sort key: numbers by value, before all other names."""
    stem = path.stem
    return (not stem.isdecimal(), int(stem) if stem.isdecimal() else 0, path.name)


def _read_all(
    paths: list[Path], image_size: int | tuple[int, int] | None
) -> tuple[Tensor, list[int]]:
    """All images as one tensor ``(N, C, H, W)``, and their number in each file."""
    images: list[Tensor] = []
    counts, most = [], []
    for path in paths:
        before = len(images)
        for image, largest in read_image_file(path):
            sized = image if image_size is None else resize_images(image[None], image_size)[0]
            images.append(sized)
            most += [largest] if largest else []
            del image  # of full size, before the next one is read
            if sized.shape[1:] != images[0].shape[1:]:
                sizes = [f"{i.shape[1]}x{i.shape[2]}" for i in (images[0], sized)]
                raise DataError(
                    f"images of several sizes: {paths[0].name} is {sizes[0]}, {path.name} is "
                    f"{sizes[1]}; give all of them one size with image_size="
                )
        if len(images) == before:
            raise DataError(f"{path} holds only thumbnails; remove it")
        counts.append(len(images) - before)
    if most and max(most) <= TWELVE_BITS:
        raise DataError(
            f"the images of 16 bits in {paths[0].parent} have no value above {max(most)}: they "
            "may hold 12 bits or fewer, of which white is not known; rescale them to 65535, or "
            "save 8 bits"
        )
    channels = max(image.shape[0] for image in images)
    together = torch.empty(len(images), channels, *images[0].shape[1:])
    for index in reversed(range(len(images))):
        together[index] = images.pop()  # whose memory is free again
    return together, counts


def read_image_file(path: Path) -> Iterator[tuple[Tensor, int]]:
    """Yields the image of a file, or all frames of a stack or an animation."""
    from PIL import Image

    with _reading(path), Image.open(path) as file:
        count = getattr(file, "n_frames", 1) if file.format in STACKS else 1
        for index in range(count):
            file.seek(index)
            kind = int(getattr(file, "tag_v2", {}).get(SUBFILE_TYPE, 0))
            read = [] if count > 1 and kind & REDUCED else [_read_frame(file, path)]
            while read:  # and keep nothing of it
                yield read.pop()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Names the image that cannot be read: decoders fail in many ways on damaged files."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the limit "
            "PIL.Image.MAX_IMAGE_PIXELS against files that fill the memory; make it smaller first"
        ) from error
    except Exception as error:
        raise DataError(f"cannot read the image {path}: {told(error)}") from error


def _read_frame(frame: Any, path: Path) -> tuple[Tensor, int]:
    """Reads pixels ``(C, H, W)``, and the largest 16-bit value, or 0."""
    from PIL import ImageOps

    kind, most = frame.format, 0  # which the upright copy does not know
    frame = ImageOps.exif_transpose(frame)
    if frame.mode == "F":
        pixels = in_range(torch.from_numpy(np.array(frame, np.float32)), str(path))
    elif frame.mode.startswith("I"):
        array = np.asarray(frame)
        # A TIFF of unsigned 16 bits has the mode I;16; as I, PIL reads wider or signed integers.
        if frame.mode == "I" and kind == "TIFF":
            raise DataError(
                f"{path} holds integers of 32 bits, or signed ones, from {array.min()} to "
                f"{array.max()}, whose white is not known; save it as 8 or unsigned 16 bits, or "
                "as floats in [0, 1]"
            )
        most = int(array.max())
        pixels = torch.from_numpy(array.astype(np.float32)).div_(65535.0)
    else:
        pixels = torch.from_numpy(_bytes(frame, path, kind).astype(np.float32)).div_(255.0)
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)), most


def _bytes(frame: Any, path: Path, kind: str) -> Array:
    """Bytes ``(H, W)`` of a grey image (also with a grey palette), else ``(H, W, 3)``."""
    if frame.has_transparency_data and np.asarray(frame.convert("RGBA"))[..., 3].min() < 255:
        raise DataError(
            f"{path} has transparent pixels, whose colour depends on what lies behind; put it on "
            "a background first"
        )
    if frame.mode in ("1", "L", "LA"):
        return np.asarray(frame.convert("L"))
    array = np.asarray(frame.convert("RGB"))
    of_palette = frame.mode in ("P", "PA") or kind == "GIF"
    return array[..., 0] if of_palette and (array == array[..., :1]).all() else array
