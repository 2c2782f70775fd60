"""Names and files become modules."""

import sys
from pathlib import Path

import pytest
import torch

from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.guides import FAMILIES
from pyro_mivae.networks import ConvDecoder, ConvEncoder, MLPDecoder
from pyro_mivae.priors import MixturePrior, StandardNormalPrior, UniformPrior
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import approve, build_variant, named_programs
from pyro_mivae.variants import VARIANTS

SHAPE = (1, 8, 8)
SOURCE = """
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from pyro_mivae.guides import AmortizedGuide, LowRank, MeanFieldGuide


class Wide(PyroModule):
    '''Knows nothing but its size.'''

    def __init__(self, latent_dim=3):
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self):
        z = dist.Normal(torch.zeros(self.latent_dim), 2.0).to_event(1)
        return pyro.sample("z", z)


class Fixed(Wide):
    def __init__(self):
        super().__init__(4)


def make_guide(data_shape, latent_dim):
    return MeanFieldGuide(data_shape, {"z": latent_dim})


def correlated(data_shape, sites, encoder=None):
    family = partial(LowRank, rank=3)
    return AmortizedGuide(data_shape, sites, encoder, family=family)


class Failing(Wide):
    def __init__(self):
        raise ValueError("too wide")


class Needy(Wide):
    def __init__(self, temperature):
        super().__init__()


class Buggy(PyroModule):
    def forward(self, x):
        raise KeyError("oops")


instance = Fixed()
number = 3


def drawn(latent_dim):
    return torch.zeros(latent_dim)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def build(variant="vae", seed=0, **model):
    config = RunConfig(variant, model=model, training={"seed": seed})
    named = named_programs(config)
    return build_variant(approve(config, Path("run"), named=named), SHAPE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_by_name_from_its_seed_alone(variant):
    torch.manual_seed(5)
    first = build(variant)
    assert isinstance(first, VARIANTS[variant])
    second = build(variant)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    others = zip(first.parameters(), build(variant, seed=1).parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in others)


@pytest.mark.parametrize(
    ("name", "given", "size"),
    [("Wide", {"latent_dim": 5}, 5), ("Fixed", {}, 4), ("instance", {"latent_dim": 4}, 4)],
)
def test_prior_from_a_file(program, name, given, size):
    vae = build(prior=program(name), **given)
    assert vae.latent_dim == size
    assert vae.encode(torch.rand(2, *SHAPE))["z"].shape == (2, size)


def test_a_prior_whose_constructor_fails(program):
    with pytest.raises(OptionError, match="Failing fails: ValueError: too wide"):
        build(prior=program("Failing"))


def test_a_size_that_the_prior_does_not_have(program):
    with pytest.raises(OptionError, match="latent_dim=5 is given, but the prior's latent_dim"):
        build(prior=program("Fixed"), latent_dim=5)


def test_prior_and_guide_from_a_file_share_their_size(program):
    vae = build(prior=program("Fixed"), guide=program("make_guide"))
    assert vae.sites == {"z": 4}


def test_prior_and_guide_by_name():
    vae = build("vae", prior="mixture", guide="full-covariance", latent_dim=20)
    assert isinstance(vae.prior, MixturePrior)
    assert isinstance(vae.guide.heads[1].family, FAMILIES["full-covariance"])
    vae = build("vmi", prior="uniform", guide="low-rank", latent_dim=6, code_dim=2)
    assert isinstance(vae.prior, UniformPrior)
    assert vae.sites == {"z": 4, "c": 2}
    vae = build("infomax", prior="normal", guide="mean-field", latent_dim=6, code_dim=2)
    assert isinstance(vae.prior, StandardNormalPrior)
    assert vae.sites == {"z": 4, "c": 2}


def test_guide_from_a_file_takes_the_priors_sites(program):
    vae = build(guide=program("correlated"), prior="mixture", latent_dim=20)
    assert vae.guide.heads[1].family.rank == 3


def test_guide_that_fails_is_named(program):
    with pytest.raises(OptionError, match=r"--guide .*own.py:Buggy: running it fails: KeyError"):
        build(guide=program("Buggy"))


def test_file_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "sizes.py").write_text("SIZE = 6")
    (tmp_path / "mine.py").write_text(
        "import pyro_mivae, sizes\n"
        "class Six(pyro_mivae.StandardNormalPrior):\n"
        "    def __init__(self): super().__init__(sizes.SIZE)"
    )
    assert build(prior=f"{tmp_path / 'mine.py'}:Six").sites == {"z": 6}


@pytest.mark.parametrize("guide", [None, "mean-field"])
@pytest.mark.parametrize("network", [None, "mlp", "conv-deep"])
def test_what_reads_generated_data_too_is_not_normalised_by_the_batch(network, guide):
    vae = build("vmi", network=network, guide=guide)
    assert not [n for n, _ in vae.named_buffers() if n.endswith("running_mean")]
    assert [n for n, _ in build("vae", network=network).named_buffers() if "running_mean" in n]


def test_network_by_name(program):
    vae = build(network="conv")
    assert isinstance(vae.guide.encoder, ConvEncoder)
    assert isinstance(vae.model.decoder, ConvDecoder)
    assert isinstance(build(network="auto").model.decoder, MLPDecoder)
    vae = build(network="conv", prior=program("Fixed"))
    assert vae.latent_dim == 4


def test_network_with_a_guide_of_ones_own(program):
    vae = build(network="conv", guide=program("make_guide"), latent_dim=6)
    assert isinstance(vae.model.decoder, ConvDecoder)
    assert vae.sites == {"z": 6}


@pytest.mark.parametrize(
    ("variant", "model", "message"),
    [
        ("infocta", {}, "no variant 'infocta'; did you mean infocat"),
        ("vae", {"network": "cnn"}, "='cnn'; allowed are auto, mlp"),
        ("vae", {"likelihood": "poison"}, "likelihood='poison'; allowed are"),
        ("vae", {"prior": "normla"}, "no prior 'normla'; did you mean normal"),
        ("vae", {"guide": "flow"}, "no guide 'flow'; .*allowed are mean-field, full-covariance"),
        (
            "vae",
            {"prior": "gone.py:Prior"},
            "there is no file .*/gone.py; allowed is FILE.py:NAME",
        ),
        ("cat", {"num_categories": 3, "latent_dim": 4}, "not a multiple of num_categories=3"),
        ("cat", {"categorical": "hard"}, "categorical='hard'; allowed are auto, enumerate"),
        ("vae", {"latent_dim": 0}, "latent_dim=0; allowed are whole numbers from 1 up"),
    ],
)
def test_what_cannot_be_built(variant, model, message):
    with pytest.raises(OptionError, match=message):
        build(variant, **model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Wyde", "defines no 'Wyde'; did you mean Wide"),
        ("number", "is a int; allowed is a class or function"),
        ("drawn", "drawn returns a Tensor; name a class, or a function that returns a prior"),
        (
            "Needy",
            "missing .*'temperature'; it can receive data_shape, ",
        ),
    ],
)
def test_programs_that_cannot_be_had(program, name, message):
    with pytest.raises(OptionError, match=message):
        build(prior=program(name))


def test_program_whose_file_fails(tmp_path):
    before = set(sys.modules)
    (tmp_path / "own.py").write_text("import nothing_of_this_name")
    with pytest.raises(OptionError, match="fails when imported: ModuleNotFoundError"):
        build(prior=f"{tmp_path / 'own.py'}:Prior")
    assert set(sys.modules) == before  # what is left there is run in other processes


def test_prior_that_does_not_fit_the_guide():
    with pytest.raises(SiteError):
        build("cat", prior="normal", latent_dim=20)


def test_network_that_does_not_fit_the_images():
    with pytest.raises(ShapeError):
        build_variant(RunConfig("vae", model={"network": "conv"}), (1, 4, 4))
