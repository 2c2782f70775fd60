"""Every script in examples/ runs offline with tiny settings; every variant has one."""

import importlib.util
import inspect
import math
import re
import runpy
import socket
import sys
from pathlib import Path

import pytest
import torch

import pyro_mivae as mi

FOLDER = Path(__file__).parents[1] / "examples"
SHARED = FOLDER / "common.py"
SCRIPTS = sorted(set(FOLDER.glob("*.py")) - {SHARED})


@pytest.fixture
def run(monkeypatch, tmp_path, encoder_side):
    """Calls a script's ``main`` in an empty folder, without a network."""

    def refuse(*args):
        raise AssertionError("--smoke opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)

    def run(name, *options):
        spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main(["--smoke", *options])

    yield run
    sys.modules.pop(SHARED.stem, None)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(path, run, tmp_path, capsys):
    metrics = run(path.relative_to(FOLDER).with_suffix(""))
    assert metrics
    for name, value in metrics.items():
        assert isinstance(value, float), name
        assert math.isfinite(value), name
    assert capsys.readouterr().out.startswith("J = ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_says_what_it_is(path):
    source = path.read_text()
    header = inspect.cleandoc(re.match(r'r"""(.*?)"""', source, re.DOTALL)[1])
    assert header.splitlines()[0].endswith("?")
    assert f"\n    python examples/{path.name}" in header
    assert re.search(r"^Expected \(seed", header, re.MULTILINE)
    assert re.search(r"^Departures", header, re.MULTILINE)
    assert "svi.step(" in source
    assert len(source.splitlines()) < 150


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_variant_has_a_script(name):
    path = FOLDER / f"{name.replace('-', '_')}.py"
    assert path in SCRIPTS, f"the variant {name} has no example: write {path}"
    assert f"mi.{mi.VARIANTS[name].__name__}(" in path.read_text()


def test_shared_code_is_shared():
    users = [path for path in SCRIPTS if "from common import" in path.read_text()]
    assert len(users) > 1


def test_runs_as_a_program(run, monkeypatch, capsys):
    script = str(FOLDER / "vae.py")
    monkeypatch.setattr(sys, "argv", [script, "--smoke", "--latent-dim", "2"])
    runpy.run_path(script, run_name="__main__")
    assert "of 2 dimensions" in capsys.readouterr().out


def test_same_seed_gives_the_same_numbers(run):
    assert run("vae") == run("vae")


def test_pyros_elbo_under_the_handler_trains_the_same(run):
    ours, theirs = run("infomax"), run("infomax", "--pyro")
    assert theirs == pytest.approx(ours, rel=0.01)  # batch norm and Adam blow up rounding


def test_deterministic_code_has_no_divergence(run):
    metrics = run("infomax", "--deterministic")
    assert math.isnan(metrics["kl_c"])
    assert math.isfinite(metrics["loss"])


def test_beta_trades_distortion_for_rate(run):
    metrics = run("beta", "--betas", "0", "100")
    assert metrics["rate_100"] < metrics["rate_0"]
    assert metrics["loss_0"] == pytest.approx(metrics["distortion_0"])


def test_made_up_images_fit_every_likelihood(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    common = importlib.import_module("common")
    images = common.stripes()
    sys.modules.pop("common")
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        assert 0 <= float(x.min()) < float(x.max()) <= 1
        assert torch.equal(y.unique(), torch.arange(8))
