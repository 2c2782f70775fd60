"""Trains one configuration from several seeds, and sums up what came of it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyro_mivae.data import Dataset
from pyro_mivae.errors import ManyTrainingError, OptionError
from pyro_mivae.metrics import agreement_of_models
from pyro_mivae.runs.build import build_variant, check_config
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.load import Run, check_belongs, read_config, read_run
from pyro_mivae.runs.outputs import evaluate_run, report_run
from pyro_mivae.runs.programs import named_programs, remember
from pyro_mivae.runs.target import (
    SEEDS,
    check_target,
    held,
    prepare_seeds,
    runs_of_seeds,
)
from pyro_mivae.runs.tensorboard import logging_epochs
from pyro_mivae.runs.train import continued, is_finished, settled
from pyro_mivae.training import Writer, atomic_path, fit_many, has_checkpoint, read_checkpoint

SHOWN = (
    "distortion rate elbo log_px mi_lower mi_upper cluster_accuracy nmi generation_accuracy "
    "linear_probe categories_used category_agreement_accuracy category_agreement_nmi"
).split()
LABELS = {
    "category_agreement_accuracy": "pairs: agreement",
    "category_agreement_nmi": "pairs: NMI",
}


def train_seeds(
    config: RunConfig,
    folder: str | Path,
    count: int,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    device: str = "auto",
    progress: bool = False,
    tensorboard: bool = False,
    say: Callable[[str], object] = lambda text: None,
    on_start: Callable[[], object] = lambda: None,
) -> list[Run]:
    """Trains from several seeds, one after the other; each run is the one of `train_run`.

    The seeds are the configuration's own and those that follow it. ``folder/seed-K`` is the run
    of seed K, ``folder/seeds.json`` holds the mean and the standard deviation of every figure,
    and of the agreement of the categories of every two runs on the test images.
    All are of one configuration: seeds that are added to a folder take that of those in it.
    """
    if count < 1:
        raise OptionError(f"seeds={count}: 1 or more is needed")
    folder = Path(folder)
    check_config(config)
    first = config.training.get("seed") or 0
    seeds = range(first, first + count)
    folders = [folder / f"seed-{seed}" for seed in seeds]
    check_target(
        folder, "the runs of several seeds", resume=resume, overwrite=overwrite, runs=folders
    )
    there = held(folder) is not None
    with Writer(folder) as writer:
        named = named_programs(config)
        if resume:
            config = _shared(config, runs_of_seeds(folder))
        configs, started = [], []
        for seed, place in zip(seeds, folders, strict=True):
            own = replace(config, training={**config.training, "seed": seed})
            own, goes_on = continued(own, place, named, resume=resume, trust=trust)
            configs.append(own)
            started.append(goes_on)
        dataset = configs[0].load_dataset()
        configs = [
            settled(own, dataset, place, started=goes_on)
            for own, place, goes_on in zip(configs, folders, started, strict=True)
        ]
        done = [goes_on and is_finished(p) for p, goes_on in zip(folders, started, strict=True)]
        vaes = [build_variant(own, dataset.data_shape) for own in configs]
        for own, vae, place, goes_on in zip(configs, vaes, folders, started, strict=True):
            if goes_on:
                check_belongs(own, vae, read_checkpoint(place), place)
        vaes[0].check_data(dataset.x_test)

        def begin() -> None:
            writer.make()
            check_target(
                folder,
                "the runs of several seeds",
                resume=resume and there,
                overwrite=overwrite and there,
                runs=folders if there else (),
            )
            new = [number for number, goes_on in enumerate(started) if not goes_on]
            prepare_seeds(folder, {folders[n]: configs[n] for n in new}, resume=resume)
            remember(configs[0], named)
            on_start()
            say(f"{config.variant} on {dataset.name}: seeds {seeds[0]} to {seeds[-1]}")

        training = {k: v for k, v in configs[0].training.items() if k != "seed"}
        failures: ManyTrainingError | None = None
        with ExitStack() as logs:
            loggers = [logs.enter_context(logging_epochs(place, tensorboard)) for place in folders]
            try:
                fit_many(
                    vaes,
                    dataset.x_train,
                    **training,
                    seeds=seeds,
                    device=device,
                    progress=progress,
                    runs=folders,
                    resume=resume,
                    on_start=begin,
                    on_epoch=lambda number, row: _log(loggers[number], row),
                )
            except ManyTrainingError as error:
                failures = error
        failed = {} if failures is None else failures.failures
        if failures is not None and len(failed) == count:
            raise failures
        whole = [number for number in range(count) if number not in failed]
        runs = [read_run(folders[number], configs[number]) for number in whole]
        say("evaluating on the test images")
        for number, run in zip(whole, runs, strict=True):
            if not done[number]:
                evaluate_run(run, dataset, device=device, say=say)
                report_run(run, dataset, device=device)
        summary = sum_up([run.measured()[0] for run in runs])
        summary |= _agreement(runs, dataset)
        told = {str(seeds[number]): reason for number, reason in failed.items()}
        write_summary(folder / SEEDS, [seeds[number] for number in whole], summary, told)
        if failures is not None:
            raise failures
        return runs


def _shared(config: RunConfig, there: Sequence[Path]) -> RunConfig:
    """Takes on the configuration of the runs that are there, but for the seed."""
    begun = [run for run in there if has_checkpoint(run)]
    given = replace(config, training={**config.training, "seed": None})
    if begun:
        given = given.resumed_from(read_config(begun[0]), begun[0])
    elif there:
        given = given.over(read_config(there[0]))
    return replace(given, training={**given.training, "seed": config.training.get("seed")})


def sum_up(metrics: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Gives the mean and the standard deviation of each figure.

    Example:
        >>> sum_up([{"rate": 1.0}, {"rate": 3.0}])
        {'rate': (2.0, 1.4142135623730951)}
    """
    names = dict.fromkeys(name for of_run in metrics for name in of_run)
    summary = {}
    for name in names:
        values = [of_run.get(name, math.nan) for of_run in metrics]
        defined = len(values) > 1 and all(map(math.isfinite, values))
        spread = statistics.stdev(values) if defined else math.nan
        summary[name] = (statistics.fmean(values), spread)
    return summary


def write_summary(
    path: Path,
    seeds: Sequence[int],
    summary: Mapping[str, tuple[float, float]],
    failures: Mapping[str, str],
) -> None:
    """Writes a summary as JSON, with null for NaN."""
    metrics = {
        name: {"mean": _number(mean), "sd": _number(spread)}
        for name, (mean, spread) in summary.items()
    }
    content: dict[str, Any] = {"seeds": list(seeds), "metrics": metrics, "failed": dict(failures)}
    with atomic_path(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def seeds_table(folder: str | Path) -> str:
    """Puts the figures of several seeds that matter most in a small table."""
    content = json.loads((Path(folder) / SEEDS).read_text(encoding="utf-8"))
    lines = [f"mean of {len(content['seeds'])} seeds ± standard deviation"]
    for name in SHOWN:
        mean, spread = (content["metrics"].get(name, {}).get(key) for key in ("mean", "sd"))
        if mean is not None:
            told = "" if spread is None else f" ± {spread:.3f}"
            lines.append(f"  {LABELS.get(name, name):<20}  {mean:.3f}{told}")
    return "\n".join(lines)


def _agreement(runs: Sequence[Run], dataset: Dataset) -> dict[str, tuple[float, float]]:
    """How the categories of every two runs agree, if there are two and they have categories."""
    if len(runs) < 2 or runs[0].vae.category is None:
        return {}
    return agreement_of_models([run.vae for run in runs], dataset.x_test)


def _log(logger: Callable[[Mapping[str, float]], object] | None, row: Mapping[str, float]) -> None:
    if logger is not None:
        logger(row)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
