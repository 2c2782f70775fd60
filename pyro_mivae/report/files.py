"""The pictures that a report leaves in a folder, and the list by which they are found again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pyro_mivae.training import atomic_path

PICTURES = ".pictures"


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes pictures, and removes those of an earlier report that are not among them.

    The list is written before the first picture, so that whatever stops the writing, each picture
    is listed.
    """
    earlier = listed_pictures(folder)
    _list_pictures(folder, {path.name for path in earlier} | pictures.keys())
    for name, png in pictures.items():
        with atomic_path(folder / name) as scratch:
            scratch.write_bytes(png)
    for path in earlier:
        if path.name not in pictures:
            path.unlink()
    _list_pictures(folder, pictures.keys())


def listed_pictures(folder: Path) -> list[Path]:
    """Finds the pictures that reports wrote."""
    try:
        names = (folder / PICTURES).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    plain = [name for name in dict.fromkeys(names) if re.fullmatch(r"\w[\w.-]*\.png", name)]
    return [folder / name for name in plain if (folder / name).is_file()]


def _list_pictures(folder: Path, names: Collection[str]) -> None:
    with atomic_path(folder / PICTURES) as scratch:
        scratch.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
