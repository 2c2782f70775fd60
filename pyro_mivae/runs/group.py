"""Training into folders: one run, or a group of runs from several seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from pyro_mivae.arguments import checked
from pyro_mivae.arguments import path as a_path
from pyro_mivae.data import Dataset
from pyro_mivae.errors import ManyTrainingError, OptionError, TrainingError
from pyro_mivae.figures import AGREEMENT, OF_SEEDS, label
from pyro_mivae.inputs import fingerprint_all
from pyro_mivae.metrics import agreement_of_models
from pyro_mivae.ranks import ALONE, Ranks, working
from pyro_mivae.runs.build import approve, build_variant, named_programs, remember
from pyro_mivae.runs.config import RunConfig, check_model_options
from pyro_mivae.runs.outputs import evaluate_run, report_run
from pyro_mivae.runs.run import (
    Run,
    check_belongs,
    check_same_data,
    read_config,
    read_metrics,
    read_run,
)
from pyro_mivae.runs.run_folder import (
    CONFIG,
    LOGS,
    METRICS,
    ONE,
    OURS,
    REPORT,
    SEEDS,
    SEVERAL,
    check_target,
    held,
    prepare,
    runs_of_seeds,
    write_json,
)
from pyro_mivae.tables import align
from pyro_mivae.training import History, Writer, fit_many, has_checkpoint, read_checkpoint
from pyro_mivae.training.checkpoint import CHECKPOINT, kept_weights
from pyro_mivae.training.checkpointer import HISTORY

LABELS = {name: label(name) for name in OF_SEEDS if name in AGREEMENT}


@dataclass
class RunGroup:
    """A training folder: a run, the runs of several seeds, or a sweep.

    As a context manager it is the folder's only writer. All arguments are checked before anything
    is written. ``resume`` continues an interrupted group (Ctrl-C).

    Processes that were started together divide the batches of a run, or the runs of a group. They
    all see the folder; the first one writes what is about the whole of it.
    """

    config: RunConfig
    folder: Path
    kind: str  # a key of `run_folder.MADE_BY`
    places: Sequence[Path] = ()  # the run folders in it, or itself if it is one
    resume: bool = False  # continues where the folder's training stopped
    overwrite: bool = False  # throws it away
    trust: bool = False  # runs the code that the folder names
    device: str = "auto"
    progress: bool = False  # shows a progress bar
    jobs: int = 1  # models that are trained at the same time
    tensorboard: bool = False  # writes the histories for TensorBoard too
    say: Callable[[str], object] = lambda text: None  # called with lines for the user
    on_start: Callable[[], object] = lambda: None  # called as training begins

    def __enter__(self) -> Self:
        self.ranks = Ranks.of_group()
        self.progress = self.progress and self.ranks.is_first
        check_model_options(self.config.variant, self.config.model)
        self.ranks.first_does(self._claim)
        self._there = held(self.folder) is not None
        self._named = named_programs(self.config)
        return self

    def _claim(self) -> None:
        how = {"resume": self.resume, "overwrite": self.overwrite}
        check_target(self.folder, self.kind, **how, runs=self.places)
        self._writer = Writer(self.folder)

    def __exit__(self, *_: object) -> None:
        if self.ranks.is_first:
            self._writer.release()

    def approve(self, config: RunConfig, folder: Path) -> RunConfig:
        """Checks that the code in a configuration may run."""
        return approve(config, folder, named=self._named, trust=self.trust)

    def begin(
        self, config: RunConfig, new: Mapping[Path, RunConfig], dataset: Dataset, several: str = ""
    ) -> None:
        """Prepares the folder for new runs, given by their configuration files."""
        self._writer.make()
        there = self._there  # files that another process makes meanwhile are not deleted
        how = {"resume": self.resume and there, "overwrite": self.overwrite and there}
        check_target(self.folder, self.kind, **how, runs=self.places if there else ())
        prepare(self.folder, self.kind, new, resume=self.resume)
        remember(config, self._named)
        self.on_start()
        shape = "x".join(map(str, dataset.data_shape))
        if self.ranks.size > 1:
            several += f", {self.ranks.size} processes"
        self.say(
            f"{config.variant} on {dataset.title}: {len(dataset.x_train)} training and "
            f"{len(dataset.x_test)} test data of shape {shape}{several}"
        )

    def train(self, asked: Sequence[RunConfig]) -> list[Run]:
        """Trains, evaluates and reports a run in each place."""
        taken = [self._taken_on(*pair) for pair in zip(asked, self.places, strict=True)]
        started = [goes_on for _, goes_on in taken]
        done = [goes_on and is_finished(place) for goes_on, place in zip(started, self.places)]
        if self.kind == ONE and all(done):
            self.say(f"{self.folder} is finished: nothing to do")
            return [read_run(self.folder, taken[0][0])]
        dataset = taken[0][0].load_dataset()
        configs = [
            settled(own, dataset, place, started=goes_on)
            for (own, goes_on), place in zip(taken, self.places)
        ]
        vaes = [build_variant(own, dataset.data_shape) for own in configs]
        for own, vae, place, goes_on in zip(configs, vaes, self.places, started):
            if goes_on:
                check_belongs(own, vae, read_checkpoint(place), place)
        vaes[0].arguments(dataset.x_test, dataset.given_test)
        labels = [own.kept_labels(dataset) for own in configs]
        seeds = [own.training["seed"] for own in configs]
        new = {p / CONFIG: own for p, own, old in zip(self.places, configs, started) if not old}
        several = f", seeds {seeds[0]} to {seeds[-1]}" if self.kind == SEVERAL else ""
        failure: ManyTrainingError | None = None
        with logging_epochs(self.places) if self.tensorboard else nullcontext() as on_epoch:
            try:
                fit_many(
                    vaes,
                    dataset.x_train,
                    **{k: v for k, v in configs[0].training.items() if k != "seed"},
                    seeds=seeds,
                    labels=labels,
                    given=dataset.given_train,
                    validation=_watched(configs[0], dataset, self.ranks),
                    device=self.device,
                    progress=self.progress,
                    jobs=self.jobs,
                    runs=self.places,
                    resume=self.resume,
                    on_start=lambda: self.begin(configs[0], new, dataset, several),
                    on_epoch=on_epoch,
                )
            except ManyTrainingError as error:
                if self.kind == ONE:
                    raise TrainingError(error.failures[0]) from error
                if len(error.failures) == len(vaes):
                    raise
                failure = error
        failed = {} if failure is None else failure.failures
        whole = [number for number in range(len(vaes)) if number not in failed]
        runs = [read_run(self.places[number], configs[number]) for number in whole]
        self.say("evaluating on the test data")
        pairs = list(zip(whole, runs, strict=True))
        together = self.ranks if self.kind == ONE else ALONE
        for number, run in pairs if self.kind == ONE else self.ranks.own(pairs):
            if not done[number]:
                with working(together):
                    evaluate_run(
                        run, dataset, device=self.device, progress=self.progress, say=self.say
                    )
                if together.is_first:
                    report_run(run, dataset, device=self.device, progress=self.progress)
        self.ranks.wait()
        if self.kind == SEVERAL and self.ranks.is_first:
            told = {str(seeds[number]): reason for number, reason in failed.items()}
            _write_summary(self.folder, runs, dataset, told)
        self.ranks.wait()
        if failure is not None:
            raise failure
        return runs

    def _taken_on(self, config: RunConfig, folder: Path) -> tuple[RunConfig, bool]:
        """Returns the configuration of a new or a continued run, and True if it continues."""
        started = self.resume and has_checkpoint(folder)
        if started:
            config = config.resumed_from(read_config(folder), folder)
        elif self.resume:
            self.say(f"{folder} holds no checkpoint: it starts from the first step")
            if os.path.exists(folder / CONFIG):
                config = config.over(read_config(folder))
        return self.approve(config, folder), started


@checked(folder=a_path())
def train_run(config: RunConfig, folder: str | Path, **how: Any) -> Run:
    """Trains, evaluates and reports a run in a folder.

    Args:
        config: Configuration of the run.
        folder: Run folder.
        **how: ``resume`` continues an interrupted run, ``overwrite`` replaces it, ``trust`` runs
            code that the folder names; ``device``, ``progress``, ``jobs`` (models trained at the
            same time), ``tensorboard``; ``say`` is called with lines for the user, ``on_start``
            as training begins.

    Returns:
        The finished run.

    Example:
        >>> config = mi.runs.RunConfig("vae", data="digits", training={"epochs": 5})
        >>> run = train_run(config, "runs/five")  # doctest: +SKIP
        >>> run.vae.encode(run.dataset().x_test)  # doctest: +SKIP
    """
    folder = Path(folder)
    with RunGroup(config, folder, ONE, [folder], **how) as group:
        return group.train([config])[0]


def train_seeds(config: RunConfig, folder: str | Path, count: int, **how: Any) -> list[Run]:
    """Trains from several seeds, one after the other; each run equals that of `train_run`.

    The seeds start at that of the configuration. ``folder/seed-K`` is the run of seed K.
    ``folder/seeds.json`` holds the mean and the standard deviation of every figure, and of the
    agreement of categories between every two runs on the test images. All runs have one
    configuration: new seeds in a folder use that of the existing ones.

    Example:
        >>> runs = train_seeds(mi.runs.RunConfig("vae"), "runs/four", 4)  # doctest: +SKIP
    """
    folder, seeds = Path(folder), seeds_from(config, count)
    places = [folder / f"seed-{seed}" for seed in seeds]
    with RunGroup(config, folder, SEVERAL, places, **how) as group:
        shared = _shared(config, runs_of_seeds(folder)) if group.resume else config
        return group.train(
            [replace(shared, training={**shared.training, "seed": seed}) for seed in seeds]
        )


def seeds_from(config: RunConfig, count: int) -> range:
    """Returns a number of consecutive seeds, from the configuration's own."""
    if count < 1:
        raise OptionError(f"seeds={count}; allowed are whole numbers from 1")
    first = config.training.get("seed", 0)
    return range(first, first + count)


def _shared(config: RunConfig, there: Sequence[Path]) -> RunConfig:
    """Returns the configuration of the existing runs, with the given seed."""
    begun = [run for run in there if has_checkpoint(run)]
    given = replace(config, training={k: v for k, v in config.training.items() if k != "seed"})
    if begun:
        return given.resumed_from(read_config(begun[0]), begun[0])
    return given.over(read_config(there[0])) if there else given


def settled(config: RunConfig, dataset: Dataset, folder: Path, *, started: bool) -> RunConfig:
    """Fills in the defaults of a new run; checks the data of a continued one."""
    if started:
        check_same_data(config, dataset, folder)
        return config
    return config.complete(dataset)


def is_finished(folder: Path) -> bool:
    """True if a run was trained to the end, evaluated and reported, with a complete history."""
    if not all((folder / name).is_file() for name in (CHECKPOINT, METRICS, REPORT)):
        return False
    state = read_checkpoint(folder)
    whole = History(state["history"]).is_in_csv(folder / HISTORY)
    weights = fingerprint_all(kept_weights(state))
    measured = read_metrics(folder / METRICS)[1].get("weights", weights)
    return whole and measured == weights and bool(state["finished"])


def sum_up(metrics: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Returns the mean and the standard deviation of each figure."""
    names = dict.fromkeys(name for of_run in metrics for name in of_run)
    summary = {}
    for name in names:
        values = [of_run.get(name, math.nan) for of_run in metrics]
        defined = len(values) > 1 and all(map(math.isfinite, values))
        spread = statistics.stdev(values) if defined else math.nan
        summary[name] = (statistics.fmean(values), spread)
    return summary


def _write_summary(
    folder: Path, runs: Sequence[Run], dataset: Dataset, failed: Mapping[str, str]
) -> None:
    """Writes mean and deviation of the figures, and of the agreement between runs."""
    summary = sum_up([run.measured()[0] for run in runs])
    if len(runs) > 1 and runs[0].vae.category is not None:
        summary |= agreement_of_models(
            [run.vae for run in runs], dataset.x_test, given=dataset.given_test
        )
    metrics = {name: {"mean": mean, "sd": spread} for name, (mean, spread) in summary.items()}
    seeds = [run.config.training["seed"] for run in runs]
    content = {"seeds": seeds, "binarize": dataset.binarize, "metrics": metrics, "failed": failed}
    write_json(folder / SEEDS, content)


def seeds_table(folder: str | Path) -> str:
    """Formats the main figures of several seeds as a small table.

    Example:
        >>> print(seeds_table("runs/four"))  # doctest: +SKIP
    """
    content = json.loads((Path(folder) / SEEDS).read_text(encoding="utf-8"))
    rows = []
    for name in OF_SEEDS:
        mean, spread = (content["metrics"].get(name, {}).get(key) for key in ("mean", "sd"))
        if mean is not None:
            told = "" if spread is None else f" ± {spread:.3f}"
            rows.append((LABELS.get(name, name), f"{mean:.3f}{told}"))
    pixels = content.get("binarize", "none")
    rows += [] if pixels == "none" else [("binarize", pixels)]
    lines = [f"mean of {len(content['seeds'])} seeds ± standard deviation", *align(rows)]
    return "\n  ".join(lines)


def _watched(config: RunConfig, dataset: Dataset, ranks: Ranks) -> Any:
    """Returns the test data, for their curves; None if too few, or if others are held out."""
    few = len(dataset.x_test) < 2 * ranks.size
    if few or config.training.get("patience") is not None:
        return None
    test = dataset.x_test, dataset.given_test
    return test[0] if test[1] is None else test


@contextmanager
def logging_epochs(
    folders: Sequence[Path],
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Returns ``on_epoch`` for `fit_many`, which logs each column of a model's history.

    The files of a model are created with its first row.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(
            "--tensorboard needs a package that is not installed: "
            "python -m pip install 'pyro-mivae[tensorboard]'"
        ) from error
    with ExitStack() as opened:

        @cache
        def writer(number: int) -> Any:
            folder = str(folders[number] / LOGS)
            return opened.enter_context(SummaryWriter(folder, filename_suffix=OURS))

        def log(number: int, row: Mapping[str, float]) -> None:
            for name, value in row.items():
                if name != "epoch":
                    writer(number).add_scalar(name, value, int(row["epoch"]))

        yield log
