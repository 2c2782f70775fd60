"""The objective against sums written by hand, against Pyro's own ELBOs, and its bookkeeping."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import kl_divergence
from torch.nn.functional import logsigmoid, softplus

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.networks import MLPDecoder, MLPEncoder

SHAPE, BATCH, K = (2, 3), 4, 3
TOLERANCE = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def x():
    return torch.rand(BATCH, *SHAPE)


def build(name, **options):
    latent_dim = options.setdefault("latent_dim", 6)
    torch.manual_seed(1)
    return mi.VARIANTS[name](
        SHAPE,
        encoder=MLPEncoder(SHAPE, (5,), nn.Tanh),
        decoder=MLPDecoder(latent_dim, SHAPE, (5,), nn.Tanh),
        **options,
    )


def noise(*shapes):
    """The noise that a run seeded alike draws, site by site."""
    torch.manual_seed(7)
    return [torch.normal(torch.zeros(shape), torch.ones(())) for shape in shapes]


def seeded_loss(objective, model, guide, *args):
    torch.manual_seed(7)
    return objective.differentiable_loss(model, guide, *args)


def mean_of(losses):
    """Mean and standard error."""
    values = torch.stack([torch.as_tensor(loss) for loss in losses])
    return values.mean(), values.std() / math.sqrt(len(values))


def bernoulli(logits, x):
    terms = x * logsigmoid(logits) + (1 - x) * logsigmoid(-logits)
    return terms.flatten(1).sum(1)


def normal_kl(loc, scale, prior_loc=0.0):
    terms = scale**2 + (loc - prior_loc) ** 2 - 1 - 2 * scale.log()
    return 0.5 * terms.sum(-1)


def gradients(loss, module):
    names, parameters = zip(*module.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True)))


def assert_same_gradients(ours, theirs, module):
    a, b = gradients(ours, module), gradients(theirs, module)
    for name in a:
        torch.testing.assert_close(a[name], b[name], **TOLERANCE, msg=name)


# Sums written by hand, on the same noise


def vae_by_hand(vae, x, eps, beta=1.0):
    loc, scale = vae.guide.heads["z"](vae.guide.encoder(x))
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
    features = vae.guide.encoder(x)
    eps_z, eps_c = noise((BATCH, 4), (BATCH, 2))
    loc, scale = vae.guide.heads["z"](features)
    if deterministic:
        c = vae.guide.heads["c"](features)
    else:
        loc_c, scale_c = vae.guide.heads["c"](features)
        c = loc_c + scale_c * eps_c
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
        kl_c = normal_kl(loc_c, scale_c).sum().detach()
        torch.testing.assert_close(objective.ledger["kl_c"], kl_c)
        elbo = -loss.detach() - kl_c
        torch.testing.assert_close(objective.ledger["elbo"], elbo)


def cat_by_hand(vae, x, eps, num_categories, beta_c=1.0):
    """Sums over the categories in a loop."""
    features = vae.guide.encoder(x)
    log_q = vae.guide.category(features).log_softmax(-1)
    codes = vae.guide.code(features).reshape(len(x), num_categories, -1)
    total = 0.0
    for k in range(num_categories):
        loc, scale = codes[:, k].chunk(2, -1)
        scale = softplus(scale) + 1e-4
        log_likelihood = bernoulli(vae.model.decoder(loc + scale * eps[k]), x)
        kl_z = normal_kl(loc, scale, vae.prior.means[k])
        kl_c = log_q[:, k] + math.log(num_categories)
        total = total + log_q[:, k].exp() * (log_likelihood - kl_z - beta_c * kl_c)
    return -total.sum()


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


class Pair(PyroModule):
    """Parameters for a model and a guide written as methods."""

    def __init__(self, **parameters):
        super().__init__()
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value))


def six(loc, scale):
    """Six values per datum about the same mean."""
    return dist.Normal(loc[..., None].repeat_interleave(6, -1), scale).to_event(1)


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


# Plates, masks, particles


class Conjugate(Pair):
    """One Normal per datum, with whatever plate, mask or scale the test asks for."""

    def __init__(self):
        super().__init__(w=torch.tensor(0.7), v=torch.tensor(0.4))
        self.size = None
        self.mask = None

    def plate(self, x):
        size = self.size or len(x)
        return pyro.plate("data", size, subsample=torch.arange(len(x)))

    def model(self, x):
        with self.plate(x), poutine.mask(mask=self.hidden(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x):
        with self.plate(x), poutine.mask(mask=self.hidden(x)):
            pyro.sample("z", dist.Normal(self.v * x, 0.6))

    def hidden(self, x):
        return torch.ones(len(x), dtype=torch.bool) if self.mask is None else self.mask

    def by_hand(self, x, eps):
        loc = self.v * x
        log_x = dist.Normal(self.w * (loc + 0.6 * eps), 1.0).log_prob(x)
        return normal_kl(loc[:, None], torch.tensor([0.6])) - log_x


@pytest.fixture
def values():
    return torch.randn(5)


def test_subsampled_plate_scales_the_loss(values):
    pair = Conjugate()
    pair.size = 40
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, values)
    expected = 8 * pair.by_hand(values, *noise((5,))).sum()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    entries = objective.ledger
    torch.testing.assert_close(entries["distortion"] + entries["kl_z"], expected.detach())


def test_mask_leaves_data_out(values):
    pair = Conjugate()
    pair.mask = torch.tensor([True, False, True, True, False])
    objective = mi.MutualInformationELBO([], {"z": 2.0}, max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, values)
    entries = objective.ledger
    (eps,) = noise((5,))
    kl = normal_kl((pair.v * values)[:, None], torch.tensor([0.6]))
    expected = (pair.by_hand(values, eps) + kl)[pair.mask].sum()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(entries["kl_z"], kl[pair.mask].sum().detach())
    elbo = -pair.by_hand(values, eps)[pair.mask].sum().detach()
    torch.testing.assert_close(entries["elbo"], elbo)


def test_scale_of_the_users_is_no_weight_of_ours(values):
    pair = Conjugate()
    model, guide = (poutine.scale(fn, 3.0) for fn in (pair.model, pair.guide))
    objective = mi.MutualInformationELBO(kl_weights={"z": 0.5}, max_plate_nesting=1)
    loss = seeded_loss(objective, model, guide, values)
    (eps,) = noise((5,))
    kl = normal_kl((pair.v * values)[:, None], torch.tensor([0.6])).sum()
    expected = 3 * (pair.by_hand(values, eps).sum() - 0.5 * kl)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(objective.ledger["kl_z"], 3 * kl.detach())


def test_particles_in_turn_are_the_mean_of_the_draws(x):
    vae = build("cat", num_categories=K)
    draws = noise(*[(K, BATCH, 6)] * 3)
    expected = sum(cat_by_hand(vae, x, eps, K) for eps in draws) / 3
    objective = mi.MutualInformationELBO(num_particles=3, max_plate_nesting=1)
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(objective.ledger["elbo"], -expected.detach(), **TOLERANCE)


@pytest.mark.parametrize(("nesting", "weight"), [(1, 1.0), (math.inf, 1.0), (1, 2.0), (1, 0.0)])
def test_particles_along_a_plate_equal_particles_in_turn(x, nesting, weight):
    vae = build("cat", num_categories=K)
    many = x.repeat(10, 1, 1)  # as many draws at once
    options = {"num_particles": 5, "kl_weights": {"z": weight}, "max_plate_nesting": nesting}
    one, other = (
        mi.MutualInformationELBO(vectorize_particles=v, **options) for v in (True, False)
    )
    losses = {e: [e.loss(vae.model, vae.guide, many) for _ in range(8)] for e in (one, other)}
    (a, s), (b, t) = (mean_of(values) for values in losses.values())
    assert abs(a - b) < 4 * math.hypot(s, t) < 0.05 * b
    for key in ("kl_c", "kl_z"):  # in closed form, so the same whatever is drawn
        torch.testing.assert_close(one.ledger[key], other.ledger[key], **TOLERANCE)


@pytest.mark.parametrize("vectorize", [True, False])
def test_particles_beside_an_information_term(x, vectorize):
    vae = build("cat", num_categories=K)
    term = mi.BarberAgakov("c", weight=2.0)
    objective = mi.MutualInformationELBO(
        [term], num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1
    )
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    entries = objective.ledger
    torch.testing.assert_close(loss.detach(), -entries["elbo"] - 2 * entries["mi_c_mean"])
    assert entries["mi_c_mean"].abs() < BATCH * 20


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


# What is kept, and when schedules move


def schedule(step):
    return 0.25 * (step + 1)


@pytest.fixture
def scheduled():
    vae = build("infocat", num_categories=K)
    objective = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=schedule)], {"z": schedule, "c": 2.0}, max_plate_nesting=1
    )
    return vae, objective


def test_ledger_is_detached_summed_and_unweighted(x, scheduled):
    vae, objective = scheduled
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    entries = objective.ledger
    assert set(entries) == {"loss", "elbo", "distortion", "rate", "kl_z", "kl_c", "mi_c_mean"}
    for value in entries.values():
        assert value.shape == ()
        assert not value.requires_grad
    plain = mi.MutualInformationELBO(max_plate_nesting=1)
    expected = seeded_loss(plain, vae.model, vae.guide, x).detach()
    torch.testing.assert_close(entries["elbo"], -expected, **TOLERANCE)
    torch.testing.assert_close(entries["elbo"], -entries["distortion"] - entries["rate"])
    torch.testing.assert_close(entries["rate"], entries["kl_z"] + entries["kl_c"])
    weighted = entries["distortion"] + 0.25 * entries["kl_z"] + 2 * entries["kl_c"]
    torch.testing.assert_close(loss.detach(), weighted - 0.25 * entries["mi_c_mean"])
    torch.testing.assert_close(entries["loss"], loss.detach())


def test_twice_the_data_is_twice_every_entry(x):
    vae = build("vae")
    vae.guide.heads["z"].linear.bias.data.chunk(2)[1].fill_(-60)  # no noise to speak of
    objective = vae.objective()
    objective.loss(vae.model, vae.guide, x)
    once = objective.ledger
    objective.loss(vae.model, vae.guide, torch.cat([x, x]))
    for name, value in objective.ledger.items():
        torch.testing.assert_close(value, 2 * once[name], rtol=1e-3, atol=0)


def test_schedules_move_with_training_steps_only(x, scheduled):
    vae, objective = scheduled
    state = objective.state_dict()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
    svi.evaluate_loss(x)
    objective.differentiable_loss(vae.model, vae.guide, x)
    objective.loss(vae.model, vae.guide, x)
    assert objective.state_dict() == state
    for step in range(1, 4):
        svi.step(x)
        assert objective.kl_weights["z"]() == schedule(step)
        assert objective.terms[0].weight() == schedule(step)
    objective.advance()
    assert objective.kl_weights["z"]() == schedule(4)
    assert objective.kl_weights["c"]() == 2.0


def test_schedules_resume(x, scheduled):
    vae, objective = scheduled
    for _ in range(3):
        objective.loss_and_grads(vae.model, vae.guide, x)
    resumed = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=schedule)], {"z": schedule, "c": 2.0}, max_plate_nesting=1
    )
    resumed.load_state_dict(objective.state_dict())
    for each in (objective, resumed):
        each.advance()
        assert each.kl_weights["z"]() == each.terms[0].weight() == schedule(4)
    assert resumed.state_dict() == objective.state_dict()


def test_weight_that_starts_at_zero_warms_up(x):
    vae = build("cat", num_categories=K)
    objective = mi.MutualInformationELBO(
        kl_weights={"c": mi.linear_warmup(2)}, max_plate_nesting=1
    )
    (eps,) = noise((K, BATCH, 6))
    for beta in (0.0, 0.5, 1.0, 1.0):
        loss = seeded_loss(objective, vae.model, vae.guide, x)
        torch.testing.assert_close(loss, cat_by_hand(vae, x, eps, K, beta), **TOLERANCE)
        objective.advance()


def test_moves_with_the_data():
    objective = mi.MutualInformationELBO(kl_weights={"z": schedule})
    assert objective.to("cpu") is objective


# Bad options and pairs that do not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kl_weights": {"z": -1.0}},
            r"kl_weights\['z'\]=-1.0; allowed .* from 0 up",
        ),
        ({"kl_weights": {"z": math.nan}}, r"kl_weights\['z'\]=nan; allowed"),
        ({"num_particles": 10**13}, "num_particles=10000000000000; allowed .* to 1000000"),
        ({"terms": [mi.BarberAgakov("c"), mi.BarberAgakov("c")]}, "each term once"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        mi.MutualInformationELBO(**options)


def simple_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def simple_guide(x, fn=None, infer=None, name="z"):
    with pyro.plate("data", len(x)):
        pyro.sample(name, fn or dist.Normal(x, 1.0), infer=infer)


@pytest.mark.parametrize(
    ("model", "guide", "options", "message"),
    [
        (simple_model, simple_guide, {"kl_weights": {"y": 1.0}}, r"names \['y'\]; the latent"),
        (simple_model, lambda x: simple_guide(x, name="y"), {}, r"sites \['y', 'z'\] are not in"),
        (simple_model, lambda x: None, {}, r"the guide samples \[\]"),
        (simple_guide, simple_guide, {}, "the model observes nothing; give one of its sites obs"),
        (
            simple_model,
            lambda x: simple_guide(x, dist.Bernoulli(0.5)),
            {},
            "'z' .*neither reparametrised nor enumerated; annotate it",
        ),
        (
            simple_model,
            lambda x: simple_guide(x, dist.Bernoulli(0.5), {"enumerate": "sequential"}),
            {},
            "annotate it with infer",
        ),
        (simple_model, lambda x: simple_guide(x, dist.Poisson(2.0)), {}, "with rsample, or pyro"),
        (
            simple_model,
            lambda x: simple_guide(
                x, dist.Bernoulli(0.5), {"enumerate": "parallel", "num_samples": 3}
            ),
            {},
            "num_samples",
        ),
    ],
)  # fmt: skip
def test_pairs_that_do_not_fit(values, model, guide, options, message):
    objective = mi.MutualInformationELBO(max_plate_nesting=1, **options)
    with pytest.raises(SiteError, match=message):
        objective.differentiable_loss(model, guide, values)


def test_dimension_shared_by_two_enumerated_sites(values):
    """pyro.markov gives a dimension out again, which the sum over categories cannot know."""

    def chain(x, infer=None):
        c = torch.tensor(0)
        for t in pyro.markov(range(3)):
            c = pyro.sample(f"c{t}", dist.Categorical(torch.eye(2)[c] + 0.3), infer=infer)
        return c

    def model(x):
        c = chain(x)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(1.0 * c, 1.0), obs=x)

    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    with pytest.raises(SiteError, match="pyro.markov"):
        objective.loss(model, lambda x: chain(x, {"enumerate": "parallel"}), values)


def test_cost_outside_the_plate_of_a_category(values):
    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("g", dist.Normal(c.sum(-1, keepdim=True), 1.0))

    def model(x):
        data = pyro.plate("data", len(x))
        with data:
            c = pyro.sample("c", dist.Bernoulli(0.5))
        pyro.sample("g", dist.Normal(0.0, 1.0))
        with data:
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(SiteError, match="outside its plates"):
        mi.MutualInformationELBO(max_plate_nesting=1).loss(model, guide, values)


@pytest.mark.parametrize("nesting", [1, math.inf])
def test_batch_without_a_plate_is_found_by_validation(values, nesting):
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x, 1.0))

    objective = mi.MutualInformationELBO(max_plate_nesting=nesting)
    with pytest.raises(ValueError, match="invalid log_prob shape"):
        objective.loss(model, guide, values)


def test_nothing_to_learn_is_no_error(values):
    objective = mi.MutualInformationELBO()
    assert math.isfinite(objective.loss_and_grads(simple_model, simple_guide, values))


def test_learned_prior_and_constrained_parameters(values):
    class Prior(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroParam(torch.tensor(2.0), dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, self.scale))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    model = Prior()
    svi = SVI(model, simple_guide, pyro.optim.Adam({"lr": 0.1}), mi.MutualInformationELBO())
    before = model.scale.item()
    svi.step(values)
    assert model.scale.item() != before
