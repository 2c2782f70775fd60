"""`--given FILE`: a condition of each datum, from training to samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError
from pyro_mivae.runs import RunConfig, compare, open_run
from pyro_mivae.training import read_checkpoint

QUICK = ("--epochs", 1, "--latent-dim", 2)


@pytest.fixture
def labels(home, tmp_path):
    """A file of the digits' own labels, modulo 3: each condition is measured by itself."""
    np.save(tmp_path / "u.npy", np.load(home / "digits.npz")["labels"] % 3)
    return tmp_path / "u.npy"


def test_a_run_keeps_its_condition(call, home, labels):
    data = ("--data", home / "digits.npz")
    code, out, err = call("train", "vae", *data, "--given", "u.npy", *QUICK, "--run", "r")
    assert code == 0, err
    assert "log p(x) is log p(x | u)" in out
    page = Path("r/report.html").read_text()
    assert "could not be drawn" not in page
    assert f"--given {labels}" in page
    assert "given the conditions of the first images" in page
    run = open_run("r")
    assert (run.config.given, run.config.given_shape) == (str(labels), (3,))
    dataset = run.dataset()
    assert torch.equal(dataset.given_train, dataset.y_train % 3)
    assert torch.equal(dataset.given_test, dataset.y_test % 3)
    trained = read_checkpoint(Path("r"))["identity"]["data"]
    wanted = run.vae.arguments(dataset.x_train, dataset.given_train)[1]
    assert trained["condition"] == mi.inputs.fingerprint(wanted)
    protocol = json.loads(Path("r/metrics.json").read_text())["protocol"]
    assert protocol["information"]["given"].startswith("means over 3 conditions")

    code, out, _ = call("train", "vae", "--given", "u.npy", "--run", "r", "--resume")
    assert (code, "nothing to do" in out) == (0, True)
    np.save("other.npy", np.roll(np.load(labels), 1))
    code, _, err = call("train", "vae", "--given", "other.npy", "--run", "r", "--resume")
    assert code == 2
    assert "other.npy given, but the training in r was started with" in err[-1]
    assert call("evaluate", "r")[0] == call("report", "r")[0] == 0

    encode = ("encode", "r", *data, "--out", "codes.npz", "--overwrite")
    assert call(*encode, "--given", "u.npy")[0] == 0
    x = torch.from_numpy(np.load(home / "digits.npz")["images"])[:, None] / 255
    codes = np.load("codes.npz")["z"]
    for file in ("u.npy", "other.npy"):
        found = run.vae.encode(x, given=np.load(file))["z"]
        assert np.allclose(codes, found, atol=1e-5) == (file == "u.npy")
    pictures = []
    for given in (0, 2, "u.npy"):
        assert call("sample", "r", "--given", given, "--out", "s.png", "--overwrite")[0] == 0
        pictures.append(Path("s.png").read_bytes())
    assert len(set(pictures)) == 3

    np.save(labels, np.load("other.npy"))
    code, _, err = call("evaluate", "r")
    assert code == 2
    assert f"{labels} has changed since r was made: other condition" in err[-1]


@pytest.mark.slow
def test_sweeps_and_seeds_take_it(call, home, labels):
    Path("u.csv").write_text("label\n" + "\n".join(map(str, np.load(labels))))
    data = ("--data", home / "digits.npz", "--given", "u.csv", "--epochs", 1)
    code, _, err = call("sweep", "beta", "--beta", "0.5,2", *data, "--run", "w")
    assert code == 0, err
    rows = json.loads(Path("w/sweep.json").read_text())["rows"]
    assert all(np.isfinite(row["rate"]) for row in rows)
    few = ("--warm-start", 5, "--starts", 1, "--categories", 3)
    code, out, err = call("train", "cat", *data, *few, "--seeds", 2, "--run", "s")
    assert code == 0, err
    assert "agreement" in out
    call("train", "vae", *data[:2], *QUICK, "--run", "plain")
    comparison = compare("s", "plain")
    assert "have different conditions" in "".join(comparison.warnings)
    assert "could not be drawn" not in comparison.write("page").read_text()


OWN = """
import pyro
import pyro.distributions as dist
from torch import nn

import pyro_mivae as mi


class CategoryGiven(mi.MixturePrior):
    def __init__(self, given_shape, num_categories, latent_dim):
        super().__init__(num_categories, latent_dim)
        self.given_shape = given_shape
        self.linear = nn.Linear(*given_shape, num_categories)

    def forward(self, given):
        c = pyro.sample("c", dist.OneHotCategorical(logits=self.linear(given)))
        return pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))
"""


@pytest.mark.parametrize("prior", ["conditional-normal", "own.py:CategoryGiven"])
def test_priors_that_read_the_condition(call, home, labels, prior):
    Path("own.py").write_text(OWN)
    data = ("--data", home / "digits.npz", "--epochs", 1, "--prior", prior)
    own = ("vae", "--latent-dim", 2)
    if prior != "conditional-normal":
        own = ("infocat", "--categories", 3, "--latent-dim", 6, "--warm-start", 5, "--starts", 1)
    code, _, err = call("train", *own, *data, "--given", "u.npy", "--run", "r")
    assert code == 0, err
    page = Path("r/report.html").read_text()
    assert "could not be drawn" not in page
    assert ("all is given the condition of one image" in page) == (own[0] == "infocat")
    assert call("sample", "r", "--given", 2, "--out", "s.png")[0] == 0
    code, _, err = call("train", *own, *data, "--run", "without")
    assert code == 2
    assert "reads the condition of each datum; give it by --given FILE" in err[-1]


def given_as(kind):
    """Writes a condition of 200 data, or of another number; returns the file."""
    rows = np.random.default_rng(0).normal(size=(200, 2))
    if kind == "text":
        Path("u.csv").write_text("label\n" + "a\nb\n" * 100)
    elif kind == "both":
        Path("u.csv").write_text("a,label\n" + "0.5,1\n0.5,2\n" * 100)
    elif kind == "picture":
        Path("u.png").write_bytes(b"")
        return "u.png"
    else:
        arrays = {"short": rows[:150], "flat": rows[:, 0], "negative": np.arange(200) - 1}
        np.save("u.npy", arrays.get(kind, rows))
        return "u.npy"
    return "u.csv"


@pytest.mark.parametrize(
    ("variant", "kind", "message"),
    [
        ("vae", "short", "--given u.npy holds 150 conditions for 200 data; give a row for each"),
        ("vae", "flat", r"(200,); allowed is (N, *data_shape); give values.reshape(-1, 1)"),
        ("vae", "negative", "the labels of --given u.npy are not all integers from 0"),
        ("vae", "text", "the labels of --given u.csv are not all integers from 0"),
        ("vae", "both", "--given u.csv holds labels beside numbers; give the labels alone"),
        ("vae", "picture", "--given u.png: no such .npy or .csv file"),
        ("infogan", "rows", "InfoGAN takes no condition, because"),
    ],
)
def test_what_is_no_condition_is_refused(call, home, variant, kind, message):
    given = given_as(kind)
    code, _, err = call("train", variant, "--data", home / "digits.npz", "--given", given)
    assert code == 2
    assert message in err[-1]
    assert not Path("runs").exists()


def test_a_missing_file_is_refused(call, home):
    code, _, err = call("train", "vae", "--data", home / "digits.npz", "--given", "gone.npy")
    assert (code, "--given gone.npy: no such .npy or .csv file" in err[-1]) == (2, True)


@pytest.mark.parametrize("command", ["encode", "sample"])
def test_outputs_need_the_condition_of_the_run(call, home, copy, command):
    own = ("--data", home / "digits.npz") if command == "encode" else ()
    out = ("--out", "out.npz" if command == "encode" else "out.png")
    code, _, err = call(command, "r", *own, *out, "--given", given_as("rows"))
    assert (code, "r was trained without one; leave it out" in err[-1]) == (2, True)
    few = ("--data", home / "digits.npz", "--given", "u.npy", *QUICK)
    config = RunConfig("vae", given="u.npy", data=str(home / "digits.npz"))
    assert config.load_dataset().given_shape == (2,)
    assert call("train", "vae", *few, "--run", "v")[0] == 0
    code, _, err = call(command, "v", *own, *out)
    assert (code, "give that of each datum by --given FILE" in err[-1]) == (2, True)
    np.save("wide.npy", np.zeros((200, 3)))
    code, _, err = call(command, "v", *own, *out, "--given", "wide.npy")
    assert code == 2
    assert "holds conditions of shape (3,); give those of shape (2,)" in err[-1]
    if command == "sample":
        code, _, err = call(command, "v", *out, "--given", 2)
        assert (code, "labels in given range over 2 to 2" in err[-1]) == (2, True)


def test_a_sweep_in_python_measures_given_the_condition(encoder_side):
    x, u = torch.rand(40, 1, 4, 4), torch.arange(40) % 2
    how = {"grid": {"beta": (1.0,)}, "epochs": 1, "engine": "eager", "given": u}

    def make(beta):
        return mi.BetaVAE((1, 4, 4), beta=beta, latent_dim=2, given_shape=(2,))

    own, other = (
        mi.sweep(make, x, x_test=x, given_test=given, **how).rows[0]["rate"]
        for given in (u, u.roll(1))
    )
    assert own == mi.sweep(make, x, **how).rows[0]["rate"] != other
    with pytest.raises(OptionError, match="given is missing"):
        mi.sweep(make, x, x_test=x, **how)
