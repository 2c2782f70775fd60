"""The benchmark of densities: rows by prior and guide, their gains by seed, and the picture."""

import numpy as np
import pytest

from benchmarks import densities


def run(model, seed, log_px):
    metrics = {"elbo": log_px - 2.0, "log_px": log_px, "log_px_ais": log_px}
    return {"variant": f"{model}, 5 epochs", "seed": seed, "seconds": 1.0, "metrics": metrics}


def test_gains_are_of_the_same_seed_and_length():
    runs = [run("normal", 0, -98.0), run("normal", 1, -99.0), run("vamp", 1, -96.5)]
    runs += [run("vamp", 2, -90.0), {**run("vamp", 0, -50.0), "variant": "vamp, 6 epochs"}]
    keyed = {(one["variant"], one["seed"]): one for one in runs}
    assert densities.gains("vamp, 5 epochs", keyed) == [2.5]
    assert densities.gains("vamp, 6 epochs", keyed) == []
    assert densities.gains("normal, 5 epochs", keyed) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*of the proposals were accepted")
def test_every_prior_and_guide_is_trained_and_measured(tmp_path, monkeypatch, capsys):
    rows = np.random.default_rng(0).random((40, 4, 4), dtype=np.float32)
    np.savez(tmp_path / "rows.npz", images=rows, labels=np.arange(40) % 2)
    monkeypatch.setattr(densities, "WIDTHS", (8,))
    monkeypatch.setattr(densities, "LATENT_DIM", 2)
    options = ["--data", str(tmp_path / "rows.npz"), "--seeds", "1", "--epochs", "1"]
    options += ["--ais-items", "2", "--iwae-items", "2", "--iwae-samples", "4"]
    options += ["--ais-temperatures", "4"]
    options += ["--out", str(tmp_path / "found.json"), "--picture", str(tmp_path / "found.png")]
    models = ["normal", "two-levels", "iaf"]
    content = densities.main([*options, "--models", *models])
    assert [one["variant"] for one in content["runs"]] == [f"{name}, 1 epochs" for name in models]
    assert all(one["metrics"]["log_px_ais"] < 0 for one in content["runs"])
    assert len({line.count("|") for line in densities.table(content).splitlines()}) == 1
    assert (tmp_path / "found.png").read_bytes()[1:4] == b"PNG"
