"""One run: a variant trained from one seed, and evaluated."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.clusters import clusters_of_means, keep_start
from benchmarks.common import split_options, write
from benchmarks.finished import Run, check_same, made_with, rounded

Cell = dict[str, Any]
"""What is trained from every seed: a ``variant``, and what else tells it from others.

``categorical`` is its option; ``start`` is ``informed`` (the default), ``augmented`` (with random
affine maps of the images), ``random`` (none), or ``none`` of a variant without categories, whose
posterior means are clustered; ``labels`` is the number of labels that training uses.
"""
MODEL_OF_START = {"random": {"warm_start": 0}, "augmented": {"transform": "affine"}}


@dataclass(frozen=True)
class Task:
    """A run to be made.

    Attributes:
        cell: What is trained.
        seed: From which seed.
        data: Name or path of the data set.
        data_root: Folder of torchvision's data sets.
        settings: What `settings_of` returned.
        runs: Folder to keep trainings in, or to find them.
    """

    cell: Cell
    seed: int
    data: str
    data_root: str | None
    settings: Run
    runs: Path | None

    @property
    def name(self) -> str:
        """Its name, also that of its folder."""
        return f"{Path(self.data).stem}-{'-'.join(map(str, self.cell.values()))}-{self.seed}"

    @property
    def folder(self) -> Path | None:
        """Where its training is kept, if it is, and if there is any."""
        return None if self.runs is None else self.runs / self.name


def settings_of(
    cell: Mapping[str, Any], seed: int, data: str, num_train: int, given: Mapping[str, Any]
) -> Run:
    """Works out everything that a run is made by.

    Args:
        cell: What is trained.
        seed: The run's seed.
        data: Name of the data set.
        num_train: Number of its training images.
        given: Options of `fit` in place of the command line's defaults.

    Returns:
        Options of the variant, of `fit` and of `evaluate`, as far as they are plain values.
    """
    import pyro_mivae as mi
    from pyro_mivae.diagnostics.context import InformationOptions
    from pyro_mivae.runs.config import default_options, plain_defaults

    options = default_options(data, cell["variant"], num_train) | given | {"seed": seed}
    of_model, of_fit = split_options(options)
    model = plain_defaults(cell["variant"])
    model |= {name: value for name, value in of_model.items() if name in model}
    if "categorical" in cell:
        model["categorical"] = cell["categorical"]
    model |= MODEL_OF_START.get(cell.get("start", ""), {})
    return {
        "model": model,
        "fit": of_fit,
        "evaluate": _plain(mi.evaluate) | {f.name: f.default for f in fields(InformationOptions)},
    }


def _plain(function: Callable[..., object]) -> Run:
    """The keywords of a function that have a plain value as default."""
    parameters = inspect.signature(function).parameters.values()
    of_plain = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    return {p.name: p.default for p in of_plain}


def run_one(task: Task, progress: bool = False) -> Run:
    """Makes a run, on one thread.

    Args:
        task: The run.
        progress: Shows a progress bar of the training.

    Returns:
        What is written of it, and the ``protocol`` of its evaluation. ``seconds`` is the
        processor's time for the training, the categories' start too; processes of the compiler
        are left out. ``took`` is the time on the clock for everything.
    """
    import torch

    torch.set_num_threads(1)
    import pyro_mivae as mi
    from pyro_mivae.data import keep_labels

    began = time.perf_counter()
    images = mi.load_dataset(task.data, root=task.data_root)
    torch.manual_seed(task.seed)
    vae = mi.VARIANTS[task.cell["variant"]].build(images.data_shape, **task.settings["model"])
    count, known = task.cell.get("labels", 0), None
    if count:
        known = keep_labels(images.y_train, count, seed=task.seed)
    run: Run = {**task.cell, "seed": task.seed, "settings": task.settings}
    run["made_with"] = made_with()
    if task.cell.get("start") in ("informed", "augmented"):
        keep_start(vae, images, run)
    try:
        with timed(task.folder, run) as seconds:
            options = {"device": "cpu", "progress": progress, **task.settings["fit"]}
            resume = task.folder is not None
            mi.fit(vae, images.x_train, labels=known, run=task.folder, resume=resume, **options)
    except mi.errors.TrainingError as error:
        return run | {
            "failed": str(error),
            "took": round(time.perf_counter() - began, 1),
            "metrics": {},
        }
    labels = None if images.y_train is None else (images.x_train, images.y_train)
    found = mi.evaluate(vae, images.x_test, images.y_test, train=labels, num_labels=count)
    metrics = {name: rounded(value) for name, value in found.items() if "[" not in name}
    if task.cell.get("start") == "none":
        run["clusters_of_means"] = clusters_of_means(vae, images)
    return run | {
        "seconds": round(sum(seconds) + run.pop("reused", 0.0), 2),
        "took": round(time.perf_counter() - began, 1),
        "metrics": metrics,
        "protocol": found.protocol,
    }


@contextmanager
def timed(folder: Path | None, run: Run) -> Iterator[list[float]]:
    """Times a training, and the parts of it that were done before.

    Args:
        folder: Where the training is kept, if it is.
        run: How it is made. It gets ``trained_with`` where something else began the training.

    Yields:
        Seconds of the processor, filled when the training ends; of earlier parts too.

    Raises:
        MixError: If the folder's training has other settings.
    """
    how = {**run["settings"]["model"], **run["settings"]["fit"]}
    made = {"how": how, "made_with": run["made_with"], "seconds": [], "finished": False}
    note = None if folder is None else folder / "made.json"
    if note is not None and note.exists():
        made = json.loads(note.read_text())
        check_same(note, "a training", made["how"], how)
        if made["made_with"] != run["made_with"]:
            run["trained_with"] = made["made_with"]
    seconds = made["seconds"]
    began = time.process_time()
    ended = made["finished"]
    try:
        yield seconds
        ended = True
    finally:
        if not made["finished"]:  # else it was only read
            seconds.append(time.process_time() - began)
        if note is not None:
            write(note, made | {"finished": ended})
