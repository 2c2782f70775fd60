"""`refit_prior`: the rate falls, and all else stays."""

import copy

import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError

SHAPE = (1, 4, 4)


@pytest.fixture(scope="module")
def x():
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(4, *SHAPE, generator=generator).round()
    noise = torch.rand(200, *SHAPE, generator=generator)
    return (0.8 * means[torch.arange(200) % 4] + 0.2 * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def trained(x):
    torch.manual_seed(0)
    vae = mi.VAE(SHAPE, latent_dim=2)
    mi.fit(vae, x, epochs=60, batch_size=50, lr=3e-3)
    return vae


def parts(vae, x):
    """Distortion and rate per datum, on the same draws of the guide."""
    torch.manual_seed(0)
    objective = vae.eval().objective()
    many = x.repeat(10, 1, 1, 1)
    objective.loss(vae.model, vae.guide, many)
    return [float(objective.ledger[name]) / len(many) for name in ("distortion", "rate")]


LEARNED = ("means", "weights", "scales")
PRIORS = {
    "mixture": lambda: mi.MixturePrior(4, 2, 2.0, LEARNED, category=None, means="random"),
    "coupling": lambda: mi.FlowPrior(2, hidden_dims=(16,)),
    "vamp": lambda: mi.VampPrior(SHAPE, 2, 8),
}


@pytest.mark.parametrize("name", PRIORS)
def test_the_rate_falls_and_the_distortion_stays(name, trained, x):
    weights = copy.deepcopy(trained.state_dict())
    before = parts(trained, x)
    torch.manual_seed(5)
    prior = PRIORS[name]()
    refit = mi.refit_prior(trained, x, prior, epochs=60, batch_size=50, lr=1e-2)
    after = parts(refit, x)
    assert refit.prior is prior
    assert after[0] == pytest.approx(before[0], rel=1e-5)
    assert after[1] < before[1] - 0.1, (before, after)
    torch.testing.assert_close(dict(trained.state_dict()), dict(weights), rtol=0, atol=0)
    for module in ("guide", "model.decoder"):
        ours, theirs = refit.get_submodule(module), trained.get_submodule(module)
        torch.testing.assert_close(
            dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0
        )
    assert all(p.requires_grad for p in refit.parameters())
    assert not refit.training


def test_it_finds_the_best_gaussian_in_closed_form(trained, x):
    """One Gaussian component: mean and variance of the aggregate posterior."""
    prior = mi.MixturePrior(1, 2, 0.0, LEARNED, category=None)
    refit = mi.refit_prior(trained, x, prior, epochs=300, batch_size=200, lr=2e-2)
    with torch.no_grad():
        q = trained.guide.distributions(x)["z"]
        mean = q.mean.mean(0)
        deviation = (q.variance.mean(0) + q.mean.var(0, correction=0)).sqrt()
        torch.testing.assert_close(refit.prior.means[0], mean, atol=0.08, rtol=0)
        torch.testing.assert_close(refit.prior.scales[0], deviation, atol=0.08, rtol=0)


def test_categories_and_copies_and_files(x, tmp_path):
    torch.manual_seed(0)
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=3, warm_start=0)
    prior = mi.StickBreakingPrior(3, 3, 2.0)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    refit = mi.refit_prior(vae, x, prior, epochs=2, batch_size=100)
    assert torch.equal(torch.rand(1), expected)
    assert not pyro.get_param_store().keys()
    assert float(prior.num_data) == len(x)
    assert not torch.equal(prior.sticks, mi.StickBreakingPrior(3, 3).sticks)
    mi.fit(copy.deepcopy(refit), x, epochs=1, batch_size=100)  # it can be trained on
    mi.save(refit, tmp_path / "vae.pt")
    built = mi.CatVAE(
        SHAPE, num_categories=3, latent_dim=3, warm_start=0, prior=mi.StickBreakingPrior(3, 3, 2.0)
    )
    loaded = mi.load(tmp_path / "vae.pt", into=built)
    assert torch.equal(loaded.reconstruct(x), refit.reconstruct(x))
    again = mi.refit_prior(vae, x, mi.StickBreakingPrior(3, 3, 2.0), epochs=2, batch_size=100)
    assert torch.equal(again.prior.sticks, prior.sticks)


def test_sticks_have_their_prior_once(x):
    """With a frozen guide their estimate has a closed form, by its expected categories."""
    torch.manual_seed(0)
    few = x[:50]
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=3, warm_start=0).eval()
    prior = mi.StickBreakingPrior(3, 3, learn=["weights"], concentration=6.0)
    mi.refit_prior(vae, few, prior, epochs=150, batch_size=50, lr=0.1)
    counts = vae.encode(few)["c"].sum(0)
    above = counts.flip(0).cumsum(0).flip(0)
    expected = ((counts + 1) / (above + 1 + 6.0))[:-1]
    torch.testing.assert_close(prior.sticks.sigmoid().detach(), expected, atol=5e-3, rtol=0)


def test_the_prior_takes_the_precision_of_the_variant(x):
    vae = mi.VAE(SHAPE, latent_dim=2).double()
    refit = mi.refit_prior(vae, x, mi.VampPrior(SHAPE, 2, 4), epochs=1)
    assert {parameter.dtype for parameter in refit.parameters()} == {torch.float64}
    assert refit.sample(2).dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mi.StandardNormalPrior(2), OptionError, "StandardNormalPrior has no parameters"),
        (lambda: mi.FlowPrior(3), SiteError, r"sizes \{'z': 3\}, and the variant \{'z': 2\}"),
        (lambda: mi.FlowPrior(2, site="w"), SiteError, "build the prior with these sizes"),
    ],
)
def test_priors_that_do_not_fit(trained, x, make, error, message):
    with pytest.raises(error, match=message):
        mi.refit_prior(trained, x, make())
