"""The benchmarks of time run, with tiny settings; what they measure is not judged here."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks import contenders, handwritten, scaling, speed
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.memory import peak_memory
from pyro_mivae import VAE

QUICK = ["hand-written", "ours", "ours, eager", "ours, stock SVI"]


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """So few that `fit` compiles nothing."""
    monkeypatch.setattr(contenders, "EPOCHS", 20)


@pytest.fixture
def images(tmp_path):
    """A data set of 40 images."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).random((40, 8, 8), dtype=np.float32))
    return str(path)


def test_usage_is_told_without_torch():
    script = """
import sys
from benchmarks.__main__ import main
main([])
try:
    main(["speed", "--help"])
except SystemExit:
    pass
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["speed", "--variants", "nope"], "argument --variants: there is no 'nope'; allowed are"),
        (["speed", "--contenders", "foo"], "--contenders of vae: there is no 'foo'; allowed are"),
        (["many", "--variants", "nope"], "argument --variants: there is no 'nope'; allowed are"),
        (["scaling", "--contenders", "foo"], "argument --contenders: there is no 'foo'; allowed"),
    ],
)
def test_names_that_there_are_not(command, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_can_be_copied(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: python -m benchmarks {name} ")
    examples = [line for line in lines if line.startswith(f"    python -m benchmarks {name}")]
    assert examples


def test_speed_side_by_side(images, tmp_path, capsys, monkeypatch):
    out = tmp_path / "speed.json"
    command = ["--data", images, "--variants", "vae", "--batch-sizes", "16", "--turns", "2"]
    command += ["--steps", "2", "--out", str(out), "--contenders", *QUICK]
    speed.main(command)
    (cell,) = json.loads(out.read_text())["cells"]
    assert cell["largest_difference"] < 1e-9
    assert list(cell["milliseconds"]) == QUICK
    for clocks in cell["milliseconds"].values():
        assert len(clocks["wall"]) == len(clocks["cpu"]) == 2
        assert min(clocks["wall"]) > 0
    assert speed.ratios(cell, "ours", "ours") == [1.0, 1.0, 1.0]
    printed = capsys.readouterr().out
    assert "| vae | 16 | " in printed
    assert "| in hand-written | batch |" in printed
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(speed, "measure", None)  # what is there is not measured again
    monkeypatch.setattr("benchmarks.speed_picture.draw", lambda cells: b"")
    speed.main(command)
    broken = json.loads(out.read_text()) | {"machine": "another"}
    out.write_text(json.dumps(broken))
    with pytest.raises(SystemExit, match="give another --out"):
        speed.main(command)


def test_categories_and_games_in_turns():
    images = torch.rand(8, 1, 8, 8)
    for variant in ("infocat", "infogan"):
        cell = speed.measure(variant, 8, turns=1, steps=1, images=images, contenders=QUICK)
        assert cell["variant"] == variant
        assert set(cell["milliseconds"]) == set(QUICK)


def test_nothing_is_timed_before_the_mathematics_is_the_same(monkeypatch):
    monkeypatch.setitem(handwritten.HANDWRITTEN, "beta", handwritten.HANDWRITTEN["vae"])
    with pytest.raises(AssertionError, match="beta: the loss differs"):
        speed.measure("beta", 8, turns=1, steps=1, images=torch.rand(8, 1, 8, 8))


def test_the_picture_has_a_panel_per_batch_size():
    from benchmarks.speed_picture import draw

    times = {"wall": [2.0, 2.2, 2.4], "cpu": [2.0, 2.2, 2.4]}
    of = {name: times for name in contenders.ALWAYS}
    cells = [
        {"variant": variant, "batch_size": n, "device": "cpu", "threads": 1, "milliseconds": of}
        for variant in ("vae", "cat")
        for n in (128, 1024)
    ]
    assert draw(cells).startswith(b"\x89PNG")


def test_each_contender_keeps_to_its_turns():
    log = []

    def run(wait):
        for epoch in range(3):
            log.append(epoch)
            wait()

    paced = contenders.Paced(run)
    assert log == []
    paced()
    paced()
    assert log == [0, 1]
    paced.close()
    assert log == [0, 1]
    contenders.Paced(run).close()  # without a turn
    paced = contenders.Paced(run)
    for _ in range(3):
        paced()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the training is over"):
            paced()
    log.clear()

    def fail(wait):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        contenders.Paced(fail)()


def test_a_contender_trains_a_copy():
    x, vae = torch.rand(32, 1, 8, 8), VAE((1, 8, 8))
    before = [parameter.clone() for parameter in vae.parameters()]
    turn = contenders.build("hand-written", vae, handwritten.HANDWRITTEN["vae"], x, 16)
    losses = [turn() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


def test_scaling_sweep_by_sweep(tmp_path, capsys, monkeypatch):
    out = tmp_path / "scaling.json"
    small = {sweep: (2,) for sweep in scaling.SWEEPS} | {"images": (128,)}
    monkeypatch.setattr(scaling, "SWEEPS", small)
    monkeypatch.setattr(scaling, "BATCH", 8)
    monkeypatch.setattr(scaling, "peak_memory", lambda name, *of: {"steps": len(name) + of[1]})
    quick = ["ours", "ours, stock SVI"]
    command = ["--steps", "1", "--turns", "1", "--out", str(out), "--contenders", *quick]
    scaling.main(command)
    points = json.loads(out.read_text())["points"]
    assert [point["sweep"] for point in points] == list(small)
    assert points[-1]["mib"] == {"ours": {"steps": 6}, "ours, stock SVI": {"steps": 17}}
    assert all(point["largest_difference"] < 1e-9 for point in points[:-1])
    assert points[5]["steps_per_turn"] == 128 // 8
    printed = capsys.readouterr().out
    assert "| categories | ours | ours, stock SVI |" in printed
    assert "| 2 | 6.00 | 17.00 |" in printed
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(scaling, "measure_point", None)  # what is there is not measured again
    monkeypatch.setattr("benchmarks.scaling_picture.draw", lambda points: b"")
    scaling.main(command)


@pytest.mark.slow
def test_memory_grows_with_the_batch():
    small, large = (peak_memory("hand-written", "vae", n) for n in (16, 2048))
    assert 0 < small["steps"] < large["steps"] - 10  # 2,032 images and their gradient, and more
    assert small["preparation"] > 0
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        peak_memory("nobody", "vae", 16)
