"""Devices by name, and the devices that an error names."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError
from pyro_mivae.runs import evaluate_run, open_run, report_run, train_run
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.training import resolve_device


def allowed(device):
    with pytest.raises(OptionError) as raised:
        resolve_device(device)
    message = str(raised.value)
    assert message.startswith(f"device={str(device)!r} is not available here; allowed are ")
    return message.rpartition("allowed are ")[2]


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda"), "abacus", "meta"])
def test_without_a_device(device):
    assert str(resolve_device()) == "cpu"
    assert allowed(device) == "auto, cpu"


def test_with_a_device(pretended):
    for device in ("auto", "cuda", "cuda:0", torch.device("cuda")):
        assert str(resolve_device(device)) == "cuda:0"
    assert str(resolve_device("cpu")) == "cpu"
    for device in ("cuda:1", "meta", "abacus"):
        assert allowed(device) == "auto, cpu, cuda:0"


def test_a_device_that_fails_is_not_named(pretended, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", broken)
    assert allowed("cuda") == allowed("auto") == "cpu, cuda:1"
    assert allowed("cuda:1") == "auto, cpu, cuda:0"


def test_every_command_names_them(pretended, few_digits, unmeasured, tmp_path):
    settings = {"epochs": 1, "batch_size": 64}
    with pytest.raises(OptionError, match="allowed are auto, cpu, cuda:0$"):
        mi.fit(mi.VAE((1, 8, 8)), few_digits.x_train, **settings, device="cuda:7")
    with pytest.raises(OptionError, match="allowed are auto, cpu, cuda:0$"):
        mi.fit_many([mi.VAE((1, 8, 8))], few_digits.x_train, **settings, device="cuda:7")
    config = RunConfig("vae", "digits", training=settings)
    run = train_run(config, tmp_path / "run", device="cpu")
    for command in (evaluate_run, report_run):
        with pytest.raises(OptionError, match="allowed are auto, cpu, cuda:0$"):
            command(run, few_digits, device="cuda:7")


def test_a_report_of_measured_figures_computes_on_the_device(
    pretended, few_digits, unmeasured, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "pyro_mivae.report.write_report", lambda folder, data, **page: seen.append(data.vae.device)
    )
    config = RunConfig("vae", "digits", training={"epochs": 1, "batch_size": 64})
    train_run(config, tmp_path / "run", device="cpu")
    for device in ("cuda", "cpu", "auto"):
        report_run(open_run(tmp_path / "run"), few_digits, device=device)
    assert [device.type for device in seen] == ["cuda", "cpu", "cuda"]
