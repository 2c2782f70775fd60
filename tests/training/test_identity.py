"""A run goes on as the run that it was, or says what is another."""

import re

import pytest
import torch
from pyro import distributions as dist
from pyro import sample
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, PyroMivaeWarning
from pyro_mivae.inputs import fingerprint
from pyro_mivae.training import (
    describe_model,
    differences,
    fit,
    fit_many,
    read_checkpoint,
    write_archive,
)

SHAPE = (1, 4, 4)


class WidePrior(PyroModule):
    """A prior of one's own."""

    scale = 2.0

    def forward(self):
        """Samples z."""
        return sample("z", dist.Normal(torch.zeros(3), self.scale).to_event(1))


OTHERS = {
    "lr": (lambda x: (mi.VAE(SHAPE, latent_dim=3), x, {"lr": 1e-5}), "lr=1e-05 given"),
    "precision": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3), x, {"engine": "eager"}),
        "engine='eager' given, but .* started with 'auto'",
    ),
    "noise": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3), torch.rand(50, *SHAPE), {}),
        "other training images given",
    ),
    "one pixel": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3), x.index_fill(0, torch.tensor(7), 0.5), {}),
        "other training images given",
    ),
    "order": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3), x.flip(0), {}),
        "other training images given",
    ),
    "held out": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3), x, {"validation": 0.3}),
        "other validation given",
    ),
    "class": (
        lambda x: (mi.BetaVAE(SHAPE, latent_dim=3, beta=9.0), x, {}),
        "another model given .* class is BetaVAE here and VAE there",
    ),
    "likelihood": (
        lambda x: (mi.VAE(SHAPE, latent_dim=3, likelihood=mi.GaussianLikelihood()), x, {}),
        "another model given .*GaussianLikelihood.* here",
    ),
    "prior": (
        lambda x: (mi.VAE(SHAPE, prior=WidePrior()), x, {}),
        r"another model given .*WidePrior\(\) here and .*StandardNormalPrior",
    ),
    "encoder": (
        lambda x: (
            mi.VAE(
                SHAPE,
                latent_dim=3,
                encoder=nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh()),
            ),
            x,
            {},
        ),
        "another model given",
    ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, x):
    folder = tmp_path_factory.mktemp("run")
    fit(mi.VAE(SHAPE, latent_dim=3), x, epochs=2, batch_size=25, run=folder)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_named(run, x, name):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    make, message = OTHERS[name]
    vae, images, options = make(x)
    with pytest.raises(OptionError, match=message):
        fit(vae, images, epochs=3, batch_size=25, run=run, resume=True, **options)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_options_that_only_the_objective_knows(tmp_path, x):
    fit(mi.InfoCatVAE(SHAPE, num_categories=3, warm_start=0), x, epochs=1, run=tmp_path)
    other = mi.InfoCatVAE(SHAPE, num_categories=3, warm_start=0, mi_weight=0.5)
    with pytest.raises(OptionError, match=r"mi_weight is 0.5 here and .* there"):
        fit(other, x, epochs=1, run=tmp_path, resume=True)


def test_fixed_numbers_and_attributes_of_parts_count():
    narrow, wide = (
        describe_model(mi.VAE(SHAPE, likelihood=mi.GaussianLikelihood(scale)))
        for scale in (0.1, 0.5)
    )
    assert list(differences(narrow, wide)) == ["likelihood.scale is 0.1 here and 0.5 there"]
    near, far = (
        describe_model(mi.CatVAE(SHAPE, prior=mi.MixturePrior(10, radius=radius)))
        for radius in (1.0, 4.0)
    )
    assert any("radius is 1 here and 4 there" in told for told in differences(near, far))


@pytest.mark.parametrize("name", list(mi.VARIANTS))
def test_models_that_are_built_alike_are_described_alike(name, x):
    short = {"warm_start": 2} if "cat" in name else {}
    first, second = (mi.VARIANTS[name](SHAPE, **short) for _ in range(2))
    assert not list(differences(describe_model(first), describe_model(second)))
    explicit = {"latent_dim": first.latent_dim} if name == "vae" else {}
    third = mi.VARIANTS[name](data_shape=list(SHAPE), **short, **explicit)
    fit(third, x.repeat(2, 1, 1, 1)[:64], epochs=1, engine="eager")
    assert not list(differences(describe_model(first), describe_model(third)))


def test_code_of_ones_own_counts_but_not_its_layout(tmp_path, x):
    source = """
import torch
from pyro import distributions as dist, sample
from pyro.nn import PyroModule


class Prior(PyroModule):
    def forward(self):
        return sample("z", dist.Normal(torch.zeros(3), {scale}).to_event(1)){comment}
"""

    def describe(**values):
        import linecache

        path = tmp_path / "own_prior.py"
        path.write_text(source.format(**values))
        linecache.checkcache(str(path))
        import importlib.util
        import sys

        spec = importlib.util.spec_from_file_location("own_prior", path)
        module = sys.modules["own_prior"] = importlib.util.module_from_spec(spec)
        exec(compile(path.read_text(), path, "exec"), module.__dict__)
        return describe_model(mi.VAE(SHAPE, prior=module.Prior()))

    first = describe(scale=1.0, comment="")
    assert not list(differences(first, describe(scale=1.0, comment="  # as ever")))
    assert re.match(
        "Prior is .* here and", next(differences(first, describe(scale=5.0, comment="")))
    )


def test_other_versions_are_said_and_go_on(tmp_path, x):
    with pytest.raises(KeyboardInterrupt):
        fit(mi.VAE(SHAPE), x, epochs=2, run=tmp_path, on_epoch=interrupt)
    state = {k: v for k, v in read_checkpoint(tmp_path).items() if k != "file"}
    state["identity"]["versions"]["torch"] = "2.0.1"
    write_archive(tmp_path / "checkpoint.pt", state)
    with pytest.warns(PyroMivaeWarning, match=r"rounding: torch is .* here and 2.0.1 there"):
        fit(mi.VAE(SHAPE), x, epochs=2, run=tmp_path, resume=True)


def interrupt(row):
    raise KeyboardInterrupt


def test_many_check_what_one_checks(tmp_path, x):
    runs = [tmp_path / "a", tmp_path / "b"]
    fit_many([mi.VAE(SHAPE), mi.VAE(SHAPE)], x, epochs=1, runs=runs)
    with pytest.raises(OptionError, match="lr=0.01 given, but the run in .*b was started with"):
        fit_many(
            [mi.VAE(SHAPE), mi.VAE(SHAPE)], x, epochs=1, runs=runs, resume=True, lr=(1e-3, 1e-2)
        )
    with pytest.raises(OptionError, match="other training images"):
        fit_many([mi.VAE(SHAPE), mi.VAE(SHAPE)], x.flip(0), epochs=1, runs=runs, resume=True)


def test_a_fingerprint_tells_type_shape_and_content():
    x = torch.arange(12.0).reshape(3, 4)
    prints = [fingerprint(v) for v in (x, x.double(), x.reshape(4, 3), x + 1, x.T, None)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(x.T.contiguous().T) == fingerprint(x)
    assert fingerprint(x[:, :0]) != fingerprint(x[:0])


def test_functions_and_attributes_of_ones_own_count():
    class Slope(nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope, self.layer = slope, nn.Linear(16, 8)

        def forward(self, x):
            return self.layer(x.flatten(1)) * self.slope

    one, other = (describe_model(mi.VAE(SHAPE, encoder=Slope(slope))) for slope in (0.1, -5.0))
    assert list(differences(one, other)) == ["guide.encoder.slope is 0.1 here and -5 there"]
    two, seven = (
        describe_model(mi.BetaVAE(SHAPE, beta=beta)) for beta in (lambda s: 2.0, lambda s: 7.0)
    )
    assert [told.split()[0] for told in differences(two, seven)][-1] == "beta"
