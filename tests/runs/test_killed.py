"""Runs that are killed (SIGKILL) at any instant, and resumed, end as runs that were left alone."""

import contextlib
import csv
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_mivae.training import read_checkpoint

EPOCHS = 10
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pyro_mivae.cli.commands",
        "pyro_mivae.report",
        "torch._dynamo",
        "matplotlib.pyplot",
        "sklearn.manifold",
    ]
)
CHILD = """
import json, sys, torch
from pyro_mivae.runs import RunConfig, train_run, train_seeds, sweep_run
from pyro_mivae.training import checkpointer

def evaluate(run, dataset, **how):
    (run.folder / "metrics.json").write_text('{"metrics": {"elbo": 1.0}, "protocol": {}}')

def report(run, dataset, **how):
    (run.folder / "report.html").touch()

torch.set_num_threads(1)
checkpointer.SECONDS_BETWEEN_CHECKPOINTS = 0.0  # one after each epoch
if not REPORTED:
    group = sys.modules["pyro_mivae.runs.group"]
    group.evaluate_run, group.report_run = evaluate, report
"""


GROUP = """
from torch import distributed

distributed.init_process_group(
    "gloo", init_method="file://{store}", rank={rank}, world_size={size}
)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """200 images about four prototypes."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 200)
    images = rng.random((4, 8, 8))[labels] * 0.8 + rng.random((200, 8, 8)) * 0.2
    path = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(path, images=images.astype("f4"), labels=labels)
    return path


@pytest.fixture
def config(data):
    """Writes down the configuration of a variant."""

    def config(variant):
        model = {"num_categories": 4, "latent_dim": 8, "warm_start": 4} if "cat" in variant else {}
        training = {"epochs": EPOCHS, "batch_size": 64, "seed": 5}
        return f"RunConfig({variant!r}, {str(data)!r}, model={model}, training={training})"

    return config


def start(call, reported=False, size=1):
    """Starts one process, or several of one group."""
    store, processes = f"{tempfile.mkdtemp()}/store", []
    for rank in range(size):
        group = GROUP.format(store=store, rank=rank, size=size) if size > 1 else ""
        source = f"REPORTED = {reported}\n{CHILD}{group}{call}\n"
        processes.append(CONTEXT.Process(target=exec, args=(source,)))
        processes[-1].start()
    return processes


def finish(call, reported=False, size=1):
    for process in (processes := start(call, reported, size)):
        process.join()
    assert [process.exitcode for process in processes] == [0] * size


def kill(processes, ready, delay, rank=0):
    """Kills a process some time after it is ready, and says whether it was still there.

    Others of its group are stopped, as ``torchrun`` does.
    """
    killed = processes[rank]
    while killed.is_alive() and not ready():
        time.sleep(0.001)
    time.sleep(delay)
    killed.kill()
    for process in processes:
        process.join(3)
        process.terminate()
        process.join(60)
        assert process.exitcode is not None, "a process waits for the killed one"
    return killed.exitcode == -signal.SIGKILL


def rows(folder):
    """Counts the lines of all histories."""
    lines = 0
    for root, _, names in os.walk(folder):  # folders may go while they are read
        if "history.csv" in names:
            with contextlib.suppress(FileNotFoundError):  # the run is just starting anew
                lines += Path(root, "history.csv").read_bytes().count(b"\n") - 1
    return lines


def kill_and_resume(call, folder, kills, last, size):
    """Kills runs, several times each, after random rows; gives their folders once they ended.

    The call is that of a run in ``FOLDER``; ``last`` is the number of its last row.
    """
    rng, done, folders = random.Random(kills), 0, []
    while done < kills:
        folders.append(folder / str(len(folders)))
        assert len(folders) <= kills, "no run could be killed before its end"
        resumed = f"{call}, resume=True)".replace("FOLDER", repr(str(folders[-1])))
        for after in sorted(rng.sample(range(last), min(kills - done, 5))):
            ready = lambda: rows(folders[-1]) >= after  # noqa: B023, E731
            rank, delay = rng.randrange(size), rng.uniform(0, 0.05)
            done += kill(start(resumed, size=size), ready, delay, rank)
        finish(resumed, size=size)
    return folders


def assert_same(a, b, where=""):
    """Compares what checkpoints hold, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert a.numpy().tobytes() == b.numpy().tobytes(), where
    elif isinstance(a, dict | list | tuple):
        assert len(a) == len(b), where
        pairs = a.items() if isinstance(a, dict) else enumerate(a)
        for key, value in pairs:
            assert_same(value, b[key], f"{where}/{key}")
    else:
        assert a == b, where


def assert_same_run(folder, whole):
    """Compares checkpoint and history of two run folders; seconds may differ."""
    files = [read_checkpoint(run) for run in (folder, whole)]
    apart = ("file", "history")  # history.csv holds the same, see below
    assert_same(*({k: v for k, v in file.items() if k not in apart} for file in files))
    histories = []
    for run in (folder, whole):
        with (run / "history.csv").open(newline="") as file:
            histories.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert histories[0] == histories[1]


def check_run(call, tmp_path, kills, last, compare, size=1):
    whole = tmp_path / "whole"
    finish(f"{call})".replace("FOLDER", repr(str(whole))), size=size)
    for folder in kill_and_resume(call, tmp_path, kills, last, size):
        compare(folder, whole)


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("critic-infomax", "infocat", "infogan")
]


@pytest.mark.parametrize("variant", ["vae", *SLOW])
def test_a_killed_run_ends_as_if_left_alone(variant, config, tmp_path):
    call = f"train_run({config(variant)}, FOLDER"
    check_run(call, tmp_path, 5, EPOCHS, assert_same_run)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vae", "infocat", "infogan"])
def test_a_killed_run_of_two_processes_ends_as_if_left_alone(variant, config, tmp_path):
    call = f"train_run({config(variant)}, FOLDER"
    check_run(call, tmp_path, 4, EPOCHS, assert_same_run, size=2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_killed_seeds_end_as_if_left_alone(size, config, tmp_path):
    def compare(folder, whole):
        for seed in ("seed-5", "seed-6", "seed-7"):
            assert_same_run(folder / seed, whole / seed)
        assert (folder / "seeds.json").read_bytes() == (whole / "seeds.json").read_bytes()

    call = f"train_seeds({config('vae')}, FOLDER, 3"
    check_run(call, tmp_path, 8 // size, 3 * EPOCHS, compare, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_killed_sweep_ends_as_if_left_alone(size, config, tmp_path):
    def compare(folder, whole):
        for name in ("sweep.csv", "sweep.json", "sweep.png"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name

    call = f"sweep_run({config('beta')}, FOLDER, {{'beta': (0.5, 4.0)}}, 2"
    check_run(call, tmp_path, 8 // size, 4 * EPOCHS, compare, size)


@pytest.mark.slow
def test_killed_while_evaluating_and_while_the_report_is_written(config, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    finish(f"train_run({config('vae')}, {str(whole)!r})", reported=True)
    resumed = f"train_run({config('vae')}, {str(folder)!r}, resume=True)"
    pictures = len([*whole.glob("*.png")])
    instants = [
        (lambda: rows(folder) == EPOCHS, 0.5),
        (lambda: rows(folder) == EPOCHS, 3.0),
        ((folder / "metrics.json").exists, 0.0),
        ((folder / "metrics.json").exists, 0.5),
        (lambda: len([*folder.glob("*.png")]) >= 1, 0.05),
        (lambda: len([*folder.glob("*.png")]) >= pictures // 2, 0.1),
        (lambda: len([*folder.glob("*.png")]) >= pictures, 0.0),
    ]
    rng, killed = random.Random(7), 0
    for ready, within in instants:
        killed += kill(start(resumed, reported=True), ready, rng.uniform(0, within))
    assert killed >= 4
    finish(resumed, reported=True)
    assert_same_run(folder, whole)
    written, others = ({path.name for path in run.glob("[!.]*")} for run in (whole, folder))
    assert written == others
    for name in written - {"checkpoint.pt", "checkpoint.previous.pt", "history.csv"}:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
