"""The folders that runs are written to: what they may hold, and how they are emptied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.load import CHECKPOINT, CONFIG, HISTORY, METRICS, REPORT, runs_of_seeds
from pyro_mivae.runs.tensorboard import FOLDER

SEEDS = "seeds.json"


def check_target(folder: Path, resume: bool, overwrite: bool) -> None:
    """Checks that a run may be written to a folder.

    Args:
        folder: The folder.
        resume: Whether a run that it holds is to go on.
        overwrite: Whether a run that it holds may be thrown away.

    Raises:
        OptionError: If both are asked for.
        RunError: If the folder may not be written to.
    """
    if resume and overwrite:
        raise OptionError("--resume and --overwrite given; allowed is one of them")
    if os.path.exists(folder) and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --run DIR")
    if not os.path.exists(folder) or not any(folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        what = "files, but no run"
        if runs_of_seeds(folder):
            what = "the runs of several seeds, which only --seeds goes on with or throws away"
        raise RunError(f"{folder} holds {what}; choose another --run DIR")
    if not resume and not overwrite:
        raise RunError(
            f"the run folder {folder} exists; go on with --resume, throw it away with "
            "--overwrite, or choose another --run DIR"
        )


def check_target_of_seeds(folder: Path, resume: bool, overwrite: bool) -> None:
    """Checks that the runs of several seeds may be written to a folder.

    Args:
        folder: The folder of the runs.
        resume: Whether runs that it holds are to go on.
        overwrite: Whether runs that it holds may be thrown away.

    Raises:
        OptionError: If both are asked for.
        RunError: If the folder may not be written to.
    """
    if (folder / CONFIG).is_file():
        raise RunError(
            f"{folder} holds a single run, and the runs of several seeds need a folder of their "
            "own; choose another --run DIR"
        )
    runs = runs_of_seeds(folder)
    if not runs:
        check_target(folder, resume, overwrite)
        return
    for run in runs:
        check_target(run, resume, overwrite)


def prepare_folder(folder: Path, config: RunConfig) -> None:
    """Makes a run folder, without anything of an earlier run, and writes its configuration.

    Args:
        folder: The folder.
        config: The configuration.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_run(folder)
        config.write(folder / CONFIG)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from error


def clear_run(folder: Path) -> None:
    """Removes what a run left in its folder, and nothing else.

    Args:
        folder: The folder.
    """
    made = (CONFIG, CHECKPOINT, HISTORY, METRICS, REPORT)
    logs = (folder / FOLDER).glob("events.*")
    for old in (*(folder / name for name in made), *folder.glob("*.png"), *logs):
        old.unlink(missing_ok=True)


def prepare_seeds(folder: Path, configs: Mapping[Path, RunConfig], *, resume: bool) -> None:
    """Makes the folders of the runs of several seeds that are to be started.

    What was summed up of earlier runs goes, and unless they go on so do the runs.

    Args:
        folder: The folder of the runs.
        configs: The configuration of each run to start, by its folder.
        resume: Whether runs that are there stay, if they have come to a checkpoint.

    Raises:
        RunError: If they cannot be written.
    """
    try:
        (folder / SEEDS).unlink(missing_ok=True)
        for old in runs_of_seeds(folder):
            if resume and (old / CHECKPOINT).is_file():
                continue
            clear_run(old)
            if old not in configs and not any(old.iterdir()):
                old.rmdir()
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from error
    for place, config in configs.items():
        prepare_folder(place, config)
