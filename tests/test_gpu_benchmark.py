"""The benchmark of a GPU runs on the CPU, so that it does not break on the day a GPU comes."""

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda fn, **options: fn)


@pytest.mark.slow
def test_every_part_runs_and_writes_its_result(uncompiled, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "EQUALITY", {"beta, scheduled": gpu.EQUALITY["beta, scheduled"]})
    out = tmp_path / "gpu.json"
    assert command.main(["--gpu", "--smoke", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert list(content["parts"]) == list(gpu.PARTS)
    for name, part in content["parts"].items():
        assert "error" not in part, name
    steps = content["parts"]["steps"]
    assert list(steps["milliseconds"]) == list(steps["prepared"])
    assert len(steps["milliseconds"]) == 9
    assert steps["left_out"] == []
    assert content["parts"]["variants"]["variants"]["beta, scheduled"]["equal"]
    printed = capsys.readouterr().out
    assert "target" not in printed
    assert all("targets" not in part for part in content["parts"].values())
    assert "beta, scheduled: captured, equal" in printed
    for name in gpu.PARTS:
        monkeypatch.setitem(gpu.PARTS, name, (None, 0))
    gpu.main(["--smoke", "--out", str(out)])  # what is there is not measured again


def test_says_what_a_gpu_does_not_meet():
    targets = {"under 0.1 s": gpu.target(0.2, False), "at least 20": gpu.target(None, None)}
    told = gpu.summary({"parts": {"epoch": {"about": "An epoch.", "took": 1, "targets": targets}}})
    assert "target: under 0.1 s: 0.2, NOT MET" in told
    assert "target: at least 20: None, not measured" in told


def test_what_breaks_or_has_no_time_leaves_the_rest(tmp_path, monkeypatch, capsys):
    def breaks(scale, clock):
        """About."""
        raise ValueError("broken")

    def slow(scale, clock):
        """About."""
        left_out = []
        assert list(clock.cells("ab", left_out)) == []
        return {"left_out": left_out}

    monkeypatch.setattr(gpu, "PARTS", {"a": (breaks, 9), "b": (slow, 0), "c": (slow, 9)})
    out = tmp_path / "gpu.json"
    gpu.main(["--smoke", "--out", str(out), "--parts", "a", "b"])
    parts = json.loads(out.read_text())["parts"]
    assert parts["a"]["error"] == "ValueError: broken"
    assert parts["b"]["left_out"] == ["a", "b"]
    gpu.main(["--smoke", "--out", str(out), "--seconds", "0"])
    assert "no time was left for c" in capsys.readouterr().out


def test_without_a_device_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--smoke runs the parts on the CPU"):
        gpu.main([])


def test_compiling_pays_after_some_steps():
    of = {"ours": [2.0, 2.2], "ours, compiled": [1.0, 1.2]}
    ready = {"ours": {"seconds": 1.0}, "ours, compiled": {"seconds": 21.0}}
    result = {"milliseconds": of, "prepared": ready}
    assert gpu.break_even(result) == 20_000
    of["ours, compiled"] = [3.0, 3.0]
    assert gpu.break_even(result) is None


def test_targets_are_met_or_not():
    assert gpu.target(25.04, True) == {"value": 25.04, "met": True}
    assert gpu.target(None, None) == {"value": None, "met": None}
