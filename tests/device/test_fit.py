"""Training on a pretended device, by every means, wherever the data are."""

import pytest
import torch

import pyro_mivae as mi

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 2, "batch_size": 8, "lr_schedule": "cosine", "clip_norm": 5.0, "seed": 4}


def assert_on_the_device(vae):
    for name, tensor in vae.state_dict().items():
        assert tensor.device.type == "cuda", name


def assert_same(one, other):
    assert one.columns == other.columns
    for column in set(one.columns) - {"seconds"}:
        assert one[column] == pytest.approx(other[column], rel=1e-5, nan_ok=True), column


@pytest.fixture
def fit(pretended, build, recording, x, monkeypatch):
    """Trains a configuration on the device by some means, and returns its history."""

    def fit(configuration, means, *, bytes_free=1 << 30, **settings):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *args: (bytes_free, bytes_free))
        engine = "staged" if means == "recorded" else means
        vae = build(configuration)
        with recording(means == "recorded"):
            history = mi.fit(
                vae, x, device="cuda", engine=engine, validation=x[:8], **SETTINGS | settings
            )
        assert_on_the_device(vae)
        return history

    return fit


def test_recorded_with_data_on_the_device_and_on_the_cpu(fit, configuration):
    assert_same(fit(configuration, "recorded"), fit(configuration, "recorded", bytes_free=10))


def test_step_by_step(fit, variant):
    staged = fit(variant, "staged")
    assert_same(staged, fit(variant, "eager", bytes_free=10))


@pytest.mark.parametrize("means", ["eager", "staged", "recorded"])
def test_the_device_gives_the_history_of_the_cpu(fit, build, x, means):
    with torch.utils._python_dispatch._disable_current_modes():
        on_cpu = mi.fit(build("scheduled"), x, device="cpu", validation=x[:8], **SETTINGS)
    assert_same(on_cpu, fit("scheduled", means))


def test_a_last_batch_of_another_size(fit):
    assert_same(fit("vae", "eager", batch_size=12), fit("vae", "recorded", batch_size=12))
