"""A sweep trains the grid, and measures each model as it is measured alone."""

import csv
import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.runs import RunConfig, sweep_run
from pyro_mivae.runs.sweep import MEASURED, fill_table
from pyro_mivae.training.trainer import Trainer

SHAPE = (1, 4, 4)
TRAINING = {"epochs": 2, "batch_size": 32, "engine": "eager"}
MAKE = partial(mi.BetaVAE, SHAPE, latent_dim=2)

pytestmark = pytest.mark.usefixtures("few_digits", "encoder_side")


@pytest.fixture
def x(images_about):
    return images_about(3, 64, *SHAPE)


def test_rows_are_what_each_model_gives_alone(x):
    found = mi.sweep(MAKE, x, grid={"beta": (0.5, 3.0)}, seeds=(1, 2), **TRAINING)
    assert [(r["beta"], r["seed"]) for r in found.rows] == [(0.5, 1), (0.5, 2), (3.0, 1), (3.0, 2)]
    torch.manual_seed(2)
    vae = MAKE(beta=3.0)
    mi.fit(vae, x, seed=2, **TRAINING)
    wanted = mi.information(vae.model, vae.guide, x).to_dict()
    for name in ("distortion", "rate", "elbo", "mi_lower", "mi_z_upper", "kl_z"):
        assert found.rows[3][name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-3), name
    assert found.axes == ("beta", None)


def test_writes_table_json_and_picture(x, tmp_path):
    found = mi.sweep(MAKE, x, grid={"beta": (0.5, 3.0)}, **TRAINING)
    for kind in ("csv", "json", "png"):
        getattr(found, f"to_{kind}")(tmp_path / f"sweep.{kind}")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == [row["rate"] for row in found.rows]
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["grid"] == {"beta": [0.5, 3.0]}
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert found.table().splitlines()[1].split()[0] == "0.5"


def test_whole_numbers_stay_whole(x):
    found = mi.sweep(partial(mi.VAE, SHAPE), x, grid={"latent_dim": (2, 3)}, **TRAINING)
    assert [row["latent_dim"] for row in found.rows] == [2, 3]
    assert found.table().splitlines()[2].split()[0] == "3"


def weighted(beta, seed=0):
    return MAKE(beta=mi.linear_warmup(1, start=1.0, end=beta))


def test_a_model_that_breaks_has_no_figures(x):
    found = mi.sweep(weighted, x, grid={"beta": (2.0, 1e38)}, **TRAINING)
    assert list(found.failures) == [1]
    assert math.isnan(found.rows[1]["rate"])
    assert math.isfinite(found.rows[0]["rate"])
    with pytest.raises(ManyTrainingError):
        mi.sweep(weighted, x, grid={"beta": (1e38,)}, **TRAINING)
    known = [{"beta": 2.0, "seed": 0, "rate": 1.0}]
    table = mi.SweepTable(known, {"beta": (2.0, 1e38)}, seeds=(0,))
    found = fill_table(table, weighted, x, **TRAINING)
    assert list(found.failures) == [1]
    assert found.rows[0] == known[0]


def test_refuses_what_cannot_be_swept(x, tmp_path):
    for options, told in (
        ({"grid": {}}, "grid holds 0; give 1 or more"),
        ({"grid": {"beta": ()}}, r"grid\[.beta.\] holds 0; give 1 or more"),
        ({"grid": {"beta": 2.0}}, r"grid\[.beta.\]=2\.0; allowed are sequences"),
        (
            {"grid": {"beta": (2, 0.5, 2.0)}},
            r"grid\[.beta.\]=\[2, 0\.5, 2\.0\]; give each value once",
        ),
        ({"grid": {"beta": ("2",)}}, r"grid\['beta'\]\[0\]='2'; allowed are finite numbers"),
        ({"grid": {"beta": (2,)}, "seeds": 3}, "seeds=3; allowed are sequences"),
        ({"grid": {"beta": (2,)}, "seeds": (3, 3)}, "give each value once"),
    ):
        with pytest.raises(OptionError, match=told):
            mi.sweep(MAKE, x, **options, epochs=1)
    with pytest.raises(OptionError, match="InfoGAN has no ELBO"):
        mi.sweep(partial(mi.InfoGAN, SHAPE), x, grid={"mi_weight": (1.0,)}, epochs=1)
    found = mi.SweepTable([], {name: (0.0, 1.0) for name in "abc"})
    with pytest.raises(OptionError, match="two options at most"):
        found.to_png(tmp_path / "sweep.png")
    (tmp_path / "sweep.json").touch()
    with pytest.raises(RunError, match="holds a sweep already"):
        sweep_run(RunConfig("beta"), tmp_path, {"beta": (1.0,)})


CONFIG = RunConfig(
    "beta", model={"latent_dim": 2}, training={"epochs": 3, "seed": 4, "engine": "eager"}
)
GRID = {"beta": (0.5, 4.0)}


def stop(*args, **options):
    raise KeyboardInterrupt


def stopped(folder, monkeypatch, run_epoch=stop):
    """A sweep that Ctrl-C stops."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", run_epoch)
        with pytest.raises(KeyboardInterrupt):
            sweep_run(CONFIG, folder, GRID, 2, device="cpu")


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    def measure(vae, x, given):
        return dict.fromkeys(MEASURED, float(sum(p.detach().sum() for p in vae.parameters())))

    monkeypatch.setitem(fill_table.__globals__, "_measure", measure)
    monkeypatch.setattr(mi.SweepTable, "to_png", lambda found, path: path.touch())
    whole = sweep_run(CONFIG, tmp_path / "whole", GRID, 2, device="cpu")
    folder = tmp_path / "parts"
    epochs, run_epoch = [], Trainer.run_epoch

    def stops_in_the_eighth_epoch(trainer, *args):
        epochs.append(trainer)
        return stop() if len(epochs) == 8 else run_epoch(trainer, *args)

    stopped(folder, monkeypatch, stops_in_the_eighth_epoch)
    assert len(list((folder / "models").iterdir())) == 4
    resumed = sweep_run(RunConfig("beta"), folder, {}, resume=True, device="cpu")
    assert (resumed.grid, resumed.seeds) == (GRID, (4, 5))
    assert [row["rate"] for row in resumed.rows] == [row["rate"] for row in whole.rows]
    assert not (folder / "models").exists()
    assert (folder / "sweep.csv").read_text() == (tmp_path / "whole" / "sweep.csv").read_text()
    said = []
    again = sweep_run(RunConfig("beta"), folder, {}, resume=True, say=said.append)
    assert again.rows == resumed.rows
    assert said == [f"{folder} is finished: nothing to do"]


def test_each_row_is_kept_at_once_and_not_measured_again(tmp_path, monkeypatch):
    measured = []

    def measure(vae, x, given):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(vae)
        return dict.fromkeys(MEASURED, float(len(measured)))

    monkeypatch.setitem(fill_table.__globals__, "_measure", measure)
    monkeypatch.setattr(mi.SweepTable, "to_png", lambda found, path: path.touch())
    config = replace(CONFIG, training=CONFIG.training | {"epochs": 1})
    with pytest.raises(KeyboardInterrupt):
        sweep_run(config, tmp_path, GRID, 2, device="cpu")
    with (tmp_path / "sweep.csv").open() as file:
        assert [float(row["rate"]) for row in csv.DictReader(file)] == [1.0, 2.0, 3.0]
    for rate in (math.nan, 9.0):  # a model without figures is trained again
        later = dict.fromkeys(MEASURED, rate)
        monkeypatch.setitem(fill_table.__globals__, "_measure", lambda *args, later=later: later)
        found = sweep_run(config, tmp_path, GRID, resume=True, device="cpu")
    assert [row["rate"] for row in found.rows] == [1.0, 2.0, 3.0, 9.0]
    more = sweep_run(config, tmp_path, {}, 3, resume=True, device="cpu")
    assert [row["rate"] for row in more.rows] == [1.0, 2.0, 9.0, 3.0, 9.0, 9.0]


def test_a_resumed_sweep_is_the_one_that_was_begun(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    for config, grid, count, told in (
        (
            CONFIG,
            {"beta": (0.5,)},
            None,
            "--beta 0.5 given, but .* with 0.5,4; leave",
        ),
        (RunConfig("beta", training={"epochs": 9}), {}, None, "--epochs 9 given"),
        (RunConfig("vae"), {}, None, "VARIANT vae given"),
        (CONFIG, {}, 1, "--seeds 1 given, but the training in .* with 2; leave"),
    ):
        with pytest.raises(OptionError, match=told):
            sweep_run(config, tmp_path, grid, count, resume=True)
    with pytest.raises(OptionError, match="allowed is one of them"):
        sweep_run(CONFIG, tmp_path, GRID, resume=True, overwrite=True)
    (tmp_path / "sweep.toml").unlink()
    with pytest.raises(RunError, match=r"without its sweep.toml"):
        sweep_run(CONFIG, tmp_path, GRID, resume=True)


def test_the_command_leaves_four_files(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "sweep"
    words = f"sweep beta --beta 0.5,4 --epochs 1 --latent-dim 2 --device cpu --run {folder}"
    options = "--engine staged --precision bf16 --lr-schedule cosine --clip-norm 5"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", stop)
        assert run_command([*words.split(), *options.split()]) == 1
    told = capsys.readouterr().err
    assert f"Continue with: pyro-mivae sweep beta --resume --run {folder}" in told
    assert run_command(["sweep", "beta", "--resume", "--run", str(folder)]) == 0
    names = ["sweep.csv", "sweep.json", "sweep.png", "sweep.toml"]
    assert sorted(p.name for p in folder.glob("[!.]*")) == names
    assert RunConfig.read(folder / "sweep.toml").training["precision"] == "bf16"
    assert "mi_lower" in capsys.readouterr().out
    assert run_command("sweep beta --beta 1,a".split()) == 2
    assert run_command("sweep vae --beta 1,2".split()) == 2
    capsys.readouterr()
    assert run_command(["sweep", "beta"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "nothing to sweep; give --beta or --mi-weight" in err
