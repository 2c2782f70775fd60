"""VMIVAE: whose information is raised, and what a prior on the unit interval changes."""

import math

import pyro
import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.terms import Particle
from pyro_mivae.traces import TracePair

SHAPE = (1, 2, 3)
SITES = {"z": slice(0, 2), "c": slice(2, 5)}


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def linear(sites, **options):
    """A linear decoder of means and a linear guide: the term has a closed form."""
    torch.manual_seed(3)
    vae = mi.VMIVAE(
        SHAPE,
        latent_dim=5,
        code_dim=3,
        sites=sites,
        generated="mean",
        likelihood=mi.GaussianLikelihood(1.0),
        encoder=nn.Flatten(),
        decoder=nn.Sequential(nn.Linear(5, 6), nn.Unflatten(-1, SHAPE)),
        **options,
    )
    for head in vae.guide.heads:
        nn.init.zeros_(head.maps[0].weight.chunk(2)[1])  # a constant scale
    return vae.double()


def closed_form(vae, sites):
    """E log N(u; A (W u + b) + a, s^2) + H(u), summed over the named sites' coordinates u."""
    weight, bias = vae.model.decoder[0].weight, vae.model.decoder[0].bias
    total = torch.zeros((), dtype=torch.float64)
    for name in sites:
        head = vae.guide.heads[list(vae.sites).index(name)].maps[0]
        (of_loc, _), (loc, scale) = head.weight.chunk(2), head.bias.chunk(2)
        scale = nn.functional.softplus(scale) + 1e-4
        error = torch.eye(5)[SITES[name]].double() - of_loc @ weight
        offset = of_loc @ bias + loc
        square = error.square().sum(1) + offset.square()
        score = -scale.log() - 0.5 * math.log(2 * math.pi) - square / (2 * scale**2)
        total = total + (score + 0.5 * math.log(2 * math.pi * math.e)).sum()
    return total


@pytest.mark.parametrize(
    ("sites", "names"),
    [("c", "c"), ("z", "z"), (("c", "z"), "zc"), ("all", "zc"), (["c"], "c")],
)
def test_the_term_is_that_of_the_chosen_sites(sites, names):
    vae, n = linear(sites), 20_000
    objective = vae.objective()
    assert vae.term_sites == tuple(names)
    values = []
    for seed in range(8):
        torch.manual_seed(seed)
        x = torch.rand(n, *SHAPE, dtype=torch.float64)
        objective.loss(vae.model, vae.guide, x)
        values.append(float(objective.ledger[f"mi_{'_'.join(names)}_mean"]) / n)
    values = torch.tensor(values)
    error = float(values.std()) / len(values) ** 0.5
    assert error < 0.02
    assert abs(float(values.mean() - closed_form(vae, names).detach())) < 4 * error


def test_gradient_of_the_term_is_that_of_its_closed_form():
    vae, n = linear("c"), 200_000
    parameters = [vae.model.decoder[0].weight, *vae.guide.heads[1].parameters()]

    def gradients(value):
        decoder, *of_head = torch.autograd.grad(value, parameters)
        return [decoder, *(gradient.chunk(2)[0] for gradient in of_head)]  # of the means

    x = torch.zeros(n, *SHAPE, dtype=torch.float64)
    torch.manual_seed(0)
    traces = TracePair.run(vae.model, vae.guide, (x,), {}, max_plate_nesting=1)
    (term,) = vae.objective().terms
    sampled = term(Particle(vae.model, vae.guide, (x,), {}, traces)) / n
    for ours, theirs in zip(gradients(sampled), gradients(closed_form(vae, "c")), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03)


@pytest.mark.parametrize("sites", ["c", "z", "all"])
def test_every_parameter_learns_from_its_term_and_no_other(x, sites):
    vae = mi.VMIVAE(SHAPE, latent_dim=4, sites=sites)
    traces = TracePair.run(vae.model, vae.guide, (x,), {}, max_plate_nesting=1)
    (term,) = vae.objective().terms
    value = term(Particle(vae.model, vae.guide, (x,), {}, traces))
    names, parameters = zip(*vae.named_parameters())
    slopes = torch.autograd.grad(value, parameters, allow_unused=True)
    learning = {n for n, slope in zip(names, slopes) if slope is not None and slope.any()}
    heads = [0, 1] if sites == "all" else [list(vae.sites).index(sites)]
    expected = ("model.decoder", "guide.encoder", *(f"guide.heads.{index}." for index in heads))
    assert learning == {name for name in names if name.startswith(expected)}


def test_loss_is_the_elbo_less_the_weighted_term(x):
    for weight in (0.0, 0.5, mi.linear_warmup(4, start=0.25)):
        vae = mi.VMIVAE(SHAPE, latent_dim=4, mi_weight=weight, generated="mean")
        objective = vae.objective()
        loss = objective.loss(vae.model, vae.guide, x)
        ledger = {name: float(value) for name, value in objective.ledger.items()}
        gain = 0.0 if weight == 0.0 else (0.25 if callable(weight) else weight)
        term = gain * ledger.get("mi_c_mean", 0.0)
        assert loss == pytest.approx(-ledger["elbo"] - term, rel=1e-5)


def test_sizes():
    assert mi.VMIVAE(SHAPE).sites == {"z": 10, "c": 10}
    assert mi.VMIVAE(SHAPE, latent_dim=7).sites == {"z": 4, "c": 3}
    assert mi.VMIVAE(SHAPE, latent_dim=7, code_dim=1).sites == {"z": 6, "c": 1}
    assert mi.VMIVAE(SHAPE, prior=mi.UniformPrior(3, 2)).sites == {"z": 3, "c": 2}


def test_push_is_the_terms(x):
    vae = mi.VMIVAE(SHAPE, latent_dim=4, generated="straight-through")
    objective = vae.objective()
    objective.loss(vae.model, vae.guide, x)
    assert "mi_c_sample" in objective.ledger


def test_a_prior_on_the_unit_interval_gets_a_guide_to_match(x):
    vae = mi.VMIVAE(SHAPE, prior=mi.UniformPrior(3, 2))
    assert isinstance(vae.guide.distributions(x)["c"].base_dist, ProbitNormal)
    codes = vae.encode(x)
    assert ((codes["c"] > 0) & (codes["c"] < 1)).all()
    objective = vae.objective()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), objective)
    for _ in range(20):
        assert math.isfinite(svi.step(x))
    torch.testing.assert_close(
        vae.reconstruct(x, keep={"z"}),
        vae.decode({"z": vae.encode(x)["z"], "c": torch.full((4, 2), 0.5)}, 4),
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latent_dim": 1}, OptionError, "code_dim=0 of latent_dim=1: c needs 1 or more"),
        ({"latent_dim": 3, "code_dim": 3}, OptionError, "must leave z 1 or more"),
        ({"sites": "w"}, SiteError, r"sites='w': allowed are.*\['z', 'c'\], or 'all'"),
        ({"sites": ("c", "w")}, SiteError, r"sites=\['c', 'w'\]"),
        ({"sites": ()}, SiteError, r"sites=\[\]"),
        ({"mi_weight": -1.0}, OptionError, "mi_weight=-1.0; .* from 0"),
        ({"generated": "median"}, OptionError, "generated='median'; allowed are mean, relaxed"),
        (
            {"prior": mi.StandardNormalPrior(3), "sites": "c"},
            SiteError,
            r"sites='c': allowed are one or more of the sites \['z'\]",
        ),
        (
            {"prior": mi.UniformPrior(3, 2), "code_dim": 5},
            OptionError,
            "code_dim=5 is given, but the prior's code_dim is 2",
        ),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        mi.VMIVAE(SHAPE, **options)


def test_any_part_of_any_prior():
    assert mi.VMIVAE(SHAPE, prior=mi.StandardNormalPrior(3), sites="z").term_sites == ("z",)
    assert mi.VMIVAE(SHAPE, prior=mi.StandardNormalPrior(3), sites="all").term_sites == ("z",)
