"""IDX files, in which MNIST and the sets like it are kept, plain or compressed."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.errors import DataError

BYTES = 8  # the code of unsigned bytes


def find_idx(folders: Sequence[Path], name: str) -> Path | None:
    """Finds an IDX file, as it is or compressed.

    Args:
        folders: Where to look, in this order.
        name: The file's name, without ``.gz``.

    Returns:
        Its path; None if there is none.
    """
    places = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    return next((path for path in places if path.is_file()), None)


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of bytes; a compressed one is unpacked in memory.

    Args:
        path: The file; compressed if its name ends in ``.gz``.

    Returns:
        uint8, of the shape that the file tells.

    Raises:
        DataError: If it cannot be read, or is cut short.
    """
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    dims = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dims
    shape = [int(n) for n in np.frombuffer(content[4:start], ">u4", -1)] if dims else []
    whole = len(shape) == dims and len(content) == start + math.prod(shape)
    if content[:3] != bytes([0, 0, BYTES]) or not dims or not whole:
        raise DataError(
            f"cannot read {path}: it is no IDX file of bytes, or cut short ({len(content)} bytes)"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
