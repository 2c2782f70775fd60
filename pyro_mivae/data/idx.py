"""IDX files, in which MNIST and the sets like it are kept, plain or compressed."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.data.dataset import told
from pyro_mivae.errors import DataError

BYTES = 8  # the code of unsigned bytes


def find_idx(folders: Sequence[Path], name: str) -> Path | None:
    """Finds an IDX file, as it is or compressed."""
    places = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    return next((path for path in places if path.is_file()), None)


def read_idx(path: Path, dims: int) -> Tensor:
    """Reads an IDX file of bytes; of a compressed one, no more than its header tells."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(4 + 4 * dims)
            shape = [int(n) for n in np.frombuffer(header[4:], ">u4", -1)]
            content = bytearray(file.read(math.prod(shape) + 1))
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"cannot read {path}: {told(error)}") from error
    begins = bytes([0, 0, BYTES, dims])
    if header[:4] != begins or len(shape) != dims or not 0 < math.prod(shape) == len(content):
        raise DataError(
            f"cannot read {path}: it is no IDX file of bytes in {dims} dimension(s), or cut short"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
