"""Run folders: their files, what a folder holds, and how it is made ready and emptied."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.report.files import PICTURES, listed_pictures
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.tensorboard import FOLDER, OURS
from pyro_mivae.training import Writer, has_checkpoint, writing
from pyro_mivae.training.checkpoint import CHECKPOINT, PREVIOUS
from pyro_mivae.training.checkpointer import HISTORY
from pyro_mivae.training.files import LOCK, OWNER

CONFIG, METRICS, REPORT = "config.toml", "metrics.json", "report.html"
KEPT = (CHECKPOINT, PREVIOUS, HISTORY)  # what `fit` keeps of a training
SEEDS = "seeds.json"
SWEEP, TABLE, ROWS, PICTURE = "sweep.toml", "sweep.csv", "sweep.json", "sweep.png"
MODELS = "models"
COMMANDS = {  # by what a folder may hold
    "a run": "pyro-mivae train without --seeds",
    "the runs of several seeds": "pyro-mivae train --seeds",
    "a sweep": "pyro-mivae sweep",
}


def held(folder: Path) -> str | None:
    """Says what a folder holds."""
    if not os.path.isdir(folder):
        return None
    if is_run(folder):
        return "a run"
    if runs_of_seeds(folder) or (folder / SEEDS).is_file():
        return "the runs of several seeds"
    if (folder / SWEEP).is_file() or (folder / ROWS).is_file():
        return "a sweep"
    return "files, but no run" if any(map(_visible, folder.iterdir())) else None


def is_run(folder: Path) -> bool:
    """Tells whether a folder holds a run, and not just a ``config.toml`` of another program."""
    config = folder / CONFIG
    if not config.is_file():
        return False
    named = re.search(r"^variant\b", config.read_text(errors="replace"), re.MULTILINE)
    return bool(named) or has_checkpoint(folder)


def runs_of_seeds(folder: Path) -> list[Path]:
    """Finds the runs that a folder holds of several seeds."""
    if not os.path.isdir(folder):
        return []
    numbered = {path: re.fullmatch(r"seed-(\d+)", path.name) for path in folder.iterdir()}
    return [
        path for _, path in sorted((int(m[1]), p) for p, m in numbered.items() if m and is_run(p))
    ]


def check_target(
    folder: Path, kind: str, *, resume: bool, overwrite: bool, runs: Iterable[Path] = ()
) -> None:
    """Checks that a run, the runs of several seeds, or a sweep may be written to a folder."""
    if resume and overwrite:
        raise OptionError("--resume and --overwrite given; allowed is one of them")
    try:
        for place, allowed in {folder: kind, **dict.fromkeys(runs, "a run")}.items():
            if os.path.exists(place) and not os.path.isdir(place):
                raise RunError(f"{place} is a file; choose another --run DIR")
            there = held(place)
            if there not in (None, allowed):
                only = f", which only {COMMANDS[there]} goes on with" if there in COMMANDS else ""
                raise RunError(f"{place} holds {there}{only}; choose another --run DIR")
            if there and not (resume or overwrite):
                raise RunError(
                    f"{place} holds {there} already; go on with --resume, throw it away with "
                    "--overwrite, or choose another --run DIR"
                )
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}") from error


def clear_run(folder: Path) -> None:
    """Removes what a run left in its folder, its configuration last, and nothing else."""
    logs = (folder / FOLDER).glob(f"events.out.tfevents.*{OURS}")
    _remove(*(folder / name for name in (*KEPT, METRICS, REPORT)), *listed_pictures(folder), *logs)
    _remove(folder / PICTURES, folder / CONFIG)


def clear_sweep(folder: Path) -> None:
    """Removes what a sweep left in its folder, its configuration last, and nothing else."""
    clear_models(folder)
    _remove(*(folder / name for name in (TABLE, ROWS, PICTURE, SWEEP)))


def clear_models(folder: Path) -> None:
    """Removes the models of a sweep in training, and folders that this leaves empty."""
    for own in [*(folder / MODELS).glob("*=*,seed=*")]:
        with Writer(own):
            _remove(*(own / name for name in KEPT))
            _remove_if_empty(own)
    _remove_if_empty(folder / MODELS)


def prepare_folder(
    folder: Path,
    config: RunConfig,
    clear: Callable[[Path], None] = clear_run,
    name: str = CONFIG,
) -> None:
    """Makes a folder, without anything of an earlier run, and writes its configuration."""
    config.dumps()  # what cannot be written down is no reason to throw a run away
    with Writer(folder) as writer, writing(folder):
        writer.make()
        clear(folder)
        config.write(folder / name)


def prepare_seeds(folder: Path, configs: Mapping[Path, RunConfig], *, resume: bool) -> None:
    """Makes the folders of the runs of several seeds that are to be started.

    What was summed up of earlier runs goes, and unless they go on so do the runs.
    """
    with writing(folder):
        for old in runs_of_seeds(folder):
            if not (resume and has_checkpoint(old)):
                with Writer(old):
                    clear_run(old)
                    _remove_if_empty(old)
        _remove(folder / SEEDS)
    for place, config in configs.items():
        prepare_folder(place, config)


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
