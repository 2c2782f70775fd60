"""Priors that read the condition: p(z | u) and p(c | u)."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import build_variant
from pyro_mivae.training import refit_prior

SHAPE, N, K = (1, 2, 3), 24, 3
FEW = {"iwae_samples": 2, "generative_items": 6, "generative_samples": 4}


class CategoryGiven(mi.MixturePrior):
    """c ~ p(c | u), z given c about its mean."""

    given_shape = (K,)

    def __init__(self):
        super().__init__(num_categories=2, latent_dim=4, radius=3.0)
        self.linear = nn.Linear(K, 2)

    def forward(self, given):
        c = pyro.sample("c", dist.OneHotCategorical(logits=self.linear(given)))
        return pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def labels():
    return torch.arange(N) % K


def build(variant="vae", **options):
    torch.manual_seed(1)
    if variant == "vae":
        options = {"prior": mi.ConditionalNormalPrior((K,), 2, hidden_dims=(8,))} | options
    else:
        options = {"prior": CategoryGiven(), "warm_start": 2} | options
    return mi.VARIANTS[variant](SHAPE, likelihood="gaussian", **options).double()


def losses(kind, vae, args, objective, steps=5):
    pyro.clear_param_store()
    torch.manual_seed(5)
    svi = kind(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), objective)
    return [svi.step(*args) for _ in range(steps)]


@pytest.mark.parametrize("variant", ["vae", "infocat"])
def test_stock_svi_staged_steps_and_files(variant, x, labels, tmp_path):
    vae, twin = build(variant), build(variant)
    args = vae.arguments(x, labels)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    stock = losses(SVI, vae, args, vae.objective())
    assert stock == pytest.approx(losses(mi.SVI, twin, args, twin.objective()), rel=1e-9)
    assert not [name for name, p in vae.named_parameters() if torch.equal(p, before[name])]
    mi.fit(vae, x, given=labels, epochs=1, batch_size=8, engine="eager")
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt", into=build(variant)).eval()
    for site, code in vae.eval().encode(x, given=labels).items():
        torch.testing.assert_close(loaded.encode(x, given=labels)[site], code)
    assert not mi.check(vae, x, labels)
    assert vae.reconstruct(x, keep=["z"], given=labels).shape == x.shape


def test_gradient_is_that_of_pyros_own_elbo(x, labels):
    found = []
    for elbo in (build().objective(), TraceMeanField_ELBO()):
        vae = build()
        torch.manual_seed(3)
        elbo.loss_and_grads(vae.model, vae.guide, *vae.arguments(x, labels))
        found.append({name: p.grad for name, p in vae.named_parameters()})
    torch.testing.assert_close(*found)
    assert any(name.startswith("model.prior.network") for name in found[0])


def test_the_kl_of_each_datum_is_from_the_prior_at_its_condition(x, labels):
    vae = build().eval()
    elbo = vae.objective()
    elbo.loss(vae.model, vae.guide, *vae.arguments(x, labels))
    loc, scale = vae.prior.network(torch.eye(K).double()[labels]).chunk(2, -1)
    p = torch.distributions.Normal(loc, nn.functional.softplus(scale) + 1e-4)
    mean, sd = (vae.encode(x, what, given=labels)["z"] for what in ("mean", "sd"))
    by_hand = torch.distributions.kl_divergence(torch.distributions.Normal(mean, sd), p).sum()
    torch.testing.assert_close(elbo.ledger["kl_z"], by_hand)


class Shifted(PyroModule):
    """z ~ N(u, 1)."""

    given_shape = (1,)

    def forward(self, given):
        return pyro.sample("z", dist.Normal(given, 1.0).to_event(1))


class Exact(PyroModule):
    """The posterior of z ~ N(u, 1), x ~ N(z, 1)."""

    def forward(self, x, given):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + given) / 2, 0.5**0.5).to_event(1))


class First(nn.Module):
    def forward(self, code):
        return code[..., :1]


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize("several", [True, False], ids=["three conditions", "all differ"])
def test_figures_of_a_pair_whose_posterior_is_exact(several):
    """Given u, x ~ N(u, 2) and I(x; z | u) = log(2) / 2; over all u it would be far more."""
    likelihood = mi.GaussianLikelihood(1.0)
    vae = mi.VAE((1,), prior=Shifted(), guide=Exact(), decoder=First(), likelihood=likelihood)
    u = 10.0 * (torch.arange(900) % K)[:, None] if several else 10.0 * torch.randn(900, 1)
    x = u + 2**0.5 * torch.randn(900, 1)
    found = mi.information(vae.model, vae.guide, x, given=u)
    exact = torch.distributions.Normal(u, 2**0.5).log_prob(x).mean()
    assert found["elbo"] == pytest.approx(float(exact), abs=0.15)
    assert found["log_px"] == pytest.approx(float(exact), abs=1e-4)
    assert found["rate"] == pytest.approx(0.5 * math.log(2), abs=0.05)
    if several:
        for name in ("mi_lower", "mi_upper", "generative_mi_lower", "generative_mi_upper"):
            assert found[name] == pytest.approx(0.5 * math.log(2), abs=0.1), name
        assert found["marginal_kl_lower"] == pytest.approx(0, abs=0.05)
    else:
        assert "mi_lower" not in found
        assert "not defined" in found.protocol["mi"]
    drawn = vae.sample(2000, given=torch.full((2000, 1), 7.0))
    assert float(drawn.mean()) == pytest.approx(7, abs=0.1)
    means = vae.decode({}, 4, given=u[:4])
    torch.testing.assert_close(means, u[:4])


def test_density_and_draws_agree():
    prior = mi.ConditionalNormalPrior((2,), latent_dim=1, code_dim=1, hidden_dims=())
    u = torch.tensor([[0.3, -2.0]])
    grid = torch.linspace(-12, 12, 2001)[:, None]
    for site in ("z", "c"):
        with torch.no_grad(), pyro.plate("data", len(grid)):
            trace = pyro.poutine.trace(prior).get_trace(u.expand(len(grid), 2))
        fn, drawn = trace.nodes[site]["fn"], trace.nodes[site]["value"]
        density = fn.log_prob(grid).exp()
        assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=1e-4)
        mean = torch.trapezoid(density * grid[:, 0], grid[:, 0])
        assert float(drawn.mean()) == pytest.approx(float(mean), abs=0.1)


def test_a_category_whose_weights_depend_on_the_condition(x, labels):
    vae = build("cat", warm_start=0).eval()
    with torch.no_grad():
        vae.prior.linear.weight.copy_(torch.tensor([[9.0, -9.0, 0.0], [0.0, 0.0, 0.0]]))
        vae.prior.linear.bias.zero_()
    elbo = vae.objective()
    elbo.loss(vae.model, vae.guide, *vae.arguments(x, labels))
    q = torch.distributions.Categorical(probs=vae.encode(x, given=labels)["c"])
    p = torch.distributions.Categorical(logits=vae.prior.linear(torch.eye(K).double()[labels]))
    torch.testing.assert_close(
        elbo.ledger["kl_c"], torch.distributions.kl_divergence(q, p).sum(), rtol=1e-6, atol=1e-6
    )
    for label in (0, 1):
        trace = pyro.poutine.trace(vae.model).get_trace(*vae.blank(200, label))
        assert trace.nodes["c"]["value"][:, 0].mean() == pytest.approx(1 - label, abs=0.02)
    assert vae.sample(5, category="A", given=1).shape == (5, *SHAPE)
    figures = mi.evaluate(vae, x, given=labels, samples_per_category=4, **FEW)
    assert math.isfinite(figures["mi_c_lower"] + figures["barber_agakov_c_mean"])


def test_a_refitted_prior_approaches_the_codes_of_each_condition(x, labels):
    vae = build(prior=None, given_shape=(K,), latent_dim=2)
    prior = mi.ConditionalNormalPrior((K,), 2, hidden_dims=()).double()
    refit = refit_prior(vae, x, prior, given=labels, epochs=400, batch_size=N, lr=2e-2)
    means = vae.encode(x, given=labels)["z"]
    wanted = torch.stack([means[labels == k].mean(0) for k in range(K)])
    torch.testing.assert_close(
        refit.prior.network(torch.eye(K).double())[:, :2], wanted, atol=0.05, rtol=0
    )
    with pytest.raises(OptionError, match=r"reads conditions of shape \(4,\)"):
        refit_prior(vae, x, mi.ConditionalNormalPrior((4,), 2), given=labels)


def test_what_does_not_fit_is_refused(x, labels):
    vae = build()
    assert vae.given_shape == (K,)
    with pytest.raises(OptionError, match="given is missing"):
        vae.sample(3)
    with pytest.raises(ShapeError, match=r"take conditions of shape \(24, 3\) after 24"):
        vae.model(x)
    with pytest.raises(OptionError, match=r"reads conditions of shape \(3,\); give both"):
        build(given_shape=(4,))
    with pytest.raises(OptionError, match="MMDVAE takes no condition"):
        mi.MMDVAE(SHAPE, prior=mi.ConditionalNormalPrior((K,), 2))
    with pytest.raises(OptionError, match="reads the condition of each datum; give it by given="):
        build_variant(RunConfig("vae", model={"prior": "conditional-normal"}), SHAPE)


class Silent(CategoryGiven):
    def forward(self):
        return self.linear


class Asking(Shifted):
    given_shape = None


@pytest.mark.parametrize(
    ("prior", "called"), [(Silent(), "with the condition"), (Asking(), "without arguments")]
)
def test_a_prior_that_takes_other_arguments_is_told_how_it_is_called(prior, called):
    with pytest.raises(SiteError, match=f"is called {called} .*has an attribute given_shape"):
        mi.VAE(SHAPE, prior=prior, given_shape=(K,))


def test_posteriors_are_refined_given_the_condition(x, labels):
    """From an untrained guide to the exact posterior, which is at (x + u) / 2."""
    torch.set_default_dtype(torch.float64)
    u, x = labels[:, None].double(), x.flatten(1)[:, :1]
    guide = mi.MeanFieldGuide((1,), {"z": 1}, mi.networks.ConditionalEncoder(Flat(), (1,), (1,)))
    likelihood = mi.GaussianLikelihood(1.0)
    vae = mi.VAE((1,), prior=Shifted(), guide=guide, decoder=First(), likelihood=likelihood)
    refined = mi.RefinedGuide(vae.model, guide, learning_rate=0.1, num_draws=32)
    for given in (u, u.roll(1, 0)):
        found = vae.encode(x, given=given, guide=refined)["z"]
        assert float((found - (x + given) / 2).abs().mean()) < 0.05
    exact = torch.distributions.Normal(u, 2**0.5).log_prob(x).mean()
    for given in (u, u + 1e-3 * torch.randn(u.shape)):  # groups of a condition, and none
        report = mi.information(vae.model, guide, x, given=given, refine_items=N, **FEW)
        assert report["elbo"] + report["amortization_gap"] == pytest.approx(float(exact), abs=0.1)
    steps = mi.SemiAmortizedGuide(vae.model, guide, num_steps=2)
    loss = vae.objective().loss(vae.model, steps, *vae.arguments(x, u))
    assert loss < vae.objective().loss(vae.model, guide, *vae.arguments(x, u))
