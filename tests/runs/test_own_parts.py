"""Likelihoods and networks of a user's file, from the command line to a loaded run."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import approve, build_variant, named_programs

SHAPE = (1, 8, 8)
SOURCE = """
import pyro.distributions as dist
from torch import nn

import pyro_mivae as mi


class Laplace(mi.Likelihood):
    num_outputs = 2

    def forward(self, decoded):
        loc, log_scale = decoded.unbind(-1)
        return dist.Laplace(loc, log_scale.exp() + 0.1)


def few_levels():
    return mi.CategoricalLikelihood(17)


shared = Laplace()


def tiny(data_shape, code_dim, num_outputs):
    from pyro_mivae.networks import MLPDecoder, MLPEncoder

    decoder = MLPDecoder(code_dim, data_shape, (7,), num_outputs=num_outputs)
    return MLPEncoder(data_shape, (7,)), decoder


def rows(data_shape, code_dim):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    return [flat, nn.Sequential(nn.Linear(code_dim, 64), nn.Unflatten(1, data_shape))]


def alone(data_shape):
    return nn.Flatten()


def numbers():
    return 1, 2


def needy(data_shape, depth):
    return None


def guide(data_shape, sites, encoder=None):
    return mi.guides.AmortizedGuide(data_shape, sites, encoder)


def broken(data_shape):
    raise KeyError("oops")
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def build(variant="vae", **model):
    config = RunConfig(variant, model=model, training={"seed": 0})
    return build_variant(approve(config, Path("run"), named=named_programs(config)), SHAPE)


@pytest.mark.parametrize("name", ["Laplace", "shared", "few_levels"])
@pytest.mark.parametrize("network", [None, "mlp", "conv", "tiny"])
def test_a_likelihood_of_a_file_fits_every_network(own, name, network):
    network = own(network) if network == "tiny" else network
    vae = build(likelihood=own(name), latent_dim=3, **({"network": network} if network else {}))
    outputs = 17 if name == "few_levels" else 2
    assert vae.model.decoder(torch.zeros(4, 3)).shape == (4, *SHAPE, outputs)
    assert vae.sample(2, what="data").shape == (2, *SHAPE)


@pytest.mark.parametrize("variant", ["vae", "infocat", "vmi", "infogan"])
def test_networks_of_a_file_in_variants_with_their_own_codes(own, variant):
    vae = build(variant, network=own("rows"))
    assert vae.model.decoder[0].in_features == sum(vae.sites.values()) - (
        10 if variant == "infocat" else 0
    )
    assert vae.sample(2).shape == (2, *SHAPE)


def test_the_networks_of_a_file_have_the_outputs_of_a_named_likelihood(own):
    vae = build(network=own("tiny"), likelihood="zero-inflated-negative-binomial")
    assert vae.model.decoder(torch.zeros(4, 20)).shape == (4, *SHAPE, 3)
    assert isinstance(vae.guide.encoder.layers[0], torch.nn.Linear)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"network": "alone"}, "alone returns Flatten; let it return an encoder and a decoder"),
        ({"network": "numbers"}, "numbers returns int, int; let it return an encoder"),
        ({"network": "needy"}, "missing .*'depth'; it can receive data_shape, code_dim, num_o"),
        ({"network": "broken"}, "--network .*broken fails: KeyError: 'oops'"),
        ({"network": "tinny"}, "defines no 'tinny'; did you mean tiny"),
        ({"likelihood": "numbers"}, "likelihood=.*; allowed are instances of Likelihood"),
        ({"likelihood": "needy"}, "missing .*'depth'; it can receive data_shape: give"),
        ({"likelihood": "few_levels", "network": "rows"}, "let it return 17 values per element"),
    ],
)
def test_parts_that_do_not_fit(own, model, message):
    with pytest.raises((OptionError, ValueError), match=message):
        build(**{kind: own(name) for kind, name in model.items()})


def test_a_run_with_parts_of_a_file_is_trained_and_loaded_by_its_user(
    own, tmp_path, monkeypatch, capsys, quick
):
    monkeypatch.setenv("PYRO_MIVAE_STATE", str(tmp_path / "state"))
    images = (mi.load_dataset("digits").x_train[:60, 0] * 255).byte().numpy()
    np.savez(tmp_path / "few.npz", images=images)
    words = ["train", "vae", "--data", str(tmp_path / "few.npz"), "--epochs", "1"]
    words += ["--likelihood", own("Laplace"), "--network", own("tiny")]
    assert run_command([*words, "--run", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    stored = RunConfig.read(tmp_path / "run" / "config.toml")
    assert set(stored.programs) == {"likelihood", "network"}
    loaded = mi.load(tmp_path / "run")
    assert type(loaded.likelihood).__name__ == "Laplace"
    monkeypatch.setenv("PYRO_MIVAE_STATE", str(tmp_path / "another user"))
    with pytest.raises(RunError, match="--likelihood Laplace of .* nothing of it was run"):
        mi.load(tmp_path / "run")
    mi.load(tmp_path / "run", trust=True)
    (tmp_path / "own.py").write_text(SOURCE + "\n")
    with pytest.raises(RunError, match="was edited since the run"):
        mi.load(tmp_path / "run", trust=True)


@pytest.mark.parametrize("parts", [{"network": "tiny"}, {"guide": "guide"}])
def test_parts_of_a_file_take_the_condition(own, parts):
    model = {name: own(value) for name, value in parts.items()}
    config = RunConfig("vae", model={**model, "latent_dim": 3}, given_shape=(4,))
    config = approve(config, Path("."), named=named_programs(config))
    vae = build_variant(config, SHAPE)
    x, u = torch.rand(5, *SHAPE), torch.arange(5) % 4
    assert not torch.equal(*(vae.encode(x, given=v)["z"] for v in (u, u.roll(1))))
    assert not torch.equal(
        *(vae.decode({"z": torch.zeros(5, 3)}, 5, given=v) for v in (u, u.roll(1)))
    )
