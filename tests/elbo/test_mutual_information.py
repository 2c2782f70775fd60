"""The objective against sums written by hand, and against Pyro's own ELBOs."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch.distributions import kl_divergence

import pyro_mivae as mi

from .by_hand import (
    BATCH,
    TOLERANCE,
    K,
    Pair,
    assert_same_gradients,
    bernoulli,
    build,
    cat_by_hand,
    gradients,
    mean_of,
    noise,
    normal_kl,
    seeded_loss,
    six,
)

pytestmark = pytest.mark.usefixtures("double")


# Sums written by hand, on the same noise


def vae_by_hand(vae, x, eps, beta=1.0):
    z = vae.guide.distributions(x)["z"].base_dist
    loc, scale = z.loc, z.scale
    log_likelihood = bernoulli(vae.model.decoder(loc + scale * eps), x)
    return -(log_likelihood - beta * normal_kl(loc, scale)).sum()


@pytest.mark.parametrize(
    ("name", "options", "beta"), [("vae", {}, 1.0), ("beta", {"beta": 2.5}, 2.5)]
)
def test_vae_is_the_sum_by_hand(x, name, options, beta):
    vae = build(name, **options)
    expected = vae_by_hand(vae, x, *noise((BATCH, 6)), beta)
    loss = seeded_loss(vae.objective(), vae.model, vae.guide, x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert_same_gradients(loss, expected, vae)


@pytest.mark.parametrize("deterministic", [False, True])
def test_infomax_vae_is_the_sum_by_hand(x, deterministic):
    vae = build("infomax", code_dim=2, deterministic=deterministic)
    q = vae.guide.distributions(x)
    eps_z, eps_c = noise((BATCH, 4), (BATCH, 2))
    loc, scale = q["z"].base_dist.loc, q["z"].base_dist.scale
    if deterministic:
        c = q["c"].v
    else:
        c = q["c"].base_dist.loc + q["c"].base_dist.scale * eps_c
    decoded = vae.model.decoder(torch.cat([loc + scale * eps_z, c], -1))
    expected = -(bernoulli(decoded, x) - normal_kl(loc, scale)).sum()
    objective = vae.objective()
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert_same_gradients(loss, expected, vae)
    torch.testing.assert_close(objective.ledger["kl_z"], normal_kl(loc, scale).sum().detach())
    if deterministic:
        for key in ("kl_c", "rate", "elbo"):
            assert objective.ledger[key].isnan()
        assert objective.ledger["distortion"].isfinite()
    else:
        kl_c = normal_kl(q["c"].base_dist.loc, q["c"].base_dist.scale).sum().detach()
        torch.testing.assert_close(objective.ledger["kl_c"], kl_c)
        elbo = -loss.detach() - kl_c
        torch.testing.assert_close(objective.ledger["elbo"], elbo)


@pytest.mark.parametrize("num_categories", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["cat", "infocat"])
def test_category_is_summed_out(x, name, num_categories):
    options = {"mi_weight": 0.0} if name == "infocat" else {}
    vae = build(name, num_categories=num_categories, **options)
    (eps,) = noise((num_categories, BATCH, 6))
    expected = cat_by_hand(vae, x, eps, num_categories)
    loss = seeded_loss(vae.objective(), vae.model, vae.guide, x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    if num_categories > 1:
        assert_same_gradients(loss, expected, vae)


def test_beta_zero_leaves_exactly_the_category_out(x):
    vae = build("cat", num_categories=K)
    (eps,) = noise((K, BATCH, 6))
    objective = mi.MutualInformationELBO(kl_weights={"c": 0.0}, max_plate_nesting=1)
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    expected = cat_by_hand(vae, x, eps, K, beta_c=0.0)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert_same_gradients(loss, expected, vae)
    elbo = -cat_by_hand(vae, x, eps, K).detach()
    torch.testing.assert_close(objective.ledger["elbo"], elbo, **TOLERANCE)


# Pairs that are not ours: what depends on what, which plates, which order


class TwoCategories(Pair):
    """Two categories, the second depending on the first in model and guide, and a Normal."""

    enumerate = {"enumerate": "parallel"}

    def __init__(self):
        torch.manual_seed(3)
        super().__init__(
            p1=torch.randn(2), p2=torch.randn(2, 3), loc=torch.randn(2, 3),
            q1=torch.randn(BATCH, 2), q2=torch.randn(2, BATCH, 3), mean=torch.randn(2, 3, BATCH),
        )  # fmt: skip

    def model(self, x):
        with pyro.plate("data", BATCH):
            a = pyro.sample("a", dist.OneHotCategorical(logits=self.p1))
            b = pyro.sample("b", dist.OneHotCategorical(logits=a @ self.p2))
            loc = torch.einsum("...i,...j,ij->...", a, b, self.loc)
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", six(z, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", BATCH):
            a = pyro.sample("a", dist.OneHotCategorical(logits=self.q1), infer=self.enumerate)
            logits = torch.einsum("...i,ibk->...bk", a[..., 0, :], self.q2)
            b = pyro.sample("b", dist.OneHotCategorical(logits=logits), infer=self.enumerate)
            index = (a @ torch.arange(2.0)).long(), (b @ torch.arange(3.0)).long()
            loc = self.mean[(*index, torch.arange(BATCH))]
            pyro.sample("z", dist.Normal(loc, 0.3))

    def by_hand(self, x, eps):
        total = 0.0
        for n in range(BATCH):
            for i in range(2):
                for j in range(3):
                    loc = self.mean[i, j, n]
                    z = loc + 0.3 * eps[j, i, n]
                    log_q = self.q1[n].log_softmax(-1)[i], self.q2[i, n].log_softmax(-1)[j]
                    log_p = self.p1.log_softmax(-1)[i], self.p2[i].log_softmax(-1)[j]
                    kl_z = normal_kl(loc[None], torch.tensor([0.3]), self.loc[i, j])
                    log_x = dist.Normal(z, 0.5).log_prob(x[n]).sum()
                    inner = log_x - kl_z - sum(log_q) + sum(log_p)
                    total = total + sum(log_q).exp() * inner
        return -total


def test_two_enumerated_sites_one_depending_on_the_other(x):
    pair, x = TwoCategories(), x.flatten(1)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, x)
    expected = pair.by_hand(x, *noise((3, 2, BATCH)))
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert_same_gradients(loss, expected, pair)
    entries = objective.ledger
    assert list(entries)[1:] == ["distortion", "rate", "kl_a", "kl_b", "kl_z", "elbo"]
    torch.testing.assert_close(sum(entries[f"kl_{s}"] for s in "abz"), entries["rate"])


def test_cost_that_depends_on_a_category_through_another_alone():
    """E_q of the data's cost is sum_a q(a) sum_b q(b|a) cost(b)."""
    q_a, q_b = torch.tensor([0.2, 0.8]), torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])

    def chain(a_probs, b_probs, infer=None):
        a = pyro.sample("a", dist.Categorical(a_probs), infer=infer)
        return pyro.sample("b", dist.Categorical(b_probs[a]), infer=infer)

    def model(x):
        with pyro.plate("data", len(x)):
            b = chain(torch.ones(2) / 2, torch.ones(2, 3) / 3)
            pyro.sample("x", dist.Normal(2.0 * b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            chain(q_a, q_b, {"enumerate": "parallel"})

    x = torch.tensor([0.5, 3.0])
    objective = mi.MutualInformationELBO()
    objective.loss(model, guide, x)
    log_x = dist.Normal(2.0 * torch.arange(3.0), 1.0).log_prob(x[:, None])
    expected = -(q_a @ q_b @ log_x.T).sum()
    torch.testing.assert_close(objective.ledger["distortion"], expected, **TOLERANCE)


class GlobalAndLocal(Pair):
    """A site outside the plate, enumerated or Normal, and a Normal inside that depends on it."""

    def __init__(self, category):
        torch.manual_seed(3)
        super().__init__(p=torch.randn(K), q=torch.randn(K), q_loc=torch.randn(K, BATCH))
        self.category = category

    def model(self, x):
        if self.category:
            g = pyro.sample("g", dist.Categorical(logits=self.p))
        else:
            g = pyro.sample("g", dist.Normal(self.p[0], 2.0))
        with pyro.plate("data", BATCH):
            z = pyro.sample("z", dist.Normal(1.0 * g, 1.0))
            pyro.sample("x", six(z, 0.5), obs=x)

    def guide(self, x):
        if self.category:
            g = pyro.sample("g", dist.Categorical(logits=self.q), infer={"enumerate": "parallel"})
            loc = self.q_loc[g[..., 0]] if g.dim() else self.q_loc[g]
        else:
            g = pyro.sample("g", dist.Normal(self.q[0], 0.7))
            loc = self.q_loc[0] + g
        with pyro.plate("data", BATCH):
            pyro.sample("z", dist.Normal(loc, 0.3))

    def by_hand(self, x):
        def local(g, loc, eps):
            log_x = dist.Normal((loc + 0.3 * eps)[:, None], 0.5).log_prob(x).sum()
            return log_x - normal_kl(loc[:, None], torch.tensor([0.3]), 1.0 * g).sum()

        if self.category:
            (eps,) = noise((K, BATCH))
            kl = kl_divergence(dist.Categorical(logits=self.q), dist.Categorical(logits=self.p))
            weights = self.q.softmax(-1)
            return kl - sum(weights[k] * local(k, self.q_loc[k], eps[k]) for k in range(K))
        eps_g, eps = noise((), (BATCH,))
        g = self.q[0] + 0.7 * eps_g
        kl = kl_divergence(dist.Normal(self.q[0], 0.7), dist.Normal(self.p[0], 2.0))
        return kl - local(g, self.q_loc[0] + g, eps)


@pytest.mark.parametrize("category", [True, False])
def test_site_outside_the_plate(x, category):
    pair, x = GlobalAndLocal(category), x.flatten(1)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, x)
    expected = pair.by_hand(x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    assert_same_gradients(loss, expected, pair)


class CrossedOrder(Pair):
    """The model draws z2 then z1 | z2, the guide z1 then z2 | z1: KL(q(z1) || p(z1|z2)) is wrong.

    Everything is Gaussian, so that the loss is known: the closed form of z1, conditioned on the
    drawn z2, would have another expectation than the log-ratio.
    """

    def __init__(self):
        super().__init__(a=torch.tensor(0.8), b=torch.tensor(-0.6), m=torch.tensor(0.4))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.a * z2, 1.0))
            pyro.sample("x", dist.Normal(z1 + z2, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.m * x, 0.5))
            pyro.sample("z2", dist.Normal(self.b * z1, 0.9))


def test_other_order_in_the_guide_is_right_in_expectation():
    pair = CrossedOrder()
    n = 4000
    x = torch.full((n,), 1.3)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss, theirs = (
        mean_of([elbo.differentiable_loss(pair.model, pair.guide, x).detach() / n
                 for _ in range(100)])
        for elbo in (objective, Trace_ELBO())
    )  # fmt: skip
    a, b, loc = pair.a.detach(), pair.b.detach(), pair.m.detach() * 1.3
    second1 = loc**2 + 0.25  # E z1^2
    second2 = b**2 * second1 + 0.81
    entropy = 0.5 * (math.log(0.25) + math.log(0.81)) + 1
    log_p1 = -0.5 * (second1 - 2 * a * b * second1 + a**2 * second2)
    log_x = -0.5 * (1.69 - 2 * 1.3 * (1 + b) * loc + (1 + b) ** 2 * second1 + 0.81)
    exact = -(log_x + log_p1 - 0.5 * second2 + entropy) + 0.5 * math.log(2 * math.pi)
    assert abs(loss[0] - exact) < 5 * loss[1] < 0.02
    assert abs(theirs[0] - exact) < 5 * theirs[1]
    closed = 0.5 * (0.25 + (loc - a * b * loc) ** 2 + a**2 * (second2 - b**2 * loc**2) - 1)
    closed = closed - 0.5 * math.log(0.25)
    sampled = -log_p1 - 0.5 * (math.log(0.25) + 1)
    assert abs(closed - sampled) > 0.1  # so the closed form would have been found out


# Pyro's own ELBOs


@pytest.mark.parametrize(("name", "options"), [("vae", {}), ("infomax", {"code_dim": 2})])
def test_equals_mean_field_elbo_on_the_same_trace(x, name, options):
    vae = build(name, **options)
    ours = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = seeded_loss(ours, vae.model, vae.guide, x)
    theirs = seeded_loss(TraceMeanField_ELBO(), vae.model, vae.guide, x)
    torch.testing.assert_close(loss, theirs, **TOLERANCE)
    assert_same_gradients(loss, theirs, vae)


def test_equals_enumerating_elbo_in_expectation(x):
    vae = build("infocat", num_categories=K, mi_weight=0.0)
    many = x.repeat(15, 1, 1)  # as many draws at once
    ours, theirs = (
        mean_of([elbo.differentiable_loss(vae.model, vae.guide, many).detach() for _ in range(20)])
        for elbo in (vae.objective(), TraceEnum_ELBO(max_plate_nesting=1))
    )
    standard_error = math.hypot(ours[1], theirs[1])
    assert abs(ours[0] - theirs[0]) < 4 * standard_error < 0.03 * ours[0]
    assert ours[1] < theirs[1]  # the closed form of z's KL has less variance


@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta, AutoMultivariateNormal])
def test_pyros_own_guides(x, kind):
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", six(w.sum() + z, 1.0), obs=x)

    x = x.flatten(1)
    guide = kind(model)
    objective = mi.MutualInformationELBO()
    stock = TraceMeanField_ELBO() if kind is AutoNormal else Trace_ELBO()
    guide(x)
    objective.loss(model, guide, x)  # finds the nesting of the plates
    loss = seeded_loss(objective, model, guide, x)
    theirs = seeded_loss(stock, model, guide, x)
    torch.testing.assert_close(loss, theirs, **TOLERANCE)
    assert_same_gradients(loss, theirs, guide)
    assert objective.ledger["elbo"].isnan() == (kind is AutoDelta)
    if kind is not AutoDelta:
        torch.testing.assert_close(objective.ledger["elbo"], -theirs.detach())


# Gradients by finite differences


@pytest.mark.parametrize(
    "make",
    [
        lambda: build("beta", beta=0.5),
        lambda: build("infomax", code_dim=2),
        lambda: build("infomax", deterministic=True),
        lambda: build("infocat", num_categories=K),
        lambda: build("infocat", num_categories=K, categorical="soft"),
        lambda: build("infocat", num_categories=K, categorical="gumbel"),
        lambda: build("cat", num_categories=K, likelihood=mi.GaussianLikelihood(learn_scale=True)),
    ],
)
def test_gradient_is_that_of_the_loss(x, make):
    vae = make()
    objective = vae.objective()
    exact = gradients(seeded_loss(objective, vae.model, vae.guide, x), vae)
    step = 1e-5
    for name, parameter in vae.named_parameters():
        direction = torch.randn_like(parameter)
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
                slopes.append(sign * seeded_loss(objective, vae.model, vae.guide, x))
                parameter.sub_(sign * step * direction)
        numeric = sum(slopes) / (2 * step)
        slope = (exact[name] * direction).sum()
        torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-5, msg=name)
