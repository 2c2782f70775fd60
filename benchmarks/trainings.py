"""Trains and evaluates variants from several seeds, in parts, into files that resume.

Each run is made on one thread and written as soon as it is finished, to one file per data set. A
stopped command goes on where it was; options select a part. Runs of other settings, versions,
source or machine are refused, not mixed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from multiprocessing import active_children, get_context
from pathlib import Path

from benchmarks.clusters import baseline
from benchmarks.common import RESULTS
from benchmarks.finished import Run, Times, check_same, commit, key, made_with, put, read
from benchmarks.one_run import Cell, Task, run_one, settings_of


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options that say what to run, and where to."""
    command.add_argument("--data", nargs="+", default=["digits"], metavar="NAME", help="data sets")
    command.add_argument("--data-root", help="folder of torchvision's data sets")
    command.add_argument("--seeds", type=int, default=5, help="how many")
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--epochs", type=int, help="instead of the data set's own")
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder of the results files")
    command.add_argument("--runs", type=Path, help="folder to keep every training in")
    command.add_argument("--mix", action="store_true", help="beside runs of other versions")
    command.add_argument("--table", action="store_true", help="run nothing, show what is there")


def files_of(name: str, args: argparse.Namespace) -> dict[str, Path]:
    """Names the results file of each data set: the latest there is, else a new one of today.

    Args:
        name: Name of the benchmark.
        args: What the command line gave.
    """
    paths = {}
    for data in args.data:
        stem = f"{name}-{Path(data).stem}"
        there = sorted(args.out.glob(f"{stem}-[0-9][0-9][0-9][0-9]-*.json"))
        paths[data] = there[-1] if there else args.out / f"{stem}-{date.today()}.json"
    return paths


class Filling:
    """The runs that are missing in the files of a benchmark, and the making of them.

    Args:
        name: Name of the benchmark.
        order: What the files may hold, in their order.
        cells: What of it is trained from every seed.
        args: What the command line gave.
        lengths: By data set, options of `fit` in place of the command line's defaults.

    Attributes:
        paths: The results file of each data set.

    Raises:
        MixError: If a file holds runs of another making.
    """

    def __init__(
        self,
        name: str,
        order: Sequence[Cell],
        cells: Sequence[Cell],
        args: argparse.Namespace,
        lengths: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.name, self.order, self.cells, self.args = name, order, cells, args
        self.lengths = lengths or {}
        self.paths = files_of(name, args)

    def fill(self) -> list[Run]:
        """Makes what is missing, seed by seed, and writes each run as it ends.

        Returns:
            The content of each file that holds a run.

        Raises:
            SystemExit: If it is interrupted (Ctrl-C); the same command goes on.
        """
        if not self.args.table:
            try:
                self._fill()
            except KeyboardInterrupt:
                print("\nstopped; finished runs are kept, the same command goes on")
                raise SystemExit(130) from None
        contents = [read(path) for path in self.paths.values()]
        return [content for content in contents if content["runs"]]

    def _fill(self) -> None:
        self.times = Times()
        tasks = [task for data in self.paths for task in self._missing(data)]
        left = list(tasks)
        print(f"{len(left)} runs to do{self._time_for(left)}", flush=True)
        for task, run in self._run_all(tasks):
            left.remove(task)
            self._keep(task, run)
            what = run.get("failed") or f"trained in {run['seconds']:.0f} s"
            took = f"{run['took']:.0f} s in all{self._time_for(left)}"
            done = f"[{len(tasks) - len(left)}/{len(tasks)}]"
            print(f"{done} {task.name}: {what}, {took}", flush=True)

    def _missing(self, data: str) -> Iterator[Task]:
        import pyro_mivae as mi

        args, path = self.args, self.paths[data]
        images = mi.load_dataset(data, root=args.data_root)
        facts = {
            "data": images.name,
            "train": len(images.x_train),
            "test": len(images.x_test),
            "shape": list(images.data_shape),
        }
        given = {**self.lengths.get(images.name, {})}
        if args.epochs is not None:
            given["epochs"] = args.epochs
        there = read(path)
        check(path, there, facts, given, mix=args.mix)
        put(path, facts | {"command": self._command(data)})
        if images.y_train is not None and "pixels" not in there:
            put(path, {"pixels": baseline(images)})
        for run in there["runs"]:
            self.times.add(data, run)
        done = {key(run) for run in there["runs"]}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for cell in self.cells:
                if key({**cell, "seed": seed}) not in done:
                    how = settings_of(cell, seed, images.name, len(images.x_train), given)
                    yield Task(cell, seed, data, args.data_root, how, args.runs)

    def _run_all(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Run]]:
        if self.args.jobs == 1:
            for task in tasks:
                yield task, run_one(task, progress=sys.stderr.isatty())
            return
        # Fresh processes: a forked one would share locks with the threads of this one.
        pool = ProcessPoolExecutor(
            self.args.jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        )
        try:
            jobs = {pool.submit(run_one, task): task for task in tasks}
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        except BaseException:
            for child in active_children():  # which do not hear Ctrl-C
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _keep(self, task: Task, run: Run) -> None:
        protocol = {run["variant"]: run.pop("protocol")} if "protocol" in run else {}
        beside = {"commit": commit(), "protocol": protocol}
        put(self.paths[task.data], beside, run, self.order)
        self.times.add(task.data, run)

    def _time_for(self, left: Sequence[Task]) -> str:
        asked = [(task.data, {**task.cell, "settings": task.settings}) for task in left]
        return self.times.told(asked, self.args.jobs)

    def _command(self, data: str) -> str:
        """By which command, but for which part of it, a file is made."""
        named = "" if data == "digits" else f" --data {Path(data).name} --data-root DIR"
        epochs = self.args.epochs
        length = "" if epochs is None else f" --epochs {epochs}"
        return f"python -m benchmarks {self.name}{named}{length}"


def check(path: Path, there: Run, facts: Run, given: Mapping[str, int], *, mix: bool) -> None:
    """Refuses to add to runs that were made otherwise than those that are asked for.

    Args:
        path: The results file.
        there: Its content.
        facts: The data set.
        given: Options of `fit` in place of the command line's defaults.
        mix: Whether other versions, source or machines are allowed.

    Raises:
        MixError: If they differ in data, settings, or (without ``mix``) in what made them.
    """
    now = made_with()
    for run in there["runs"]:
        what = " ".join(map(str, key(run)))
        check_same(path, what, {name: there.get(name) for name in facts}, facts)
        how = settings_of(run, run["seed"], facts["data"], facts["train"], given)
        for part, options in how.items():
            check_same(path, what, run["settings"].get(part, {}), options)
        if not mix:
            check_same(path, what, run["made_with"], now)
