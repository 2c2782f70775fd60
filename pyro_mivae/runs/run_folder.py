"""Run folders: the names of their files, their kinds, and their preparation."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.report.pictures import PICTURES, listed_pictures
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.training import Writer, has_checkpoint, write_file, writing
from pyro_mivae.training.checkpoint import CHECKPOINT, PREVIOUS
from pyro_mivae.training.checkpointer import HISTORY
from pyro_mivae.training.files import LOCK, OWNER

CONFIG, METRICS, REPORT = "config.toml", "metrics.json", "report.html"
KEPT = (CHECKPOINT, PREVIOUS, HISTORY)  # files of `fit`
SEEDS = "seeds.json"
SWEEP, TABLE, ROWS, PICTURE = "sweep.toml", "sweep.csv", "sweep.json", "sweep.png"
MODELS = "models"
LOGS, OURS = "tensorboard", ".pyro-mivae"  # how the names of our event files end
ONE, SEVERAL, GRID = "a run", "the runs of several seeds", "a sweep"
MADE_BY = {  # by what a folder may hold
    ONE: "pyro-mivae train without --seeds",
    SEVERAL: "pyro-mivae train --seeds",
    GRID: "pyro-mivae sweep",
}


def held(folder: Path) -> str | None:
    """Returns the content of a folder: one of `MADE_BY`, other files, or None if empty."""
    if not os.path.isdir(folder):
        return None
    if is_run(folder):
        return ONE
    if runs_of_seeds(folder) or (folder / SEEDS).is_file():
        return SEVERAL
    if (folder / SWEEP).is_file() or (folder / ROWS).is_file():
        return GRID
    return "files, but no run" if any(map(_visible, folder.iterdir())) else None


def is_run(folder: Path) -> bool:
    """Returns True for a run, and False for a ``config.toml`` of another program."""
    config = folder / CONFIG
    if not config.is_file():
        return False
    named = re.search(r"^variant\b", config.read_text(errors="replace"), re.MULTILINE)
    return bool(named) or has_checkpoint(folder)


def runs_of_seeds(folder: Path) -> list[Path]:
    """Finds the runs of several seeds in their folder, in the order of the seeds."""
    if not os.path.isdir(folder):
        return []
    numbered = {path: re.fullmatch(r"seed-(\d+)", path.name) for path in folder.iterdir()}
    return [
        path for _, path in sorted((int(m[1]), p) for p, m in numbered.items() if m and is_run(p))
    ]


def check_target(
    folder: Path, kind: str, *, resume: bool, overwrite: bool, runs: Iterable[Path] = ()
) -> None:
    """Checks that a run, runs of several seeds, or a sweep may be written to a folder."""
    if resume and overwrite:
        raise OptionError("--resume and --overwrite given; allowed is one of them")
    try:
        for place, allowed in {folder: kind, **dict.fromkeys(runs, ONE)}.items():
            if os.path.exists(place) and not os.path.isdir(place):
                raise RunError(f"{place} is a file; choose another --run DIR")
            there = held(place)
            if there not in (None, allowed):
                only = f", which only {MADE_BY[there]} continues" if there in MADE_BY else ""
                raise RunError(f"{place} holds {there}{only}; choose another --run DIR")
            if there and not (resume or overwrite):
                raise RunError(
                    f"{place} holds {there} already; continue with --resume, delete it with "
                    "--overwrite, or choose another --run DIR"
                )
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}") from error


def prepare(
    folder: Path, kind: str, configs: Mapping[Path, RunConfig], *, resume: bool = False
) -> None:
    """Removes earlier runs from the folders, and writes the configurations of new ones.

    For several seeds it removes their summary and all runs except those that ``resume`` continues.
    """
    for config in configs.values():
        config.dumps()  # an error here must not delete a run
    if kind == SEVERAL:
        with writing(folder):
            for old in runs_of_seeds(folder):
                if not (resume and has_checkpoint(old)):
                    with Writer(old):
                        clear_run(old)
                        _remove_if_empty(old)
            _remove(folder / SEEDS)
    for file, config in configs.items():
        place = file.parent
        with Writer(place) as writer, writing(place):
            writer.make()
            clear_sweep(place) if kind == GRID else clear_run(place)
            config.write(file)


def clear_run(folder: Path) -> None:
    """Removes only the files of a run from its folder, its configuration last."""
    logs = (folder / LOGS).glob(f"events.out.tfevents.*{OURS}")
    _remove(*(folder / name for name in (*KEPT, METRICS, REPORT)), *listed_pictures(folder), *logs)
    _remove(folder / PICTURES, folder / CONFIG)


def clear_sweep(folder: Path) -> None:
    """Removes only the files of a sweep from its folder, its configuration last."""
    clear_models(folder)
    _remove(*(folder / name for name in (TABLE, ROWS, PICTURE, SWEEP)))


def clear_models(folder: Path) -> None:
    """Removes a sweep's checkpoints of models, and folders that become empty."""
    for own in [*(folder / MODELS).glob("*=*,seed=*")]:
        with Writer(own):
            _remove(*(own / name for name in KEPT))
            _remove_if_empty(own)
    _remove_if_empty(folder / MODELS)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON, with null for numbers that are not finite."""
    write_file(path, json.dumps(defined(content), indent=2) + "\n")


def defined(content: Mapping[str, Any]) -> Any:
    """Returns content as JSON has it: null for numbers that are not finite, paths as text."""
    return json.loads(json.dumps(content, default=os.fspath), parse_constant=lambda name: None)


def _visible(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return not path.is_dir() or any(not inner.name.startswith(".") for inner in path.iterdir())


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and all(path.name in (LOCK, OWNER) for path in folder.iterdir()):
        _remove(folder / LOCK, folder / OWNER)
        folder.rmdir()
