"""A sweep trains the grid, and measures each model as it is measured alone."""

import csv
import json
import math
from functools import partial

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.runs import RunConfig, sweep_run

SHAPE = (1, 4, 4)
TRAINING = {"epochs": 2, "batch_size": 32}
MAKE = partial(mi.BetaVAE, SHAPE, latent_dim=2)


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(5)
    prototypes = torch.rand(3, *SHAPE, generator=generator)
    noise = torch.rand(64, *SHAPE, generator=generator)
    return (prototypes[torch.arange(64) % 3] * 0.9 + noise * 0.1).clamp(0, 1)


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


def test_a_model_that_breaks_has_no_figures(x):
    make = partial(mi.BetaVAE, SHAPE, latent_dim=2)

    def weighted(beta):
        return make(beta=mi.linear_warmup(1, start=1.0, end=beta))

    found = mi.sweep(weighted, x, grid={"beta": (2.0, 1e38)}, **TRAINING)
    assert list(found.failures) == [1]
    assert math.isnan(found.rows[1]["rate"])
    assert math.isfinite(found.rows[0]["rate"])
    with pytest.raises(ManyTrainingError):
        mi.sweep(weighted, x, grid={"beta": (1e38,)}, **TRAINING)


def test_refuses_what_cannot_be_swept(x, tmp_path):
    with pytest.raises(OptionError, match="give one option or more"):
        mi.sweep(MAKE, x, grid={}, epochs=1)
    with pytest.raises(OptionError, match="InfoGAN has no ELBO"):
        mi.sweep(partial(mi.InfoGAN, SHAPE), x, grid={"mi_weight": (1.0,)}, epochs=1)
    found = mi.SweepTable([], {name: (0.0, 1.0) for name in "abc"})
    with pytest.raises(OptionError, match="two of them at most"):
        found.to_png(tmp_path / "sweep.png")
    (tmp_path / "sweep.csv").touch()
    with pytest.raises(RunError, match="holds a sweep already"):
        sweep_run(RunConfig("beta"), tmp_path, {"beta": (1.0,)})


def test_the_command_leaves_three_files(tmp_path, capsys):
    folder = tmp_path / "sweep"
    words = f"sweep beta --beta 0.5,4 --epochs 1 --latent-dim 2 --device cpu --run {folder}"
    assert run_command(words.split()) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["sweep.csv", "sweep.json", "sweep.png"]
    assert "mi_lower" in capsys.readouterr().out
    assert run_command("sweep beta --beta 1,a".split()) == 2
    assert run_command("sweep vae --beta 1,2".split()) == 2
