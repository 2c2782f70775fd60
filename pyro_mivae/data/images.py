"""Image files as tensors: every kind is read right, or refused with the file's name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.data.dataset import told
from pyro_mivae.errors import DataError
from pyro_mivae.inputs import clamp_rounding

STACKS = ("TIFF", "GIF", "WEBP", "PNG")
"""Formats whose further frames are images; those of a JPEG are previews."""

TWELVE_BITS = 4095
SUBFILE_TYPE, REDUCED = 254, 1  # a TIFF's page that is a thumbnail of another


def read_image_file(path: Path) -> Iterator[tuple[Tensor, int]]:
    """Reads the images of a file one by one: one, or all frames of a stack or an animation."""
    from PIL import Image

    with _reading(path):
        file = Image.open(path)
    with file:
        with _reading(path):
            count = getattr(file, "n_frames", 1) if file.format in STACKS else 1
        for index in range(count):
            with _reading(path):
                file.seek(index)
                read = [] if count > 1 and _is_reduced(file) else [_read_frame(file, path)]
            while read:  # and keep nothing of it
                yield read.pop()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says which image could not be read: decoders fail in many ways on damaged files."""
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


def _is_reduced(frame: Any) -> bool:
    return bool(int(getattr(frame, "tag_v2", {}).get(SUBFILE_TYPE, 0)) & REDUCED)


def _read_frame(frame: Any, path: Path) -> tuple[Tensor, int]:
    from PIL import ImageOps

    kind, most = frame.format, 0  # which the upright copy does not know
    frame = ImageOps.exif_transpose(frame)
    if frame.mode == "F":
        pixels = _floats(frame, path)
    elif frame.mode.startswith("I"):
        array = _sixteen_bits(frame, path, kind)
        most = int(array.max())
        pixels = torch.from_numpy(array.astype(np.float32)).div_(65535.0)
    else:
        pixels = torch.from_numpy(_bytes(frame, path, kind).astype(np.float32)).div_(255.0)
    return (pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)), most


def _floats(frame: Any, path: Path) -> Tensor:
    pixels = torch.from_numpy(np.array(frame, np.float32))
    pixels = clamp_rounding(pixels, (0.0, 1.0), pixels.dtype)
    low, high = map(float, pixels.aminmax())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{path} holds floats from {low:.8g} to {high:.8g}; allowed are finite floats in "
            "[0, 1]: rescale them, or save 8 or 16 bits"
        )
    return pixels


def _sixteen_bits(frame: Any, path: Path, kind: str) -> np.ndarray[Any, Any]:
    # A TIFF of unsigned 16 bits has the mode I;16; as I, PIL reads wider or signed integers.
    if frame.mode == "I" and kind == "TIFF":
        array = np.asarray(frame)
        raise DataError(
            f"{path} holds integers of 32 bits, or signed ones, from {array.min()} to "
            f"{array.max()}, whose white is not known; save it as 8 or unsigned 16 bits, or as "
            "floats in [0, 1]"
        )
    return np.asarray(frame)


def _bytes(frame: Any, path: Path, kind: str) -> np.ndarray[Any, Any]:
    """Bytes ``(H, W)`` of a grey image, a grey palette's too, or ``(H, W, 3)``."""
    if frame.has_transparency_data:
        if np.asarray(frame.convert("RGBA"))[..., 3].min() < 255:
            raise DataError(
                f"{path} has transparent pixels, whose colour depends on what lies behind; put "
                "it on a background first"
            )
    if frame.mode in ("1", "L", "LA"):
        return np.asarray(frame.convert("L"))
    array = np.asarray(frame.convert("RGB"))
    of_palette = frame.mode in ("P", "PA") or kind == "GIF"
    grey = of_palette and bool((array == array[..., :1]).all())
    return array[..., 0] if grey else array
