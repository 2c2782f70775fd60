"""Files with which to begin a prior, guide or term of your own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pyro_mivae.errors import OptionError
from pyro_mivae.training import write_file

KINDS = ("prior", "guide", "term")


def write_skeleton(kind: str, path: Path, *, overwrite: bool = False) -> None:
    """Writes a commented file that defines a part, checks it and trains with it."""
    if path.suffix != ".py":
        raise OptionError(f"{path}: give a name that ends in .py")
    if path.exists() and not overwrite:
        raise OptionError(f"{path} exists; replace it with overwrite=True, or choose another")
    source = files("pyro_mivae.cli.skeletons").joinpath(f"{kind}.py").read_text(encoding="utf-8")
    write_file(path, source.replace("FILE.py", path.name))
