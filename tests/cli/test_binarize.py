"""Runs on binary pixels: what is stored, printed, and applied to other images."""

import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_mivae import sweep
from pyro_mivae.data import load_dataset
from pyro_mivae.data.binarize import settled_pixels
from pyro_mivae.runs import load, open_run, seeds_table
from pyro_mivae.variants import VAE

MEANING = "dynamic: a new Bernoulli draw of each batch in training"


@pytest.fixture
def train(call, home):
    """Trains a small run on the digits in the folder ``d``."""

    def train(*options, variant="vae"):
        given = ("--data", home / "digits.npz", "--epochs", 1, "--latent-dim", 2, "--run", "d")
        return call("train", variant, *given, "--engine", "eager", *options)

    return train


@pytest.mark.slow
def test_a_run_names_its_protocol_and_applies_it(call, home, train):
    code, out, err = train("--binarize", "dynamic")
    assert (code, [line for line in err if "warning" in line]) == (0, [])
    assert "vae on digits, binarize dynamic: 1" in out
    table = out[out.index("nats per test datum") :].partition("written to")[0]
    assert f"(binarize {MEANING}" in table
    assert "cross-entropies" not in table
    assert tomllib.loads(Path("d/config.toml").read_text())["training"]["binarize"] == "dynamic"
    metrics = json.loads(Path("d/metrics.json").read_text())
    assert metrics["protocol"]["binarize"].startswith(MEANING)
    page = Path("d/report.html").read_text()
    assert MEANING in page
    assert "--binarize dynamic" in page
    assert "cross-entropies" not in page

    code, out, _ = call("evaluate", "d")
    assert (code, out.partition("written to")[0]) == (0, table)
    assert json.loads(Path("d/metrics.json").read_text()) == metrics
    data = open_run("d").dataset()
    assert set(data.x_test.unique().tolist()) == {0.0, 1.0}

    assert call("encode", "d", "--data", home / "digits.npz", "--out", "codes.npz")[0] == 0
    images = np.load(home / "digits.npz")["images"][:, None].astype(np.float32) / 255
    wanted = load("d").encode(settled_pixels(torch.from_numpy(images), "dynamic"))["z"]
    torch.testing.assert_close(torch.from_numpy(np.load("codes.npz")["z"]), wanted)

    code, out, _ = call("compare", "d", home / "run", "--out", "page")
    assert code == 0
    assert "d and run were measured on different data (binarize): their nats" in out
    assert [line.split() for line in out.splitlines() if line.startswith("binarize")] == [
        ["binarize", "dynamic", "none"]
    ]
    page = Path("page/compare.html").read_text()
    assert " VAE on digits, binarize dynamic" in " ".join(re.split(r"[\s<>]+", page))
    assert "InfoCatVAE on digits, binarize" not in page

    code, _, err = train("--binarize", "fixed", "--resume")
    assert code == 2
    assert "--binarize fixed given, but the training in d was started with dynamic" in err[-1]


def test_probes_and_judge_learn_on_binary_images(train, monkeypatch):
    taught = []

    def evaluate(vae, x, train, **options):
        taught.append(train[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_mivae.metrics.evaluate", evaluate)
    train("--binarize", "dynamic")
    assert set(taught[0].unique().tolist()) == {0.0, 1.0}


@pytest.mark.filterwarnings("always::pyro_mivae.errors.PyroMivaeWarning")
def test_a_likelihood_that_does_not_fit_is_told_while_training_and_in_the_table(train):
    code, out, err = train("--binarize", "threshold", "--likelihood", "gaussian")
    told = "binary pixels under a Normal likelihood: distortion, ELBO and log p(x) are log-densi"
    assert code == 0
    assert f"({told}" in out
    assert "(binarize threshold: 1 where x > 1/2, else 0)" in out
    warned = [line for line in err if line.startswith("warning: binarize")]
    assert [line.startswith(f"warning: binarize='threshold': {told}") for line in warned] == [True]


@pytest.mark.usefixtures("unmeasured")
def test_several_seeds_name_the_protocol(train):
    code, out, _ = train("--binarize", "fixed", "--seeds", 2)
    assert code == 0
    assert ["binarize", "fixed"] in [line.split() for line in out.splitlines()]
    assert "binarize" in seeds_table("d")
    for seed in (0, 1):
        config = tomllib.loads(Path(f"d/seed-{seed}/config.toml").read_text())
        assert config["training"]["binarize"] == "fixed"


@pytest.mark.parametrize("protocol", ["fixed", "dynamic"])
def test_a_sweep_measures_binary_images(protocol, monkeypatch, images_about, tmp_path):
    x, seen = images_about(3, 30, 1, 4, 4), []
    module = sys.modules["pyro_mivae.runs.sweep"]
    figures = {"elbo": -1.0}
    monkeypatch.setattr(module, "_measure", lambda vae, x, given: seen.append(x) or figures)
    monkeypatch.setattr(module, "OF_SWEEPS", ("elbo",))
    how = {"grid": {"latent_dim": (2,)}, "epochs": 1, "engine": "eager", "binarize": protocol}
    found = sweep(lambda latent_dim: VAE((1, 4, 4), latent_dim=latent_dim), x, **how)
    assert found.table().splitlines()[-1] == f"binarize {protocol}"
    found.to_json(tmp_path / "sweep.json")
    assert type(found).from_json(tmp_path / "sweep.json") == found
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    trained = settled_pixels(x, protocol, 0)  # under "fixed" the images that it was trained on
    assert torch.equal(seen[0], trained) == (protocol == "fixed")


def test_a_sweep_on_the_command_line_stores_the_protocol(call, home, encoder_side):
    given = ("--data", home / "digits.npz", "--epochs", 1, "--latent-dim", 2, "--run", "s")
    options = ("--beta", "1", "--engine", "eager", "--binarize", "dynamic")
    code, out, _ = call("sweep", "beta", *given, *options)
    assert code == 0
    assert "binarize dynamic\n" in out
    assert tomllib.loads(Path("s/sweep.toml").read_text())["training"]["binarize"] == "dynamic"
    code, out, _ = call("sweep", "beta", "--resume", "--run", "s")
    assert (code, "binarize dynamic\n" in out) == (0, True)
    assert load_dataset(home / "digits.npz").binarize == "none"
