"""Every variant on digits, MNIST and Fashion-MNIST, from five seeds, none selected.

Each run (a variant, a data set, a seed) is trained and evaluated on one thread, and written as
soon as it is finished, to one file per data set. A stopped command goes on where it was;
`--variants`, `--data`, `--seeds`, `--first-seed` and `--epochs` do a part. Runs of other settings,
versions, source or machine are refused, not mixed. `--runs` also keeps every training in a folder
of its own, so that one that was stopped goes on in its midst, and a finished one is measured again
without being trained again.

    python -m benchmarks results                       # digits, 45 runs
    python -m benchmarks results --data mnist fashion-mnist --data-root DIR
    python -m benchmarks results --table               # of what is there, without running anything
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, split_options, write
from benchmarks.finished import Run, Times, add, check_same, commit, key, made_with, read
from benchmarks.results_table import tables

DATA = ("digits", "mnist", "fashion-mnist")
LENGTHS: dict[str, dict[str, int]] = {
    "mnist": {"epochs": 5, "batch_size": 128},
    "fashion-mnist": {"epochs": 5, "batch_size": 128},
}
"""Where trainings are shorter than the command line's, the same for all variants."""


def settings_of(variant: str, seed: int, data: str, num_train: int, epochs: int | None) -> Run:
    """Works out everything that a run is made by.

    Args:
        variant: Name of the variant.
        seed: The run's seed.
        data: Name of the data set.
        num_train: Number of its training images.
        epochs: Instead of the data set's own.

    Returns:
        Options of the variant, of `fit` and of `evaluate`, as far as they are plain values.
    """
    import pyro_mivae as mi
    from pyro_mivae.diagnostics.report import information
    from pyro_mivae.runs.build import plain_defaults
    from pyro_mivae.runs.options import default_options

    options = default_options(data, variant, num_train) | LENGTHS.get(data, {}) | {"seed": seed}
    if epochs is not None:
        options["epochs"] = epochs
    of_model, of_fit = split_options(options)
    own = plain_defaults(mi.VARIANTS[variant])
    return {
        "model": own | {name: value for name, value in of_model.items() if name in own},
        "fit": of_fit,
        "evaluate": {**_plain(mi.evaluate), **_plain(information)},
    }


def _plain(function: Any) -> Run:
    """The keywords of a function that have a plain value as default."""
    parameters = inspect.signature(function).parameters.values()
    of_plain = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    return {p.name: p.default for p in of_plain}


def run_one(
    variant: str,
    data: str,
    data_root: str | None,
    settings: Run,
    folder: Path | None = None,
    progress: bool = False,
) -> Run:
    """Trains and evaluates a variant, on one thread.

    Args:
        variant: Its name.
        data: Name of the data set.
        data_root: Folder of torchvision's data sets.
        settings: What `settings_of` returned.
        folder: Where to keep the training, or to find it.
        progress: Shows a progress bar of the training.

    Returns:
        The run. ``seconds`` is the processor's time for the training, the categories' start too;
        processes of the compiler are left out.
    """
    import torch

    torch.set_num_threads(1)
    import pyro_mivae as mi

    began = time.perf_counter()
    images = mi.load_dataset(data, root=data_root)
    seed = settings["fit"]["seed"]
    torch.manual_seed(seed)
    vae = mi.VARIANTS[variant](images.data_shape, **settings["model"])
    run: Run = {"variant": variant, "seed": seed, "settings": settings, "made_with": made_with()}
    try:
        with timed(folder, run) as seconds:
            options = {"device": "cpu", "progress": progress, **settings["fit"]}
            mi.fit(vae, images.x_train, run=folder, resume=folder is not None, **options)
    except mi.errors.TrainingError as error:
        return run | {"failed": str(error), "took": time.perf_counter() - began, "metrics": {}}
    labels = None if images.y_train is None else (images.x_train, images.y_train)
    found = mi.evaluate(vae, images.x_test, images.y_test, train=labels)
    figures = {
        name: round(float(value), 4) if math.isfinite(value) else None
        for name, value in found.items()
        if "[" not in name
    }
    return run | {
        "seconds": round(sum(seconds), 1),
        "took": round(time.perf_counter() - began, 1),
        "metrics": figures,
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
    made = {"how": how, "made_with": run["made_with"], "seconds": []}
    note = None if folder is None else folder / "made.json"
    if note is not None and note.exists():
        made = json.loads(note.read_text())
        check_same(note, "a training", made["how"], how)
        if made["made_with"] != run["made_with"]:
            run["trained_with"] = made["made_with"]
    seconds = made["seconds"]
    began = time.process_time()
    try:
        yield seconds
    finally:
        seconds.append(time.process_time() - began)
        if note is not None:
            write(note, made)


def main(argv: list[str] | None = None) -> list[Path]:
    """Runs what is missing, and prints the tables.

    Args:
        argv: The command line.

    Returns:
        The results files, one per data set.
    """
    args = parser().parse_args(argv)
    paths = {data: file_of(args.out, data) for data in args.data}
    if not args.table:
        try:
            fill(args, paths)
        except KeyboardInterrupt:
            print("\nstopped; finished runs are kept, the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
    contents = [read(path) for path in paths.values()]
    print(tables([content for content in contents if content["runs"]]))
    if args.picture:
        from benchmarks.results_picture import draw

        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_bytes(draw([content for content in contents if content["runs"]]))
    for path in paths.values():
        print(f"all runs: {path}" if path.exists() else f"no runs yet: {path}")
    return list(paths.values())


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    import pyro_mivae as mi

    command = argparse.ArgumentParser(
        prog="python -m benchmarks results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--data", nargs="+", default=["digits"], help=" ".join(DATA))
    command.add_argument("--data-root", help="folder of torchvision's data sets")
    command.add_argument("--variants", nargs="+", choices=[*mi.VARIANTS], default=[*mi.VARIANTS])
    command.add_argument("--seeds", type=int, default=5, help="how many")
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--epochs", type=int, help="instead of the data set's own")
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder of the results files")
    command.add_argument("--runs", type=Path, help="folder to keep every training in")
    command.add_argument("--mix", action="store_true", help="beside runs of other versions")
    command.add_argument("--table", action="store_true", help="run nothing, show what is there")
    command.add_argument("--picture", type=Path, help="PNG of what is there")
    return command


def file_of(folder: Path, data: str) -> Path:
    """Names a data set's results file: the latest there is, else a new one of today.

    Args:
        folder: The folder of results files.
        data: Name of the data set, or a path.
    """
    name = f"results-{Path(data).stem}"
    there = sorted(folder.glob(f"{name}-[0-9][0-9][0-9][0-9]-*.json"))
    return there[-1] if there else folder / f"{name}-{date.today()}.json"


def fill(args: argparse.Namespace, paths: Mapping[str, Path]) -> None:
    """Trains and evaluates what is missing, and writes each run as it ends.

    Seed by seed, so that what is there at any time is all variants from fewer seeds.

    Args:
        args: What the command line gave.
        paths: The file of each data set.

    Raises:
        MixError: If a file holds runs of another making.
    """
    import pyro_mivae as mi

    wanted: list[Run] = []
    facts = {}
    times = Times()
    for data, path in paths.items():
        images = mi.load_dataset(data, root=args.data_root)
        facts[data] = {
            "data": images.name,
            "train": len(images.x_train),
            "test": len(images.x_test),
            "shape": list(images.data_shape),
        }
        there = read(path)
        check(path, there, facts[data], args)
        for run in there["runs"]:
            times.add(run | {"data": data})
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for name in args.variants:
                if (name, seed) not in map(key, there["runs"]):
                    how = settings_of(name, seed, images.name, len(images.x_train), args.epochs)
                    wanted.append({"data": data, "variant": name, "settings": how})
    left = list(wanted)
    print(f"{len(left)} runs to do{times.told(left, args.jobs)}", flush=True)
    for asked, run in run_all(args, wanted):
        data = asked["data"]
        protocol = {run["variant"]: run.pop("protocol")} if "protocol" in run else {}
        beside = facts[data] | {"command": command_of(data, args.epochs), "commit": commit()}
        add(paths[data], run, mi.VARIANTS, **beside, protocol=protocol)
        left.remove(asked)
        times.add(run | {"data": data})
        done = f"[{len(wanted) - len(left)}/{len(wanted)}] {data} {run['variant']} {run['seed']}"
        what = run.get("failed") or f"trained in {run['seconds']:.0f} s"
        took = f"{run['took']:.0f} s in all{times.told(left, args.jobs)}"
        print(f"{done}: {what}, {took}", flush=True)


def run_all(args: argparse.Namespace, wanted: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Runs what is wanted, in this process or in several, and yields each with what it gave."""

    def arguments(asked: Run) -> tuple[Any, ...]:
        name = f"{Path(asked['data']).stem}-{asked['variant']}-{asked['settings']['fit']['seed']}"
        folder = None if args.runs is None else args.runs / name
        return asked["variant"], asked["data"], args.data_root, asked["settings"], folder

    if args.jobs == 1:
        for asked in wanted:
            yield asked, run_one(*arguments(asked), progress=sys.stderr.isatty())
        return
    pool = ProcessPoolExecutor(args.jobs)
    try:
        jobs = {pool.submit(run_one, *arguments(asked)): asked for asked in wanted}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def check(path: Path, there: Run, facts: Run, args: argparse.Namespace) -> None:
    """Refuses to add to runs that were made otherwise than these are to be.

    Args:
        path: The results file.
        there: Its content.
        facts: The data set.
        args: What the command line gave.

    Raises:
        MixError: If they differ in data, settings, or (without ``--mix``) in what made them.
    """
    now = made_with()
    for run in there["runs"]:
        what = f"{run['variant']} from seed {run['seed']}"
        check_same(path, what, {name: there.get(name) for name in facts}, facts)
        how = settings_of(*key(run), facts["data"], facts["train"], args.epochs)
        for part, options in how.items():
            check_same(path, what, run["settings"][part], options)
        if not args.mix:
            check_same(path, what, run["made_with"], now)


def command_of(data: str, epochs: int | None) -> str:
    """Tells by which command, but for which part of it, a file was made."""
    named = f" --data {data}" + ("" if data == "digits" else " --data-root DIR")
    return f"python -m benchmarks results{named}" + (f" --epochs {epochs}" if epochs else "")


if __name__ == "__main__":
    main()
