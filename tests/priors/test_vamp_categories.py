"""VampPrior with a category: the mixture of q(c | u_k) q(z | u_k, c) over the pseudo-inputs."""

import math

import pyro
import pytest
import torch
from pyro.distributions import OneHotCategorical
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import SiteError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import build_variant

from .kinds import SHAPE, draw

K, C = 5, 3  # pseudo-inputs and categories


@pytest.fixture(autouse=True)
def in_double(double):
    """Numbers in double precision."""


@pytest.fixture
def x():
    return torch.rand(30, *SHAPE)


def build(variant=mi.CatVAE, dims=2, **options):
    torch.manual_seed(4)
    prior = mi.VampPrior(SHAPE, dims, K, num_categories=C, learn_weights=True)
    vae = variant(SHAPE, prior=prior, warm_start=0, **options)
    with torch.no_grad():
        for parameter in vae.guide.heads.parameters():
            parameter.mul_(4)
        prior.logits.copy_(torch.randn(K))
    return vae.eval()


def by_hand(vae, z):
    """log p(c, z) for every category, (C, n), from the guide's own run on the pseudo-inputs."""
    weights = vae.prior.logits.log_softmax(0)
    rows = []
    for c in torch.eye(C):
        known = {"c": c.expand(K, C)}
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.guide, known)).get_trace(
            vae.prior.pseudo_inputs
        )
        q = weights + trace.nodes["c"]["fn"].log_prob(known["c"])
        each = trace.nodes["z"]["fn"].log_prob(z.unsqueeze(1)) + q  # (n, K)
        rows.append(each.logsumexp(1))
    return torch.stack(rows)


def joint(vae, z, c):
    """log p(c) + log p(z | c) of the prior's own sites."""
    trace = draw(vae.prior, len(z), c=c, z=z)
    parts = [trace.nodes[name] for name in ("c", "z")]
    return sum(part["fn"].log_prob(part["value"]) for part in parts)


def test_the_density_is_that_of_the_mixture_of_posteriors():
    vae = build()
    z = 2 * torch.randn(7, 2)
    expected = by_hand(vae, z)
    tabled = joint(vae, z, torch.eye(C).unsqueeze(1))  # as enumeration lays it out, (C, 1, C)
    torch.testing.assert_close(tabled, expected)
    for row, c in zip(expected, torch.eye(C), strict=True):
        torch.testing.assert_close(joint(vae, z, c.expand(7, C)), row)


def test_it_integrates_to_one_and_draws_follow_it():
    vae = build()
    line = (torch.arange(300) + 0.5) * (40 / 300) - 20
    points = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = joint(vae, points, torch.eye(C).unsqueeze(1)).exp() * (40 / 300) ** 2
        trace = draw(vae.prior, 20_000)
    c, z = trace.nodes["c"]["value"], trace.nodes["z"]["value"]
    assert torch.equal(trace.nodes["_RETURN"]["value"], z)
    torch.testing.assert_close(mass.sum(), torch.ones(()), atol=1e-3, rtol=0)
    weights = draw(vae.prior, 1).nodes["c"]["fn"].probs[0]
    torch.testing.assert_close(mass.sum(1), weights, atol=1e-3, rtol=0)
    assert float(mass.sum(1).std()) > 0.05  # the weights differ
    for direction in torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -2.0]]):
        for shift in (-1.0, 0.0, 1.5):  # a smooth step across the plane, of each category
            step = torch.sigmoid(2 * (points @ direction - shift))
            found = torch.sigmoid(2 * (z @ direction - shift))[:, None] * c
            error = float((found.std(0) / len(z) ** 0.5).max())
            torch.testing.assert_close(found.mean(0), mass @ step, atol=4.5 * error + 1e-3, rtol=0)


@pytest.mark.parametrize("tabled", [True, False])
def test_the_gradient_is_that_of_finite_differences(tabled):
    vae, z = build(), torch.randn(4, 2)
    c = torch.eye(C).unsqueeze(1) if tabled else torch.eye(C)[[0, 1, 2, 0]]
    parameters = {**dict(vae.prior.named_parameters()), **dict(vae.guide.named_parameters())}
    total = joint(vae, z, c).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()))
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        direction, ends = torch.randn_like(parameter), []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                parameter.add_(step * direction)
                ends.append(float(joint(vae, z, c).sum()))
            parameter.add_(1e-6 * direction)
        slope = (ends[0] - ends[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6), (
            name
        )


def test_the_divergences_are_sums_over_the_categories(x):
    """KL of c exactly, and E_q of log q(z | x, c) - log p(z | c) at the draw of each category."""
    vae = build()
    elbo = vae.objective()
    torch.manual_seed(2)
    elbo.loss(vae.model, vae.guide, x)
    q = vae.guide.distributions(x)
    p_c = draw(vae.prior, 1).nodes["c"]["fn"]
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=q["c"].logits),
        torch.distributions.Categorical(logits=p_c.logits),
    )
    torch.testing.assert_close(elbo.ledger["kl_c"], kl.sum())
    table = torch.eye(C).unsqueeze(1)
    torch.manual_seed(2)
    trace = pyro.poutine.trace(pyro.poutine.condition(vae.guide, {"c": table})).get_trace(x)
    z = trace.nodes["z"]["value"]
    gap = q["z"]({"c": table}).log_prob(z)
    with pyro.plate("data", len(x)):
        run = pyro.poutine.trace(pyro.poutine.condition(vae.prior, {"c": table, "z": z}))
        gap = gap - run.get_trace().nodes["z"]["fn"].log_prob(z)
    torch.testing.assert_close(elbo.ledger["kl_z"], (q["c"].probs.T * gap).sum())


@pytest.mark.parametrize("categorical", ["sample", "score-function", "straight-through", "gumbel"])
def test_treatments_of_the_category(categorical, x):
    vae = build(mi.InfoCatVAE, categorical=categorical)
    elbo = vae.objective()
    elbo.loss_and_grads(vae.model, vae.guide, x)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert float(vae.prior.pseudo_inputs.grad.abs().sum()) > 0


@pytest.mark.parametrize("family", ["full-covariance", "gaussian-mixture", "affine-coupling"])
def test_other_families_of_the_guide(family, x):
    vae = build(guide=family)
    z = torch.randn(4, 2)
    torch.testing.assert_close(joint(vae, z, torch.eye(C).unsqueeze(1)), by_hand(vae, z))
    assert math.isfinite(vae.objective().loss(vae.model, vae.guide, x))


def test_methods_and_figures(x):
    vae = build(mi.InfoCatVAE)
    vae.initialize(x)
    assert vae.sample(6, category="B").shape == (6, *SHAPE)
    centre = vae.decode({"c": torch.tensor([0, 1, 2])}, 3)
    r = (vae.prior.logits[:, None] + vae.prior.posteriors()["c"].logits).softmax(0)
    means = vae.prior.posteriors()["z"]({"c": torch.eye(C).unsqueeze(1)}).mean  # (C, K, 2)
    torch.testing.assert_close(centre, vae.decode({"z": torch.einsum("kc,ckd->cd", r, means)}, 3))
    few = {"iwae_samples": 2, "generative_items": 6, "generative_samples": 4}
    found = mi.information(vae.model, vae.guide, x[:12], **few)
    assert found["rate"] == pytest.approx(found["kl_c"] + found["kl_z"])
    assert not mi.check(vae, x)


def test_the_command_line_gives_it_the_categories_of_the_variant():
    sizes = {"num_categories": 3, "latent_dim": 6}
    vae = build_variant(RunConfig("infocat", model={"prior": "vamp", **sizes}), SHAPE)
    assert vae.sites == {"c": 3, "z": 6}
    assert build_variant(RunConfig("vae", model={"prior": "vamp"}), SHAPE).sites == {"z": 20}


class Independent(pyro.nn.PyroModule):
    """A guide of one's own, in which z does not depend on c."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, C + 2)

    def distributions(self, x):
        logits, loc = self.linear(x.flatten(1)).split([C, 2], -1)
        normal = pyro.distributions.Normal(loc, 0.5).to_event(1)
        return {"c": OneHotCategorical(logits=logits), "z": normal}

    def forward(self, x):
        with pyro.plate("data", len(x)):
            for name, fn in self.distributions(x).items():
                infer = {"enumerate": "parallel"} if name == "c" else {}
                pyro.sample(name, fn, infer=infer)


def test_guides_of_ones_own(x):
    prior = mi.VampPrior(SHAPE, 2, K, num_categories=C)
    vae = mi.CatVAE(SHAPE, prior=prior, guide=Independent(), warm_start=0)
    z = torch.randn(4, 2)
    torch.testing.assert_close(joint(vae, z, torch.eye(C).unsqueeze(1)), by_hand(vae, z))
    alone = mi.VampPrior(SHAPE, 2, K)
    with pytest.raises(SiteError, match=r"VampPrior samples \['z'\], and the guide \['c', 'z'\]"):
        mi.VAE(SHAPE, prior=alone, guide=mi.MixtureGuide(SHAPE, C, 2))
    with pytest.raises(SiteError, match="CatVAE needs a category"):
        mi.CatVAE(SHAPE, prior=mi.VampPrior(SHAPE, 2, K))
