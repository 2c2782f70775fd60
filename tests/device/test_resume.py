"""Trainings on a pretended device that are resumed, there and on the CPU."""

import pytest
import torch

import pyro_mivae as mi

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 3, "batch_size": 15, "lr_schedule": "cosine", "clip_norm": 5.0, "seed": 4}


def test_a_resumed_training_ends_as_a_whole_one(tmp_path, pretended, build, recording, x):
    def fit(vae, device, **run):
        with recording(device == "cuda"):
            mi.fit(vae, x, device=device, engine="staged", **SETTINGS, **run)

    def interrupt(row):
        raise KeyboardInterrupt

    whole, parts = build("scheduled"), build("scheduled")
    fit(whole, "cuda")
    for device in ("cuda", "cpu"):
        with pytest.raises(KeyboardInterrupt):
            fit(parts, device, run=tmp_path, resume=True, on_epoch=interrupt)
    fit(parts, "cuda", run=tmp_path, resume=True)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-6, atol=1e-6)
