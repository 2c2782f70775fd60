"""Models as safetensors files: weights, and everything else as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.training import write_file

SUFFIX = ".safetensors"
MISSING = (
    f"files named *{SUFFIX} need a package that is not installed: python -m pip install "
    "'pyro-mivae[safetensors]'"
)


def write_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Writes what `save` keeps."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise OptionError(MISSING) from error
    # Tensors that share memory are copied, as the format stores each by itself.
    weights = {k: v.detach().cpu().clone().contiguous() for k, v in content["weights"].items()}
    header = {key: json.dumps(value) for key, value in content.items() if key != "weights"}
    write_file(path, save(weights, metadata=header))


def read_safetensors(path: Path) -> dict[str, Any]:
    """Reads what `write_safetensors` wrote."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise OptionError(MISSING) from error
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {**{key: json.loads(text) for key, text in header.items()}, "weights": weights}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: it is damaged ({error}); restore a copy") from error
