"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to, which replaces ``path`` once all is written.

    Whatever stops the writing, ``path`` holds what it held before, and nothing is left beside it.

    Args:
        path: The file to be made or replaced.

    Yields:
        A path in the same folder with the same suffix.
    """
    scratch = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
