"""Trains a model into a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from pyro_mivae.arguments import checked
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data import Dataset
from pyro_mivae.inputs import fingerprint_all
from pyro_mivae.runs.build import build_variant, check_config, find_variant, plain_defaults
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.load import (
    Run,
    check_belongs,
    check_same_data,
    read_config,
    read_metrics,
    read_run,
)
from pyro_mivae.runs.outputs import evaluate_run, report_run
from pyro_mivae.runs.programs import approve, named_programs, remember
from pyro_mivae.runs.target import (
    CONFIG,
    METRICS,
    REPORT,
    check_target,
    held,
    prepare_folder,
)
from pyro_mivae.runs.tensorboard import logging_epochs
from pyro_mivae.training import History, Writer, fit, has_checkpoint, read_checkpoint
from pyro_mivae.training.checkpoint import CHECKPOINT, kept_weights
from pyro_mivae.training.checkpointer import HISTORY


@checked(folder=a_path())
def train_run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    device: str = "auto",
    progress: bool = False,
    tensorboard: bool = False,
    say: Callable[[str], object] = lambda text: None,
    on_start: Callable[[], object] = lambda: None,
) -> Run:
    """Trains, evaluates and reports, and leaves all of it in a folder.

    Everything given is checked before anything is written. Interrupted (Ctrl-C), it leaves a
    folder that ``resume`` goes on from.
    """
    folder = Path(folder)
    check_config(config)
    check_target(folder, "a run", resume=resume, overwrite=overwrite)
    there = held(folder) is not None
    with Writer(folder) as writer:
        named = named_programs(config)
        config, started = continued(config, folder, named, resume=resume, trust=trust, say=say)
        if started and is_finished(folder):
            run = read_run(folder, config)
            say(f"{folder} is finished: nothing to do")
            return run
        dataset = config.load_dataset()
        config = settled(config, dataset, folder, started=started)
        vae = build_variant(config, dataset.data_shape)
        if started:
            check_belongs(config, vae, read_checkpoint(folder), folder)
        vae.check_data(dataset.x_test)
        shape = "x".join(map(str, dataset.data_shape))

        def begin() -> None:
            writer.make()
            if not started:  # what another process has made meanwhile is not thrown away
                check_target(
                    folder, "a run", resume=resume and there, overwrite=overwrite and there
                )
                prepare_folder(folder, config)
            remember(config, named)
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
        run = read_run(folder, config)
        say("evaluating on the test images")
        evaluate_run(run, dataset, device=device, say=say)
        report_run(run, dataset, device=device)
        return run


def continued(
    config: RunConfig,
    folder: Path,
    named: Collection[str],
    *,
    resume: bool,
    trust: bool,
    say: Callable[[str], object] = lambda text: None,
) -> tuple[RunConfig, bool]:
    """Takes on what a run folder's run was started with, if it is to go on."""
    started = resume and has_checkpoint(folder)
    if started:
        config = config.resumed_from(read_config(folder), folder)
    elif resume:
        say(f"{folder} holds no checkpoint to go on from: starting anew")
        if os.path.exists(folder / CONFIG):
            config = config.over(read_config(folder))
    if not started:
        known = {kind: digest for kind, digest in config.programs.items() if kind not in named}
        config = replace(config, programs=known)
    return approve(config, folder, named=named, trust=trust), started


def settled(config: RunConfig, dataset: Dataset, folder: Path, *, started: bool) -> RunConfig:
    """Fills in the defaults of a new run; checks the data of one that goes on."""
    if started:
        check_same_data(config, dataset, folder)
        return config
    return config.complete(dataset, plain_defaults(find_variant(config.variant)))


def is_finished(folder: Path) -> bool:
    """True if a run was trained to its end, evaluated and reported, with its history whole."""
    if not all((folder / name).is_file() for name in (CHECKPOINT, METRICS, REPORT)):
        return False
    state = read_checkpoint(folder)
    whole = History.from_state(state["history"]).is_in_csv(folder / HISTORY)
    weights = fingerprint_all(kept_weights(state))
    protocol = read_metrics(folder / METRICS)[1]
    of_these = protocol.get("weights", weights) == weights if isinstance(protocol, dict) else True
    return whole and of_these and bool(state["finished"])
