"""Training with matrix products of reduced precision."""

import sys

import pytest
import torch

from pyro_mivae.errors import OptionError, StagingError
from pyro_mivae.training import fit, fit_many

SETTINGS = {"epochs": 4, "batch_size": 25, "seed": 4}  # some steps are not compared


def test_bf16_trains_nearly_as_float32_does(x, make):
    exact, rounded = make("vae"), make("vae")
    history = fit(exact, x, **SETTINGS, engine="staged")
    again = fit(rounded, x, **SETTINGS, precision="bf16")
    assert again["loss"] != history["loss"]
    assert again["loss"] == pytest.approx(history["loss"], rel=0.02)
    for name, value in rounded.state_dict().items():
        assert value.dtype == exact.state_dict()[name].dtype, name


def test_tf32_is_set_while_training_and_put_back(x, make, monkeypatch):
    module = sys.modules["pyro_mivae.training.fit"]
    monkeypatch.setattr(module, "check_precision", lambda *args: None)
    before, seen = torch.get_float32_matmul_precision(), []

    def look(row):
        seen.append(torch.get_float32_matmul_precision())

    fit(make("vae"), x, **SETTINGS, precision="tf32", on_epoch=look)
    assert seen == ["high"] * 4
    assert torch.get_float32_matmul_precision() == before


def test_what_cannot_be_had_is_refused(x, make):
    with pytest.raises(OptionError, match="a model in float64"):
        fit(make("vae").double(), x, **SETTINGS, precision="bf16")
    with pytest.raises(OptionError, match="the device is cpu"):
        fit(make("vae"), x, **SETTINGS, precision="tf32")


def reads_a_value(vae):
    """Makes a step that cannot be staged."""
    vae.guide.encoder.register_forward_hook(
        lambda module, args, out: out * out.detach().mean().item()
    )
    return vae


def test_a_step_that_cannot_be_staged_is_an_error_in_bf16(x, make, tmp_path):
    told = "it cannot be staged: it reads the value of a tensor"
    begun = []
    settings = {**SETTINGS, "precision": "bf16", "on_start": lambda: begun.append(True)}
    with pytest.raises(StagingError, match=told):
        fit(reads_a_value(make("vae")), x, **settings, run=tmp_path / "a")
    settings.pop("seed")
    vaes = [make("vae"), reads_a_value(make("vae"))]
    with pytest.raises(StagingError, match=told):
        fit_many(vaes, x, **settings, runs=[tmp_path / "a", tmp_path / "b"])
    assert not begun
    assert list(tmp_path.iterdir()) == []
