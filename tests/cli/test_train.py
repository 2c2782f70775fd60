"""`train` on the command line: its exit codes, what it prints, and what it leaves behind."""

import json
import math
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.metrics import how_measured
from pyro_mivae.runs import load
from pyro_mivae.training import History, read_checkpoint

FILES = {"config.toml", "history.csv", "checkpoint.pt", "metrics.json", "report.html"}


def test_run_folder_holds_what_the_contract_says(home):
    run = home / "run"
    names = {path.name for path in run.iterdir()}
    assert FILES <= names
    assert sum(name.endswith(".png") for name in names) >= 4
    others = {".pictures", ".lock", ".owner", "checkpoint.previous.pt"}  # of a slow training
    assert all(name.endswith(".png") for name in names - FILES - others)
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
    for text in ("distortion", "KL of z", "I(x; z)", "report.html", "here", grey):
        assert text in out
    assert "1438 training and 359 test data of shape 1x8x8" in out
    assert "epoch 1/1" in "\n".join(err)


def test_a_game_on_the_command_line(call, home):
    options = ("--data", home / "digits.npz", "--epochs", 1, "--categories", 3, "--code-dim", 1)
    code, out, _ = call("train", "infogan", *options, "--network", "mlp", "--run", "game")
    assert code == 0
    assert "distortion, -E log p(x|code) not defined" in " ".join(out.split())
    assert "I(x; c), read from the mean" in out
    metrics = json.loads(Path("game/metrics.json").read_text())["metrics"]
    assert metrics["elbo"] is None
    assert metrics["cluster_accuracy"] > 0
    for name in ("samples", "traversals_u", "loss_curves"):
        assert Path(f"game/{name}.png").is_file()
    code, _, err = call("train", "infogan", "--likelihood", "gaussian", "--run", "other")
    assert code == 2
    assert "the variant 'infogan' does not have --likelihood" in err[-1]
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
    assert "r holds a run already; continue with --resume, delete it with --overwrite" in err[0]
    assert call(*args, "--run", "r", "--overwrite", "--seed", 1)[0] == 0
    assert tomllib.loads(Path("r/config.toml").read_text())["training"]["seed"] == 1


def test_bad_input_does_not_cost_the_run_that_was_to_be_overwritten(call, copy):
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    assert call("train", "vae", "--run", "r", "--overwrite", "--lr", -1)[0] == 2
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_resume_without_a_checkpoint_starts_anew(call, home, copy, unmeasured):
    for checkpoint in copy.glob("checkpoint*.pt"):
        checkpoint.unlink()
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


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("seeds", [(), ("--seeds", 2)])
def test_ctrl_c_before_the_run_has_a_folder(call, home, tmp_path, monkeypatch, seeds):
    monkeypatch.setattr("pyro_mivae.runs.config.load_dataset", interrupt)
    for flags in ((), ("--resume",)):
        code, _, err = call("train", "vae", "--run", "r", *seeds, *flags)
        assert code == 1
        assert err[-1] == "stopped before training began; nothing was saved"
    assert list(tmp_path.iterdir()) == []
    code, _, err = call("train", "infocat", "--run", home / "run", "--overwrite")
    assert (code, err) == (1, ["stopped before training began; nothing was saved"])
    assert load(home / "run")


@pytest.mark.parametrize("seeds", [(), ("--seeds", 2)])
def test_ctrl_c_before_an_epoch_is_done(call, home, monkeypatch, seeds, unmeasured):
    data = ("--data", home / "digits.npz", "--latent-dim", 2, "--epochs", 1)
    command = ("train", "vae", *seeds, "--seed", 7, "--run", "r")
    with monkeypatch.context() as patch:
        patch.setattr("pyro_mivae.training.trainer.Trainer.prepare", interrupt)
        code, _, err = call(*command, *data)
    assert code == 1
    told = "stopped; r holds no complete epoch yet. Continue with: "
    several = " --seeds 2 --seed 7" if seeds else ""
    assert err[-1] == f"{told}pyro-mivae train vae{several} --resume --run r"
    assert call(*command, "--resume")[0] == 0
    config = tomllib.loads(next(Path("r").rglob("config.toml")).read_text())
    assert config["model"]["latent_dim"] == 2
