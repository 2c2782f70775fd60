"""A run folder is not a program: code that it names is run if it is the user's own, or trusted."""

import importlib.util
import json
import os
import py_compile
import shutil
import stat
import sys
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs import RunConfig, SweepTable, open_run, sweep_run, train_run, train_seeds
from pyro_mivae.runs.build import approve, build_variant
from pyro_mivae.runs.sweep import MEASURED, fill_table
from pyro_mivae.training import fit

SOURCE = """
from pathlib import Path

import pyro_mivae

Path(__file__).with_name("marker").touch()


class P(pyro_mivae.StandardNormalPrior):
    def __init__(self):
        super().__init__(2)


class Other(P):
    pass
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """What is remembered of the user, who starts with nothing."""
    monkeypatch.setenv("PYRO_MIVAE_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "trusted"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Figures, pages and pictures are tested elsewhere."""
    monkeypatch.setattr("pyro_mivae.runs.group.evaluate_run", measured)
    monkeypatch.setattr("pyro_mivae.runs.group.report_run", lambda *args, **options: None)
    for name in ("evaluate_run", "report_run", "write_samples"):
        monkeypatch.setattr(f"pyro_mivae.runs.{name}", lambda *args, **options: None)
    monkeypatch.setattr("pyro_mivae.runs.write_codes", lambda *args, **options: {})


def measured(run, *args, **options):
    (run.folder / "metrics.json").write_text(json.dumps({"metrics": {}, "protocol": {}}))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without code, and its data."""
    home = tmp_path_factory.mktemp("plain")
    digits = mi.load_dataset("digits")
    np.savez(home / "few.npz", images=(digits.x_train[:40, 0] * 255).byte().numpy())
    training = {"epochs": 1, "engine": "eager"}
    config = RunConfig("vae", str(home / "few.npz"), model={"latent_dim": 2}, training=training)
    dataset = config.load_dataset()
    config = config.complete(dataset)
    vae = build_variant(config, dataset.data_shape)
    fit(vae, dataset.x_train, epochs=1, run=home / "run", engine="eager")
    config.write(home / "run" / "config.toml")
    (home / "run" / "metrics.json").write_text('{"metrics": {}, "protocol": {}}')
    (home / "run" / "report.html").touch()
    return home


@pytest.fixture
def asked(plain):
    """What the user asks for: a model with a prior of the user's own, trained shortly."""

    def asked(file, name="P", variant="vae"):
        training = {"epochs": 1, "engine": "eager"}
        model = {"prior": f"{file}:{name}"}
        return RunConfig(variant, str(plain / "few.npz"), model=model, training=training)

    return asked


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    return tmp_path / "own.py"


@pytest.fixture
def evil(plain, own, tmp_path, monkeypatch):
    """A run and a sweep of somebody else's, with code and its right digest."""
    for name in ("run", "group"):  # that its parts do not belong together is seen elsewhere
        module = sys.modules[f"pyro_mivae.runs.{name}"]
        monkeypatch.setattr(module, "check_belongs", lambda *args: None)
    for name in ("run", "second"):
        shutil.copytree(plain / "run", tmp_path / name)
    stored = RunConfig.read(tmp_path / "run" / "config.toml")
    stored = replace(stored, model={**stored.model, "prior": f"{own}:P"})
    stored = approve(stored, tmp_path, trust=True)
    stored.write(tmp_path / "run" / "config.toml")
    (tmp_path / "sweep").mkdir()
    beta = replace(stored, variant="beta", model={"latent_dim": 2, "prior": f"{own}:P"})
    beta.write(tmp_path / "sweep" / "sweep.toml")
    SweepTable([], {"beta": (1.0,)}, seeds=(0,)).to_json(tmp_path / "sweep" / "sweep.json")
    return tmp_path


def stopped(*args, **options):
    raise RunError("far enough")


COMMANDS = {
    "sample": "sample run --out g.png",
    "encode": "encode run --data digits --out c.npz",
    "report": "report run",
    "evaluate": "evaluate run",
    "compare": "compare run second",
    "train": "train vae --resume --run run",
    "sweep": "sweep beta --resume --run sweep",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("relative", [False, True])
def test_no_command_runs_the_code_of_a_folder(evil, monkeypatch, capsys, words, relative):
    monkeypatch.chdir(evil)
    monkeypatch.setitem(fill_table.__globals__, "fit_many", stopped)
    if relative:
        for config in (evil / "run" / "config.toml", evil / "sweep" / "sweep.toml"):
            config.write_text(config.read_text().replace(f"{evil}/own.py", "own.py"))
    assert run_command(words.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert f"--prior P of {evil / 'own.py'} (SHA-256 " in told
    assert "nothing of it was run: read the file, then give --trust" in told
    assert not (evil / "marker").exists()
    code = run_command([*words.split(), "--trust"])
    err = capsys.readouterr().err
    assert code == 0 or "far enough" in err, err
    assert (evil / "marker").exists()


@pytest.mark.parametrize("call", [mi.load, open_run, partial(mi.compare, "second")])
def test_no_call_runs_the_code_of_a_folder(evil, monkeypatch, call):
    monkeypatch.chdir(evil)
    with pytest.raises(RunError, match=r"nothing of it was run: .* give trust=True"):
        call("run")
    assert not (evil / "marker").exists()
    call("run", trust=True)
    assert (evil / "marker").exists()


def test_a_stored_configuration_without_digests_is_not_trusted(evil, asked, own):
    train_run(asked(own), evil / "mine")  # the file is the user's own by now
    stored = RunConfig.read(evil / "run" / "config.toml")
    open_run(evil / "run")
    replace(stored, programs={}).write(evil / "run" / "config.toml")
    with pytest.raises(RunError, match="nothing of it was run"):
        open_run(evil / "run")
    with pytest.raises(RunError, match="was not approved"):
        build_variant(replace(stored, programs={}), stored.data_shape)


def test_ones_own_training_is_trusted_afterwards(own, asked, tmp_path, state):
    run = train_run(asked(own), tmp_path / "mine")
    assert len(run.config.programs["prior"]) == 64
    assert type(run.vae.prior).__name__ == "P"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    (tmp_path / "marker").unlink()
    assert mi.load(tmp_path / "mine").latent_dim == 2
    assert (tmp_path / "marker").exists()
    train_run(RunConfig("vae"), tmp_path / "mine", resume=True)
    train_run(asked(own), tmp_path / "again")
    assert len(state.read_text().splitlines()) == 1
    state.unlink()
    with pytest.raises(RunError, match="nothing of it was run"):
        mi.load(tmp_path / "mine")
    train_run(asked(own), tmp_path / "mine", resume=True)  # named in this call
    assert mi.load(tmp_path / "mine")


def test_seeds_and_sweeps_are_trusted_afterwards(own, asked, tmp_path, state, monkeypatch):
    figures = dict.fromkeys(MEASURED, 1.0)
    monkeypatch.setitem(fill_table.__globals__, "_measure", lambda *args: figures)
    monkeypatch.setattr(SweepTable, "to_png", lambda table, path: path.touch())
    train_seeds(asked(own), tmp_path / "seeds", 1)
    assert open_run(tmp_path / "seeds" / "seed-0")
    state.unlink()
    with pytest.raises(RunError, match="nothing of it was run"):
        train_seeds(RunConfig("vae"), tmp_path / "seeds", 2, resume=True)
    sweep_run(asked(own, variant="beta"), tmp_path / "sweep", {"beta": (1.0,)}, device="cpu")
    assert len(sweep_run(RunConfig("beta"), tmp_path / "sweep", {}, 2, resume=True).rows) == 2


def test_a_copy_elsewhere_or_another_name_is_not_trusted(own, asked, tmp_path):
    train_run(asked(own), tmp_path / "mine")
    (tmp_path / "theirs").mkdir()
    shutil.copy(own, tmp_path / "theirs")
    shutil.copytree(tmp_path / "mine", tmp_path / "theirs" / "run")
    path = tmp_path / "theirs" / "run" / "config.toml"
    text = path.read_text()
    for changed in (
        text.replace(str(own), str(tmp_path / "theirs" / "own.py")),
        text.replace("own.py:P", "own.py:Other"),
    ):
        path.write_text(changed)
        with pytest.raises(RunError, match="nothing of it was run"):
            open_run(tmp_path / "theirs" / "run")
    assert not (tmp_path / "theirs" / "marker").exists()


def test_an_edited_file_is_named(own, asked, tmp_path):
    train_run(asked(own), tmp_path / "mine")
    (tmp_path / "marker").unlink()
    own.write_text(SOURCE.replace("super().__init__(2)", "super().__init__(1 + 1)"))
    for trust in (False, True):
        with pytest.raises(
            RunError, match=r"own.py, which --prior names, was edited since .* restore"
        ):
            open_run(tmp_path / "mine", trust=trust)
    with pytest.raises(RunError, match="was edited since"):
        train_run(asked(own), tmp_path / "mine", resume=True)
    assert not (tmp_path / "marker").exists()
    (tmp_path / "mine" / "checkpoint.pt").unlink()
    train_run(asked(own), tmp_path / "mine", resume=True)  # anew, with the file as it is
    own.unlink()
    with pytest.raises(OptionError, match="there is no file"):
        open_run(tmp_path / "mine")


def test_an_edit_while_training_changes_nothing(own, asked, tmp_path):
    edit = partial(own.write_text, "raise ValueError")
    assert train_run(asked(own), tmp_path / "mine", on_start=edit).finished


@pytest.mark.parametrize("home", ["file/below", "closed"])
def test_a_home_that_cannot_be_written_to(own, asked, tmp_path, monkeypatch, home):
    (tmp_path / "file").touch()
    (tmp_path / "closed" / "trusted").mkdir(parents=True)
    monkeypatch.setenv("PYRO_MIVAE_STATE", str(tmp_path / home))
    train_run(asked(own), tmp_path / "mine")
    with pytest.raises(RunError, match="nothing of it was run"):
        open_run(tmp_path / "mine")


def test_the_state_of_a_user_without_a_variable_of_ours(own, asked, tmp_path, monkeypatch):
    monkeypatch.delenv("PYRO_MIVAE_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    train_run(asked(own), tmp_path / "mine")
    assert open_run(tmp_path / "mine")
    assert (tmp_path / "xdg" / "pyro_mivae" / "trusted").is_file()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    train_run(asked(own), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "home" / ".local" / "state" / "pyro_mivae" / "trusted").is_file()


def test_the_bytes_that_are_run_are_those_that_were_read(own, asked, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("raise ValueError('compiled')")
    cached = importlib.util.cache_from_source(own)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(other, cfile=cached, invalidation_mode=unchecked)
    vae = train_run(asked(own), tmp_path / "mine").vae
    module = sys.modules[type(vae.prior).__module__]
    assert module.__pyro_mivae_digest__ == open_run(tmp_path / "mine").config.programs["prior"]
    assert os.path.samefile(module.__file__, own)


def test_a_failure_in_the_file_shows_its_line(own, asked, tmp_path):
    own.write_text("def fails():\n    raise ValueError('here')\n\n\nfails()\n")
    with pytest.raises(OptionError, match="fails when imported: ValueError: here") as caught:
        train_run(asked(own), tmp_path / "mine")
    told = "".join(traceback.format_exception(caught.value))
    assert f'File "{own}", line 2, in fails' in told
    assert "raise ValueError('here')" in told


def test_two_files_of_one_name_are_two_modules(own, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "own.py").write_text(SOURCE + "\nSIZE = 3\n")
    modules = []
    for file in (own, tmp_path / "b" / "own.py"):
        config = RunConfig("vae", model={"prior": f"{file}:P"})
        vae = build_variant(approve(config, tmp_path, trust=True), torch.Size((1, 8, 8)))
        modules.append(type(vae.prior).__module__)
    assert modules[0] != modules[1]
    assert all(Path(sys.modules[name].__file__).name == "own.py" for name in modules)
