"""A finished run, and a function that calls commands."""

import shutil

import numpy as np
import pytest

from pyro_mivae.cli import run_command
from pyro_mivae.data import load_dataset


@pytest.fixture(scope="session")
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
