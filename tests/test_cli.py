"""The command line, by its exit codes, what it prints, and what it leaves behind."""

import json
import math
import os
import re
import shutil
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.data import load_dataset
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.metrics import how_measured
from pyro_mivae.runs import load
from pyro_mivae.training import History, read_checkpoint

FILES = {"config.toml", "history.csv", "checkpoint.pt", "metrics.json", "report.html"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, hasten):
    """A folder with real digits as an ``.npz``, and a finished run on them, without pictures."""
    home = tmp_path_factory.mktemp("home")
    digits = load_dataset("digits")
    images = (digits.x_train[:200, 0] * 255).byte().numpy()
    np.savez(home / "digits.npz", images=images, labels=digits.y_train[:200].numpy())
    data = ["--data", str(home / "digits.npz"), "--epochs", "2", "--run", str(home / "run")]
    model = ["--categories", "4", "--latent-dim", "8", "--warm-start", "20"]
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        assert run_command(["train", "infocat", *data, *model]) == 0
    return home


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the finished run in the test's own folder."""
    return shutil.copytree(home / "run", tmp_path / "r")


@pytest.fixture
def call(capfd, tmp_path, monkeypatch, quick):
    """Calls a command in an empty folder; gives exit code, stdout and the lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capfd.readouterr()
        code = run_command([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return call


def test_run_folder_holds_what_the_contract_says(home):
    run = home / "run"
    names = {path.name for path in run.iterdir()}
    assert FILES <= names
    assert sum(name.endswith(".png") for name in names) >= 4
    assert all(name.endswith(".png") for name in names - FILES - {".pictures", ".lock", ".owner"})
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["variant"] == "infocat"
    assert config["model"]["num_categories"] == 4
    assert config["training"]["epochs"] == 2
    assert len(History.from_csv(run / "history.csv")) == 2
    assert read_checkpoint(run)["finished"]
    content = json.loads((run / "metrics.json").read_text())
    assert set(content) == {"metrics", "protocol"}
    named = {"distortion", "rate", "elbo", "kl_z", "kl_c", "mi_c_lower", "cluster_accuracy", "nmi"}
    assert named <= content["metrics"].keys()
    assert all(v is None or math.isfinite(v) for v in content["metrics"].values())
    assert all(how_measured(content["protocol"], key) for key in content["metrics"])
    assert (run / "report.html").read_text().startswith("<!")


def test_loaded_model_is_the_trained_one(home):
    vae = load(home / "run")
    assert isinstance(vae, mi.InfoCatVAE)
    assert not vae.training
    weights = read_checkpoint(home / "run")["weights"]
    assert all(torch.equal(value, weights[key]) for key, value in vae.state_dict().items())


def test_training_prints_a_table_and_where_files_are(call):
    code, out, err = call("train", "vae", "--epochs", 1, "--latent-dim", 2, "--run", "here")
    assert code == 0
    grey = "grey pixels under a Bernoulli likelihood: distortion, ELBO and log p(x) are cross-ent"
    for text in ("distortion", "KL of z", "information I(x; z)", "report.html", "here", grey):
        assert text in out
    assert "1438 training and 359 test images of 1x8x8" in out
    assert "epoch 1/1" in "\n".join(err)


@pytest.mark.parametrize(
    ("category", "line"),
    [(PyroMivaeWarning, "warning: too few"), (RuntimeWarning, "RuntimeWarning: too\n few")],
)
def test_warnings_of_ours_are_one_line(call, home, monkeypatch, category, line):
    def encode(self, x):
        warnings.warn("too\n few", category, stacklevel=1)
        return {"z": torch.zeros(len(x), 2)}

    monkeypatch.setattr(mi.InfoCatVAE, "encode", encode)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        command = ("encode", home / "run", "--data", home / "digits.npz", "--out", "codes.npz")
        code, _, err = call(*command)
    assert code == 0
    assert line in "\n".join(err)


def test_a_game_on_the_command_line(call, home):
    options = ("--data", home / "digits.npz", "--epochs", 1, "--categories", 3, "--code-dim", 1)
    code, out, _ = call("train", "infogan", *options, "--network", "mlp", "--run", "game")
    assert code == 0
    assert "distortion, -E log p(x|code) not defined" in " ".join(out.split())
    assert "information I(x; c), read from the mean" in out
    metrics = json.loads(Path("game/metrics.json").read_text())["metrics"]
    assert metrics["elbo"] is None
    assert metrics["cluster_accuracy"] > 0
    for name in ("samples", "traversals_u", "loss_curves"):
        assert Path(f"game/{name}.png").is_file()
    code, _, err = call("train", "infogan", "--likelihood", "gaussian", "--run", "other")
    assert code == 2
    assert "the variant 'infogan' has no use for --likelihood" in err[-1]
    code, _, err = call("train", "infogan", "--network", "conv-deep", "--run", "other")
    assert code == 2
    assert "allowed are auto, mlp, conv-narrow, conv-half, conv" in err[-1]


def test_finished_run_is_left_alone_by_resume(call, home):
    before = {p.name: p.stat().st_mtime_ns for p in (home / "run").glob("[!.]*")}
    code, out, err = call("train", "infocat", "--resume", "--run", home / "run")
    assert (code, err) == (0, [])
    assert "nothing to do" in out
    assert "written to" not in out
    assert {p.name: p.stat().st_mtime_ns for p in (home / "run").glob("[!.]*")} == before


def test_resume_of_a_trained_run_evaluates_what_was_not(call, copy):
    for name in ("metrics.json", "report.html"):
        (copy / name).unlink()
    before = (copy / "checkpoint.pt").read_bytes()
    code, out, _ = call("train", "infocat", "--resume", "--run", "r")
    assert code == 0
    assert "distortion" in out
    assert FILES <= {p.name for p in copy.iterdir()}
    assert (copy / "checkpoint.pt").read_bytes() == before


def test_existing_run_needs_resume_or_overwrite(call, home, copy, unmeasured):
    args = ("train", "vae", "--epochs", 1, "--latent-dim", 2, "--data", home / "digits.npz")
    code, out, err = call(*args, "--run", "r")
    assert (code, out, len(err)) == (2, "", 1)
    assert "r holds a run already; go on with --resume, throw it away with --overwrite" in err[0]
    assert call(*args, "--run", "r", "--overwrite", "--seed", 1)[0] == 0
    assert tomllib.loads(Path("r/config.toml").read_text())["training"]["seed"] == 1


def test_bad_input_does_not_cost_the_run_that_was_to_be_overwritten(call, copy):
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    assert call("train", "vae", "--run", "r", "--overwrite", "--lr", -1)[0] == 2
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_resume_without_a_checkpoint_starts_anew(call, home, copy, unmeasured):
    (copy / "checkpoint.pt").unlink()
    assert call("train", "infocat", "--run", "r", "--resume", "--epochs", 3)[0] == 0
    assert len(History.from_csv("r/history.csv")) == 3
    config = tomllib.loads(Path("r/config.toml").read_text())
    assert config["data"] == str(home / "digits.npz")  # what is not given stays as it was
    assert config["model"]["latent_dim"] == 8


def test_folder_of_other_things_is_not_touched(call, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"precious")
    for flags in ([], ["--overwrite"], ["--resume"]):
        code, _, err = call("train", "vae", "--run", "photos", *flags)
        assert code == 2
        assert "holds files, but no run" in err[0]
    assert (tmp_path / "photos" / "a.png").read_bytes() == b"precious"


def spoiled(tmp_path, **arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    return tmp_path / "bad.npz"


IMAGES = np.zeros((10, 8, 8))
BAD_INPUT = {
    "no such variant": (["train", "infocta"], "no variant 'infocta'; did you mean infocat"),
    "no such data": (["train", "vae", "--data", "mnits"], "'mnits'; did you mean mnist"),
    "unused option": (
        ["train", "vae", "--categories", 3],
        "has no use for --categories; it takes",
    ),
    "unknown option": (["train", "vae", "--colour"], "No such option"),
    "no value": (["train", "vae", "--epochs"], "requires an argument"),
    "no epochs": (["train", "vae", "--epochs", 0], "--epochs 0; allowed are whole numbers from 1"),
    "no number": (["train", "vae", "--epochs", "ten"], "'ten' is not a valid integer"),
    "learning rate": (["train", "vae", "--lr", "nan"], "--lr nan; allowed are finite numbers"),
    "lr schedule": (["train", "vae", "--lr-schedule", "step"], "allowed are constant, cosine"),
    "categories": (
        ["train", "cat", "--categories", 3, "--latent-dim", 4],
        "--latent-dim 4 is no multiple of --categories 3",
    ),
    "no categories": (
        ["train", "cat", "--categories", 0],
        "--categories 0; allowed are",
    ),
    "code too large": (["train", "infomax", "--code-dim", 20], "--code-dim 20 of --latent-dim 20"),
    "image size": (["train", "vae", "--image-size", "8x"], "'8x' given; allowed is N or HxW"),
    "image size 0": (["train", "vae", "--image-size", "0"], "allowed is N or HxW"),
    "too small to convolve": (["train", "vae", "--image-size", 4, "--network", "conv"], "8"),
    "device": (["train", "vae", "--device", "abacus"], "--device 'abacus' is not available"),
    "both": (["train", "vae", "--resume", "--overwrite"], "allowed is one of them"),
    "empty data": (["train", "vae", "--data", ""], "--data is ''; give it a value"),
    "empty prior": (["train", "vae", "--prior="], "--prior is ''; give it a value"),
    "empty run": (["train", "vae", "--run", " "], "--run is ' '; give it a value"),
    "empty variant": (["train", ""], "an argument is ''; give it a value"),
    "NUL": (["evaluate", "a\0b"], "an argument is 'a\\x00b'; give it a value"),
    "prior": (["train", "vae", "--prior", "norm"], "no prior 'norm'; did you mean normal"),
    "prior file": (["train", "vae", "--prior", "p.py:P"], "there is no file"),
    "likelihood": (["train", "vae", "--likelihood", "poisson"], "allowed are bernoulli"),
    "no variant": (["train"], "Missing argument 'VARIANT'"),
    "nothing": ([], "Missing command. (see pyro-mivae --help)"),
    "no command": (["trian"], "no command 'trian'; did you mean train"),
    "endless names": (["train", "vae", "--run", "x" * 400], "File name too long"),
    "endless data": (["train", "vae", "--data", "x" * 400], "no data set, file or folder"),
    "endless run": (["evaluate", "x" * 400], "there is no run folder"),
    "no run": (["evaluate", "nowhere"], "there is no run folder nowhere"),
    "no run to report": (["report", "nowhere"], "there is no run folder nowhere"),
    "no out": (["sample", "nowhere"], "Missing option '--out'"),
}


@pytest.mark.parametrize(("args", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(call, tmp_path, args, message):
    code, out, err = call(*args)
    assert (code, out, len(err)) == (2, "", 1), err
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


BAD_DATA = {
    "not a number": ({"images": np.where(np.eye(8), math.nan, IMAGES)}, "NaN"),
    "out of range": ({"images": IMAGES + 2}, "allowed are floats in [0, 1]"),
    "empty": ({"images": IMAGES[:0]}, "is empty"),
    "single": ({"images": IMAGES[:1]}, "holds 1 image(s); at least 2 are needed"),
    "labels": ({"images": IMAGES, "labels": np.arange(9)}, "allowed is (10,), one per image"),
    "no images": ({"pixels": IMAGES}, "no array named 'images'"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_line_and_leaves_nothing(call, tmp_path, arrays, message):
    code, out, err = call("train", "infocat", "--data", spoiled(tmp_path, **arrays))
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]


def test_unreadable_file_and_file_in_place_of_a_folder(call, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    code, _, err = call("train", "vae", "--data", "bad.npz")
    assert code == 2
    assert "cannot read bad.npz" in err[0]
    code, _, err = call("train", "vae", "--run", "bad.npz")
    assert code == 2
    assert "bad.npz is a file; choose another --run DIR" in err[0]
    code, _, err = call("train", "vae", "--epochs", 1, "--run", "bad.npz/run")
    assert code == 2
    assert "bad.npz" in err[0]


def test_training_that_breaks_down_exits_with_1(call, home):
    args = ("--data", home / "digits.npz", "--lr", 1e30, "--epochs", 3, "--run", "r")
    code, _, err = call("train", "vae", *args)
    assert code == 1
    assert "the loss is not finite at step" in err[-1]
    assert not os.path.exists("r/checkpoint.pt")


def test_tensorboard_log(call, home, unmeasured):
    pytest.importorskip("tensorboard")
    args = ("train", "vae", "--epochs", 2, "--latent-dim", 2, "--data", home / "digits.npz")
    assert call(*args, "--run", "r", "--tensorboard")[0] == 0
    assert len(list(Path("r/tensorboard").glob("events.*"))) == 1
    assert call(*args, "--run", "r", "--overwrite")[0] == 0
    assert not list(Path("r/tensorboard").glob("events.*"))


def test_tensorboard_that_is_not_installed(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = call("train", "vae", "--tensorboard", "--run", "r")
    assert (code, len(err)) == (2, 1)
    assert "python -m pip install 'pyro-mivae[tensorboard]'" in err[0]
    assert not os.path.exists("r")


def test_factors_of_a_file_are_measured(call, tmp_path):
    factors = np.stack([np.arange(120) % 3, np.arange(120) // 3 % 2], 1)
    images = np.zeros((120, 8, 8))
    images[np.arange(120), factors[:, 0], 4 * factors[:, 1]] = 1
    np.savez(tmp_path / "made.npz", images=images, factors=factors)
    args = ("--data", tmp_path / "made.npz", "--epochs", 1, "--latent-dim", 2, "--run", "r")
    assert call("train", "vae", *args)[0] == 0
    content = json.loads(Path("r/metrics.json").read_text())
    assert {"mig", "sap", "modularity", "dci_completeness"} <= content["metrics"].keys()
    assert "linear_probe" not in content["metrics"]
    assert all(how_measured(content["protocol"], key) for key in content["metrics"])


def test_evaluate_gives_the_same_numbers_again(call, home):
    before = json.loads((home / "run" / "metrics.json").read_text())
    code, out, _ = call("evaluate", home / "run")
    assert code == 0
    assert "distortion" in out
    assert json.loads((home / "run" / "metrics.json").read_text()) == before


@pytest.mark.slow
def test_a_larger_evaluation_says_how_long_it_takes(call, home, monkeypatch, short_pilot):
    monkeypatch.setattr("pyro_mivae.runs.outputs.METRICS", "more.json")
    few = {"generative_items": 2, "generative_samples": 4, "iwae_samples": 9, "iwae_items": 2}
    budget, forecast = (sys.modules[f"pyro_mivae.metrics.{n}"] for n in ("budget", "forecast"))
    for module, name, value in (
        (budget, "FULL", few),
        (budget, "MANY_SAMPLES", 10),
        (forecast, "FEW", few),
        (forecast, "PIECE", 8),
    ):
        monkeypatch.setattr(module, name, value)
    options = ("--full", "--iwae-samples", 5, "--ais", 2, "--ais-temperatures", 3)
    code, out, err = call("evaluate", home / "run", *options)
    assert code == 0
    time = r"(a few seconds|about \d+ (seconds|minutes))"
    assert re.match(rf"evaluating on the test images: this will take {time}\n", out)
    assert "log p(x)" not in "".join(err)  # stderr is no terminal here
    content = json.loads((home / "run" / "more.json").read_text())
    (home / "run" / "more.json").unlink()
    assert math.isfinite(content["metrics"]["log_px_ais"])
    assert content["protocol"]["full"]
    made = content["protocol"]["information"]
    assert (made["iwae_samples"], made["iwae_items"]) == (5, made["items"])
    assert (made["ais_items"], made["ais_temperatures"]) == (2, 3)
    code, _, err = call("evaluate", home / "run", "--ais-temperatures", 3)
    assert code == 2
    assert "--ais-temperatures without --ais" in err[0]
    code, _, err = call("evaluate", home / "run", "--iwae-samples", 0)
    assert code == 2
    assert "iwae_samples=0; allowed are whole numbers from 1 up" in err[0]


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
    images = torch.from_numpy(np.load(home / "digits.npz")["images"])[:, None] / 255
    expected = load(home / "run").encode(images)
    codes = np.load("c.npz")
    assert set(codes.files) == set(expected) == {"c", "z"}
    for site in expected:
        torch.testing.assert_close(torch.from_numpy(codes[site]), expected[site])


def test_encode_resizes_as_training_did(call, home, unmeasured):
    args = ("--epochs", 1, "--latent-dim", 2, "--image-size", "12x10", "--run", "r")
    assert call("train", "vae", "--data", home / "digits.npz", *args)[0] == 0
    np.savez("large.npz", images=np.zeros((3, 30, 20), np.uint8))
    assert call("encode", "r", "--data", "large.npz", "--out", "c.npz")[0] == 0
    assert np.load("c.npz")["z"].shape == (3, 2)
    code, _, err = call("encode", home / "run", "--data", "large.npz", "--out", "d.npz")
    assert code == 2
    assert "images of shape (1, 30, 20); the run" in err[0]
    assert not os.path.exists("d.npz")


def test_data_that_changed_since_training(call, tmp_path, unmeasured):
    path = spoiled(tmp_path, images=np.random.rand(20, 8, 8))
    args = ("train", "vae", "--epochs", 1, "--latent-dim", 2, "--data", path, "--run", "r")
    assert call(*args)[0] == 0
    spoiled(tmp_path, images=np.random.rand(30, 8, 8))
    code, _, err = call("evaluate", "r")
    assert code == 2
    assert (
        "bad.npz is not what it was when r was made: other training images, test images" in err[0]
    )


def test_incomplete_run(call, tmp_path, home):
    (tmp_path / "r").mkdir()
    code, _, err = call("evaluate", "r")
    assert (code, len(err)) == (2, 1)
    assert "is no run folder: it holds no config.toml" in err[0]
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


def test_help_and_version(call):
    for args in (["--help"], ["train", "--help"], ["--version"]):
        code, out, err = call(*args)
        assert (code, err) == (0, [])
        assert "pyro-mivae" in out


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("seeds", [(), ("--seeds", 2)])
def test_ctrl_c_before_the_run_has_a_folder(call, home, tmp_path, monkeypatch, seeds):
    monkeypatch.setattr("pyro_mivae.runs.config.load_dataset", interrupt)
    for flags in ((), ("--resume",)):
        code, _, err = call("train", "vae", "--run", "r", *seeds, *flags)
        assert code == 1
        assert err[-1] == "stopped before training began; nothing is kept of it"
    assert list(tmp_path.iterdir()) == []
    code, _, err = call("train", "infocat", "--run", home / "run", "--overwrite")
    assert (code, err) == (1, ["stopped before training began; nothing is kept of it"])
    assert load(home / "run")


@pytest.mark.parametrize("seeds", [(), ("--seeds", 2)])
def test_ctrl_c_before_an_epoch_is_done(call, home, monkeypatch, seeds, unmeasured):
    data = ("--data", home / "digits.npz", "--latent-dim", 2, "--epochs", 1)
    command = ("train", "vae", *seeds, "--seed", 7, "--run", "r")
    with monkeypatch.context() as patch:
        patch.setattr("pyro_mivae.training.trainer.Trainer.prepare", interrupt)
        code, _, err = call(*command, *data)
    assert code == 1
    told = "stopped; r holds no whole epoch yet. Go on with: "
    several = " --seeds 2 --seed 7" if seeds else ""
    assert err[-1] == f"{told}pyro-mivae train vae{several} --resume --run r"
    assert call(*command, "--resume")[0] == 0
    config = tomllib.loads(next(Path("r").rglob("config.toml")).read_text())
    assert config["model"]["latent_dim"] == 2


def test_ctrl_c_in_a_module_that_is_imported_late(call, monkeypatch):
    monkeypatch.setattr("pyro_mivae.cli.listing", interrupt)
    code, _, err = call("list")
    assert (code, err[-1]) == (1, "error: stopped")
