"""The benchmark of a GPU runs on the CPU, and keeps its results however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, gpu_contenders, gpu_parts, gpu_results
from benchmarks.gpu_race import Bench, prepare, race
from benchmarks.gpu_results import Results, ratio, targets
from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning

HEADER = {"machine": {"gpu": None}}
SMOKE = gpu_parts.SMOKE
MISSING = "PIL click matplotlib scipy sklearn tomli_w torchvision"
BARE = f"""
import sys, runpy
sys.modules.update(dict.fromkeys({MISSING!r}.split()))  # torch and Pyro need none of them
runpy.run_module("benchmarks", run_name="__main__")
"""


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda fn, **options: fn)


@pytest.fixture
def bench(tmp_path):
    results = Results(tmp_path / "gpu.json", HEADER, "code")
    images = torch.rand(SMOKE.images, 1, 8, 8)
    return Bench(SMOKE, images, results, time.perf_counter() + 60)


@pytest.mark.slow
def test_every_part_runs_and_writes_its_results(uncompiled, tmp_path, capsys, monkeypatch):
    one = {"infocat, sample": gpu_parts.VARIANTS["infocat, sample"]}
    monkeypatch.setattr(gpu_parts, "VARIANTS", one)
    out = tmp_path / "gpu.json"
    assert command.main(["--gpu", "--smoke", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert list(content["parts"]) == list(gpu_parts.PARTS)
    for name, part in content["parts"].items():
        assert list(part["cells"]) == list(gpu_parts.PARTS[name].cells(SMOKE))
        for cell in part["cells"].values():
            assert cell["done"], name
            assert not gpu_results.failures(cell), name
            assert all("notes" not in found for found in cell.get("contenders", {}).values())
    assert all(row["value"] is not None for row in targets(content["parts"]))
    assert content["targets"] == []  # they are about a GPU
    assert content["contenders"]["stock SVI, Pyro's ELBO"].endswith("TraceMeanField_ELBO()")
    assert "FAILED" not in capsys.readouterr().out
    monkeypatch.setattr(gpu_parts, "race", None)
    gpu.main(["--smoke", "--out", str(out)])  # what is there is not measured again
    assert json.loads(out.read_text()) == content


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_measured(tmp_path):
    out = tmp_path / "gpu.json"
    options = ["gpu", "--smoke", "--parts", "step", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", BARE, *options])

    try:
        while not out.exists():
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    cell = json.loads(out.read_text())["parts"]["step"]["cells"]["vae"]
    assert cell["contenders"]["ours"]["milliseconds"] > 0
    assert (cell["rounds"], cell["done"]) == ([], False)


def turn(seconds, vae, x, size):
    """A contender that takes a time for a turn."""
    return partial(time.sleep, seconds)


def test_a_run_that_was_cut_short_goes_on(bench):
    contenders = {"ours": partial(turn, 0.002), "hand-made graph": partial(turn, 0.001)}
    bench.results.part("step", "")
    cell = bench.results.cell("step", "vae")

    class Cut(Bench):
        @property
        def is_over(self):
            return len(cell["rounds"]) == 1

    cut = Cut(SMOKE, bench.images, bench.results, 0)
    assert race(cut, cell, None, contenders, 16) is False
    again = Results(bench.results.path, HEADER, "code")
    there = again.cell("step", "vae")
    assert there == cell
    (first,) = there["rounds"]
    assert race(Bench(SMOKE, bench.images, again, bench.ends), there, None, contenders, 16)
    assert len(there["rounds"]) == SMOKE.rounds
    assert there["rounds"][0] == first
    assert 1 < ratio(there, "ours", "hand-made graph") < 4


def test_without_a_round_contenders_are_compared_alone(bench):
    cell = {"contenders": {"a": {"milliseconds": 3.0}, "b": {"milliseconds": 2.0}}, "rounds": []}
    assert ratio(cell, "a", "b") == 1.5
    assert ratio(cell, "a", "c") is None


def test_other_code_measures_anew_what_failed_or_was_cut_short(bench):
    bench.results.part("step", "")
    for name, kept in (("whole", {}), ("failed", {"error": "E"}), ("cut", {})):
        bench.results.cell("step", name).update(kept, done=name != "cut", value=1)
    bench.results.save()
    same, other = (Results(bench.results.path, HEADER, code) for code in ("code", "other"))
    assert same.cell("step", "whole") is None
    assert same.cell("step", "failed") is None
    assert same.cell("step", "cut")["value"] == 1
    assert other.cell("step", "whole") is None
    assert other.cell("step", "failed") == {"source": "other", "done": False}
    assert other.cell("step", "cut") == {"source": "other", "done": False}


def test_results_of_another_machine_are_left_alone(bench):
    bench.results.save()
    with pytest.raises(SystemExit, match="give another --out"):
        Results(bench.results.path, {"machine": {"gpu": "H200"}}, "code")


def test_a_contender_that_fails_leaves_the_rest(bench):
    fails = iter([False, False, True])

    def later(vae, x, size):
        return lambda: 1 / 0 if next(fails) else None

    cell = {}
    contenders = {"at once": lambda vae, x, size: 1 / 0, "later": later, "ours": partial(turn, 0)}
    assert race(bench, cell, None, contenders, 16)
    wanted = "ZeroDivisionError: division by zero"
    assert gpu_results.failures(cell) == {"at once": wanted, "later": wanted}
    assert [list(times) for times in cell["rounds"]] == [["ours"]] * SMOKE.rounds
    text = gpu_results.summary("step", {"about": "", "cells": {"vae": cell | {"done": True}}})
    assert f"at once FAILED: {wanted}" in text


def test_it_ends_by_the_clock(tmp_path, monkeypatch, capsys):
    def endless(bench, cell):
        cell["before"] = 1.0
        bench.results.save()
        time.sleep(60)

    parts = {"a": gpu_parts.Part("about", 60, lambda scale: {"endless": endless, "next": endless})}
    monkeypatch.setattr(gpu_parts, "PARTS", parts)
    out = tmp_path / "gpu.json"
    before = signal.getsignal(signal.SIGALRM)
    started = time.perf_counter()
    gpu.main(["--smoke", "--out", str(out), "--seconds", "0.5"])
    assert time.perf_counter() - started < 30
    assert signal.getsignal(signal.SIGALRM) is before
    assert "it goes on there" in capsys.readouterr().out
    cells = json.loads(out.read_text())["parts"]["a"]["cells"]
    assert cells == {"endless": {"source": cells["endless"]["source"], "done": False, "before": 1}}


def test_the_check_finds_steps_that_do_nothing(bench, monkeypatch):
    gpu_parts.check(bench, cell := {})
    assert cell["difference"] < 1e-3

    class Nothing(gpu_contenders.Recording):
        def _record(self, body, count):
            return lambda: None

    monkeypatch.setattr(gpu_contenders, "Recording", Nothing)
    with pytest.raises((AssertionError, PyroMivaeError, PyroMivaeWarning)):
        gpu_parts.check(bench, {})


def measured(**milliseconds):
    rounds = [dict(milliseconds), {name: 2 * value for name, value in milliseconds.items()}]
    return {"rounds": rounds, "contenders": {}}


def test_targets():
    step = {
        "ours": 0.2,
        "ours, compiled": 0.05,
        "hand-made graph": 0.06,
        "hand-made graph, compiled": 0.04,
        "stock SVI, our ELBO": 1.0,
        "stock SVI, Pyro's ELBO": 0.95,
    }
    parts = {
        "check": {"cells": {"captured": {"difference": 2e-4, "error": "E"}}},
        "step": {"cells": {"vae": measured(**step)}},
        "epoch": {
            "cells": {"staged": {"seconds": [9, 0.05]}, "compiled": {"seconds": [9, 0.03, 0.03]}}
        },
        "mi.SVI": {"cells": {"vae": measured(**{"mi.SVI": 0.3, "ours": 0.2})}},
    }
    found = {row["target"]: (row["asked"], row["value"], row["met"]) for row in targets(parts)}
    values = [(asked, value and round(value, 5), met) for asked, value, met in found.values()]
    assert values == [
        ("at most 1", None, None),
        ("at most 0.0001", 2e-4, False),
        ("at most 0.0001", None, None),
        ("at most 0.08", 0.075, True),
        ("at most 0.04", 0.03, True),
        ("at least 20", 20, True),
        ("at least 20", 19, False),
        ("at most 1.05", 1.25, False),
        ("at most 1.5", 1.5, True),
    ]
    told = gpu_results.table(list(targets(parts)))
    assert "stock SVI, Pyro's ELBO, in units of ours: 19, at least 20: NOT MET" in told
    assert [row["met"] for row in targets({})] == [None] * len(values)


def test_memory_is_a_contenders_own(monkeypatch):
    peak, allocated = [900 << 20], [100 << 20]
    fakes = {
        "is_available": lambda: True,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: peak.__setitem__(0, allocated[0]),
        "memory_allocated": lambda: allocated[0],
        "max_memory_allocated": lambda: peak[0],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def build():
        peak[0] = max(peak[0], allocated[0] + (64 << 20))
        return lambda: None

    prepare(found := {}, build)
    assert found["mib"] == 64


def test_images(tmp_path):
    noise, told = gpu.load_images(None, 5, False)
    assert noise.shape == (5, 1, 28, 28)
    assert told == "uniform noise, 5 x 1 x 28 x 28"
    with pytest.raises(SystemExit, match="give --data-root the folder that holds it"):
        gpu.load_images(tmp_path, 5, False)
    pixels = np.arange(8 * 784, dtype=np.uint8).reshape(8, 28, 28)
    header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes()
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / gpu.IDX).write_bytes(header + pixels.tobytes())
    images, told = gpu.load_images(tmp_path, 5, True)
    assert told == "MNIST, 5 training images"
    assert images.shape == (5, 1, 28, 28)
    assert images.max() == 1


def test_without_a_device_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--smoke runs the parts on the CPU"):
        gpu.main([])
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--smoke", "--parts", "nope"])
