"""What the benchmarks share: where results go, and on what they were measured."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Makes a benchmark's parser, whose description stays as it is laid out.

    Args:
        name: The benchmark's name on the command line.
        description: What it does.
    """
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def check_names(
    command: argparse.ArgumentParser, option: str, given: Iterable[str], allowed: Iterable[str]
) -> None:
    """Ends the command if a name is given that there is not.

    Args:
        command: The benchmark's parser.
        option: The option.
        given: The names.
        allowed: Those that there are.

    Raises:
        SystemExit: If there is one; it says which there are.
    """
    names = list(allowed)
    for name in given:
        if name not in names:
            command.error(f"argument {option}: there is no {name!r}; allowed are {names}")


def machine() -> dict[str, Any]:
    """Says what a benchmark ran on."""
    import pyro
    import torch

    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes results as JSON; a file that is there is replaced only by a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(path)


def split_options(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts a run's options into those of the variant and those of `fit`."""
    import pyro_mivae as mi

    of_fit = inspect.signature(mi.fit).parameters
    model = {name: value for name, value in settings.items() if name not in of_fit}
    return model, {name: value for name, value in settings.items() if name in of_fit}
