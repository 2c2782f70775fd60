"""Trains a model into a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pyro_mivae.arguments import checked
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data import Dataset
from pyro_mivae.runs.build import build_variant, check_config, find_variant, plain_defaults
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.load import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    REPORT,
    Run,
    check_same_data,
    open_run,
    read_config,
)
from pyro_mivae.runs.outputs import evaluate_run, report_run
from pyro_mivae.runs.target import check_target, prepare_folder
from pyro_mivae.runs.tensorboard import logging_epochs
from pyro_mivae.training import fit


@checked(folder=a_path())
def train_run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
    tensorboard: bool = False,
    say: Callable[[str], object] = lambda text: None,
    on_start: Callable[[], object] = lambda: None,
) -> Run:
    """Trains, evaluates and reports, and leaves all of it in a folder.

    Everything given is checked before anything is written. Interrupted (Ctrl-C), it leaves a
    folder that ``resume`` goes on from.

    Args:
        config: What to train, on what, and how.
        folder: The run folder. It must not hold anything yet, unless:
        resume: Goes on from the folder's checkpoint; without one it starts anew; on a finished
            run it does nothing.
        overwrite: Throws the run that the folder holds away.
        device: ``"auto"``, ``"cuda"`` or ``"cpu"``.
        progress: Shows a progress bar on stderr.
        tensorboard: Also writes the history for TensorBoard, to the run folder's ``tensorboard``.
        say: Called with a line of text at each stage.
        on_start: Called once the folder is the run's: everything given has been checked.

    Returns:
        The run.

    Raises:
        PyroMivaeError: If something given is not allowed; nothing has been written then.
        TrainingError: If the loss is no longer finite.
    """
    folder = Path(folder)
    check_config(config)
    check_target(folder, resume, overwrite)
    config, started = continued(config, folder, resume=resume, say=say)
    if started and is_finished(folder):
        say(f"{folder} is finished: nothing to do")
        return open_run(folder)
    dataset = config.load_dataset()
    config = settled(config, dataset, folder, started=started)
    vae = build_variant(config, dataset.data_shape)
    vae.check_data(dataset.x_test)
    shape = "x".join(map(str, dataset.data_shape))

    def begin() -> None:
        if not started:
            prepare_folder(folder, config)
        on_start()
        say(
            f"{config.variant} on {dataset.name}: {len(dataset.x_train)} training and "
            f"{len(dataset.x_test)} test images of {shape}"
        )

    with logging_epochs(folder, tensorboard) as on_epoch:
        fit(
            vae,
            dataset.x_train,
            **config.training,
            device=device,
            progress=progress,
            run=folder,
            resume=resume,
            on_start=begin,
            on_epoch=on_epoch,
        )
    run = open_run(folder)
    say("evaluating on the test images")
    evaluate_run(run, dataset, device=device)
    report_run(run, dataset, device=device)
    return run


def continued(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    say: Callable[[str], object] = lambda text: None,
) -> tuple[RunConfig, bool]:
    """Takes on what a run folder's run was started with, if it is to go on.

    Args:
        config: What is asked for.
        folder: The run folder.
        resume: Whether a run that it holds is to go on.
        say: Called with a line of text if there is no checkpoint.

    Returns:
        The configuration, and whether there is a run to go on with.

    Raises:
        OptionError: If something given differs from what the run was started with.
    """
    if resume and os.path.exists(folder / CHECKPOINT):
        return config.resumed_from(read_config(folder), folder), True
    if resume:
        say(f"{folder} holds no checkpoint to go on from: starting anew")
        if os.path.exists(folder / CONFIG):
            config = config.over(read_config(folder))
    return config, False


def settled(config: RunConfig, dataset: Dataset, folder: Path, *, started: bool) -> RunConfig:
    """Fills in the defaults of a new run; checks the data of one that goes on.

    Args:
        config: The configuration.
        dataset: Its data.
        folder: The run folder.
        started: Whether there is a run to go on with.

    Returns:
        The configuration with every option's value.

    Raises:
        RunError: If the data are not those that the run was started with.
    """
    if started:
        check_same_data(config, dataset, folder)
        return config
    return config.complete(dataset, plain_defaults(find_variant(config.variant)))


def is_finished(folder: Path) -> bool:
    """Tells whether a run was trained to its end, evaluated and reported.

    Args:
        folder: Its folder.
    """
    if not all((folder / name).is_file() for name in (CHECKPOINT, METRICS, REPORT)):
        return False
    return open_run(folder).finished
