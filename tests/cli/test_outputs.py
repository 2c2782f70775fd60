"""Commands that read a run: their exit codes, what they print and write."""

import json
import math
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.runs import load


def spoiled(tmp_path, **arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    return tmp_path / "bad.npz"


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("category", "line"),
    [(PyroMivaeWarning, "warning: too few"), (RuntimeWarning, "RuntimeWarning: too\n few")],
)
def test_warnings_of_ours_are_one_line(call, home, monkeypatch, category, line):
    def encoded(vae, args, what, num_draws):
        warnings.warn("too\n few", category, stacklevel=1)
        return {"z": torch.zeros(len(args[0]), 2)}

    monkeypatch.setattr("pyro_mivae.runs.outputs.encoded", encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        command = ("encode", home / "run", "--data", home / "digits.npz", "--out", "codes.npz")
        code, _, err = call(*command)
    assert code == 0
    assert line in "\n".join(err)


def test_evaluate_gives_the_same_numbers_again(call, home):
    before = json.loads((home / "run" / "metrics.json").read_text())
    code, out, _ = call("evaluate", home / "run")
    assert code == 0
    assert "distortion" in out
    assert json.loads((home / "run" / "metrics.json").read_text()) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*proposals were accepted")
def test_a_larger_evaluation_says_how_long_it_takes(call, home, monkeypatch, short_pilot):
    for name in ("outputs", "run"):
        monkeypatch.setattr(f"pyro_mivae.runs.{name}.METRICS", "more.json")
    few = {"generative_items": 2, "generative_samples": 4, "iwae_samples": 9, "iwae_items": 2}
    whole, forecast = (sys.modules[f"pyro_mivae.metrics.{n}"] for n in ("evaluate", "forecast"))
    for module, name, value in (
        (whole, "FULL", few),
        (whole, "MANY_SAMPLES", 10),
        (forecast, "FEW", few),
        (forecast, "PIECE", 8),
    ):
        monkeypatch.setattr(module, name, value)
    options = ("--full", "--iwae-samples", 5, "--ais", 2, "--ais-temperatures", 3)
    code, out, err = call("evaluate", home / "run", *options)
    assert code == 0
    time = r"(a few seconds|about \d+ (seconds|minutes))"
    assert re.match(rf"evaluating on the test data: this will take {time}\n", out)
    assert "log p(x)" not in "".join(err)  # stderr is no terminal here
    content = json.loads((home / "run" / "more.json").read_text())
    (home / "run" / "more.json").unlink()
    assert math.isfinite(content["metrics"]["log_px_ais"])
    assert re.search(r"log p\(x\), annealed +−\d.*\n  gap of log p\(x\), annealed +−?\d", out)
    assert "(gap: annealed log p(x) of 2 data drawn from the model, whose codes are" in out
    assert content["protocol"]["full"]
    made = content["protocol"]["information"]
    assert (made["iwae_samples"], made["iwae_items"]) == (5, made["items"])
    assert (made["ais_items"], made["ais_temperatures"]) == (2, 3)
    code, _, err = call("evaluate", home / "run", "--ais-temperatures", 3)
    assert code == 2
    assert "--ais-temperatures without --ais" in err[0]
    code, _, err = call("evaluate", home / "run", "--iwae-samples", 0)
    assert code == 2
    assert "--iwae-samples 0; allowed are whole numbers from 1 up" in err[0]


def test_report_draws_again(call, home):
    (home / "run" / "report.html").unlink()
    code, out, _ = call("report", home / "run")
    assert code == 0
    assert "report.html" in out
    assert (home / "run" / "report.html").exists()


def test_sample_writes_a_grid(call, home):
    code, _, _ = call("sample", home / "run", "--category", 3, "--n", 6, "--out", "g.png")
    assert code == 0
    with Image.open("g.png") as image:
        assert image.size == (3 * 34 + 2, 2 * 34 + 2)
    code, _, err = call("sample", home / "run", "--out", "g.png")
    assert code == 2
    assert "g.png exists; replace it with --overwrite" in err[0]
    first = Path("g.png").read_bytes()
    again = ("sample", home / "run", "--category", 3, "--n", 6, "--out", "g.png", "--overwrite")
    assert call(*again)[0] == 0
    assert Path("g.png").read_bytes() == first


def test_sample_draws_data(call, home):
    args = ("sample", home / "run", "--n", 4, "--seed", 1, "--out", "g.png", "--what", "data")
    assert call(*args)[0] == 0
    with Image.open("g.png") as image:
        assert {value for _, value in image.convert("L").getcolors()} == {0, 255}  # Bernoulli


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--category", 4, "--out", "g.png"], "--category 4: allowed are 0 to 3"),
        (["--n", 0, "--out", "g.png"], "0 is not in the range x>=1"),
        (["--out", "g.jpg"], "allowed are names ending in .png"),
        (["--out", "nowhere/g.png"], "there is no folder nowhere"),
        (["--out", "x" * 400 + ".png"], "File name too long"),
    ],
)
def test_sample_refuses(call, home, tmp_path, args, message):
    code, _, err = call("sample", home / "run", *args)
    assert (code, len(err)) == (2, 1)
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_encode_writes_an_array_per_site_in_order(call, home):
    code, out, _ = call("encode", home / "run", "--data", home / "digits.npz", "--out", "c.npz")
    assert code == 0
    assert "c (200, 4)" in out
    assert "labels (200,)" in out
    images = torch.from_numpy(np.load(home / "digits.npz")["images"])[:, None] / 255
    vae = load(home / "run")
    expected = vae.encode(images) | {"z_sd": vae.encode(images, "sd")["z"]}
    codes = np.load("c.npz")
    assert set(codes.files) == set(expected) | {"split", "labels", "class_names"}
    for name in expected:
        torch.testing.assert_close(torch.from_numpy(codes[name]), expected[name])
    digits, whole = np.load(home / "digits.npz"), mi.load_dataset(home / "digits.npz")
    assert (codes["class_names"][codes["labels"]] == digits["labels"].astype(str)).all()
    test = torch.from_numpy(codes["split"] == "test")
    assert torch.equal(images[test], whole.x_test)
    assert torch.equal(torch.from_numpy(codes["labels"])[~test], whole.y_train)


def test_encode_writes_draws_and_deviations(call, home):
    command = ("encode", home / "run", "--data", home / "digits.npz", "--out")
    assert call(*command, "d.npz", "--what", "draws", "--draws", 3)[0] == 0
    draws = np.load("d.npz")
    assert {name: draws[name].shape for name in "cz"} == {"c": (3, 200, 4), "z": (3, 200, 8)}
    assert not (draws["z"][0] == draws["z"][1]).all()
    assert call(*command, "s.npz", "--what", "sd")[0] == 0
    images = torch.from_numpy(np.load(home / "digits.npz")["images"])[:, None] / 255
    for name, value in load(home / "run").encode(images, "sd").items():
        torch.testing.assert_close(torch.from_numpy(np.load("s.npz")[name]), value)
    code, _, err = call(*command, "t.npz", "--draws", 3)
    assert (code, err) == (
        2,
        ["error: --draws 3 with --what 'mean'; leave it out, or give --what 'draws'"],
    )
    assert call(*command, "t.npz", "--what", "mode")[0] == 2


def test_encode_resizes_as_training_did(call, home, unmeasured):
    args = ("--epochs", 1, "--latent-dim", 2, "--image-size", "12x10", "--run", "r")
    assert call("train", "vae", "--data", home / "digits.npz", *args)[0] == 0
    np.savez("large.npz", images=np.zeros((3, 30, 20), np.uint8))
    assert call("encode", "r", "--data", "large.npz", "--out", "c.npz")[0] == 0
    assert np.load("c.npz")["z"].shape == (3, 2)
    code, _, err = call("encode", home / "run", "--data", "large.npz", "--out", "d.npz")
    assert code == 2
    assert "data of shape (1, 30, 20); the run" in err[0]
    assert not os.path.exists("d.npz")


def test_data_that_changed_since_training(call, tmp_path, unmeasured):
    path = spoiled(tmp_path, images=np.random.rand(20, 8, 8))
    args = ("train", "vae", "--epochs", 1, "--latent-dim", 2, "--data", path, "--run", "r")
    assert call(*args)[0] == 0
    spoiled(tmp_path, images=np.random.rand(30, 8, 8))
    code, _, err = call("evaluate", "r")
    assert code == 2
    assert "bad.npz has changed since r was made: other training images, test images" in err[0]


def test_incomplete_run(call, tmp_path, home):
    (tmp_path / "r").mkdir()
    code, _, err = call("evaluate", "r")
    assert (code, len(err)) == (2, 1)
    assert "is not a run folder: it has no config.toml" in err[0]
    (tmp_path / "r" / "config.toml").write_bytes((home / "run" / "config.toml").read_bytes())
    code, _, err = call("evaluate", "r")
    assert (code, len(err)) == (2, 1)
    assert "holds no checkpoint yet; train it first" in err[0]


def test_damaged_checkpoint(call, tmp_path, home):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.toml").write_bytes((home / "run" / "config.toml").read_bytes())
    (tmp_path / "r" / "checkpoint.pt").write_bytes(b"damaged")
    for command in (["evaluate", "r"], ["train", "infocat", "--resume", "--run", "r"]):
        code, _, err = call(*command)
        assert (code, len(err)) == (2, 1)
        assert "cannot read r/checkpoint.pt: it is damaged" in err[0]


def test_list_names_all_there_is(call):
    code, out, _ = call("list")
    assert code == 0
    for name in (*mi.VARIANTS, "digits", "fashion-mnist", "mean-field", "bernoulli", "conv-deep"):
        assert name in out
    assert "--beta 4.0" in out
    assert not set(out) & set("\\`")


def test_ctrl_c_in_a_module_that_is_imported_late(call, monkeypatch):
    monkeypatch.setattr("pyro_mivae.cli.commands.listing", interrupt)
    code, _, err = call("list")
    assert (code, err[-1]) == (1, "error: stopped")
