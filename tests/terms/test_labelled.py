"""Labels in the ELBO and the classifier's term, by brute force, differences and Pyro's ELBO."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.sites import weigh

K, DIM, N = 3, 2, 6
LABELS = torch.tensor([2, -1, 0, -1, 1, 2])
EVERY = torch.tensor([2, 1, 0, 0, 1, 2])


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def x():
    return torch.rand(N, 4, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def discrete():
    """Model and guide of a category alone: every bound has a closed form."""
    torch.manual_seed(0)
    net = nn.Linear(4, K)
    probs = nn.Parameter(torch.rand(K, 4))
    prior = torch.tensor([0.5, 0.3, 0.2])

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.probs = probs

        def forward(self, x):
            with pyro.plate("data", len(x)):
                c = pyro.sample("c", dist.OneHotCategorical(prior))
                pyro.sample("x", dist.Normal(c @ self.probs, 0.5).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            with pyro.plate("data", len(x)):
                q = dist.OneHotCategorical(logits=self.net(x))
                pyro.sample("c", q, infer={"enumerate": "parallel"})

    return Model(), Guide(), net, probs, prior


def by_hand(x, labels, net, probs, prior, alpha):
    """Minus the semi-supervised objective, datum by datum."""
    log_px = dist.Normal(probs, 0.5).to_event(1).log_prob(x.unsqueeze(1))  # (n, K)
    log_q = net(x).log_softmax(-1)
    total, scores = 0.0, []
    for i, y in enumerate(labels.tolist()):
        if y >= 0:
            total = total + log_px[i, y] + prior[y].log()
            scores.append(log_q[i, y])
        else:
            total = total + (log_q[i].exp() * (log_px[i] + prior.log() - log_q[i])).sum()
    mean = torch.stack(scores).mean() if scores else 0.0
    return -(total + alpha * len(x) * mean)


@pytest.mark.parametrize("labels", [LABELS, EVERY, -torch.ones(N).long()])
def test_loss_and_gradient_by_brute_force(discrete, x, labels):
    model, guide, net, probs, prior = discrete
    elbo = mi.MutualInformationELBO([mi.LabelledCategory("c", weight=0.7)])
    loss = elbo.differentiable_loss(model, guide, x, labels=labels)
    wanted = by_hand(x, labels, net, probs, prior, 0.7)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    inputs = [net.weight, net.bias, probs]
    for found, own in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(wanted, inputs)):
        torch.testing.assert_close(found, own)


def test_unlabelled_data_beside_others_in_the_classifiers_term(discrete, x):
    model, guide, net, _, _ = discrete
    elbo = mi.MutualInformationELBO([mi.LabelledCategory("c", weight=0.7)])
    labelled = torch.rand(4, 4), torch.tensor([0, 1, 2, 1])
    without = mi.MutualInformationELBO().loss(model, guide, x)
    loss = elbo.loss(model, guide, x, labelled=labelled)
    log_q = net(labelled[0]).log_softmax(-1)[range(4), labelled[1]]
    assert loss - without == pytest.approx(-0.7 * N * log_q.mean().item())
    entry = elbo.ledger["cross_entropy_c"].item()
    assert entry == pytest.approx(-N * log_q.mean().item())


@pytest.fixture
def make():
    def make(cls=mi.CatVAE, **options):
        torch.manual_seed(1)
        networks = {"encoder": nn.Linear(4, 5), "decoder": nn.Linear(DIM * K, 4)}
        options = {"num_categories": K, "latent_dim": DIM * K, **options}
        return cls((4,), likelihood="gaussian", **networks, **options)

    return make


def head_of(vae, name):
    return vae.guide.heads[vae.guide.names.index(name)]


def loss_of(vae, x, objective=None, **labels):
    torch.manual_seed(5)
    objective = objective or vae.objective(label_weight=0.7)
    return objective.differentiable_loss(vae.model, vae.guide, x, **labels)


WAYS = ["enumerate", "sample", "soft", "gumbel"]


def test_the_supervised_bound_of_a_gaussian_code(make, x):
    """With all labels: the mean over z of the noise, and log p(y), in closed form."""
    vae = make(categorical="enumerate")
    objective = vae.objective(label_weight=0.7)
    losses = torch.stack([loss_of(vae, x, objective, labels=EVERY) for _ in range(2)])
    assert losses[0] == losses[1]
    with torch.no_grad():
        features = vae.guide.encoder(x)
        category, code = (head_of(vae, name) for name in "cz")
        q = code.given(code(features), {"c": torch.eye(K)[EVERY]}).base_dist
        means = vae.prior.means[EVERY]
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(means, 1.0)).sum()
        scores = category.given(category(features)).logits[range(N), EVERY]
    assert objective.ledger["kl_z"].item() == pytest.approx(kl.item())
    assert objective.ledger["kl_c"].item() == pytest.approx(N * math.log(K))
    assert objective.ledger["cross_entropy_c"].item() == pytest.approx(-scores.sum().item())
    torch.manual_seed(7)
    with torch.no_grad():
        log_px = torch.distributions.Normal(
            vae.model.decoder(q.sample((4000,))), vae.likelihood.scale
        ).log_prob(x)
    each = -log_px.sum((1, 2))
    ours = distortions(vae, x, EVERY)
    error = math.hypot(each.std() / math.sqrt(len(each)), ours.std() / math.sqrt(len(ours)))
    assert abs(each.mean() - ours.mean()) < 4 * error


def distortions(vae, x, labels, copies=50):
    """Estimates of the distortion of x, each from many copies of it."""
    objective, found = vae.objective(label_weight=0.7), []
    for seed in range(20):
        torch.manual_seed(seed)
        objective.loss(vae.model, vae.guide, x.repeat(copies, 1), labels=labels.repeat(copies))
        found.append(objective.ledger["distortion"] / copies)
    return torch.stack(found)


@pytest.mark.parametrize("way", WAYS)
def test_gradient_by_finite_differences(make, x, way):
    vae = make(mi.InfoCatVAE, categorical=way)
    objective = vae.objective(label_weight=0.7)
    parameters = list(vae.parameters())
    loss = loss_of(vae, x, objective, labels=EVERY)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    direction = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction) if g is not None)
    assert slope.isfinite()
    ends, step = [], 1e-5
    for sign in (1, -1):
        moved = copy.deepcopy(vae)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), direction, strict=True):
                p.add_(d, alpha=sign * step)
            ends.append(loss_of(moved, x, objective, labels=EVERY).item())
    assert slope.item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_finite_where_some_are_labelled(make, x, way):
    vae = make(mi.InfoCatVAE, categorical=way)
    loss_of(vae, x, labels=LABELS).backward()
    assert all(p.grad.isfinite().all() for p in vae.parameters())


def test_a_category_without_probability_has_a_finite_gradient(make, x):
    vae = make()
    with torch.no_grad():
        bias = [p for p in head_of(vae, "c").parameters() if p.dim() == 1]
        bias[0][0] = -1e4  # q underflows to 0
    loss_of(vae, x, labels=torch.zeros(N).long()).backward()
    assert all(p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_without_a_label_the_loss_is_the_plain_one_bit_for_bit(make, x, way):
    vae = make(mi.InfoCatVAE, categorical=way)
    plain = loss_of(vae, x, vae.objective())
    none = loss_of(vae, x, labels=-torch.ones(N).long())
    assert torch.equal(plain, none)
    parameters = list(vae.parameters())
    for one, other in zip(torch.autograd.grad(plain, parameters, retain_graph=True),
                          torch.autograd.grad(none, parameters)):  # fmt: skip
        assert torch.equal(one, other)
    assert torch.equal(plain, loss_of(vae, x))  # and where no labels are given


def test_a_sampled_category_decodes_the_label(make, x):
    exact, sampled = make(categorical="enumerate"), make(categorical="sample")
    seen = []
    sampled.model.decoder.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    found, wanted = distortions(sampled, x, LABELS), distortions(exact, x, LABELS)
    assert {code.shape[0] for code in seen} == {2}
    error = math.hypot(found.std(), wanted.std()) / math.sqrt(len(found))
    assert abs(found.mean() - wanted.mean()) < 4 * error


def test_pyros_own_elbo_agrees(discrete, x):
    model, guide, *_ = discrete
    observing = mi.observe_category(guide, LABELS)
    theirs = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, observing, x)
    term = mi.LabelledCategory("c", weight=0.0)
    elbo = mi.MutualInformationELBO([term])
    ours = elbo.differentiable_loss(model, guide, x, labels=LABELS)
    torch.testing.assert_close(ours, theirs)
    for loss in (ours, theirs):
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(guide.parameters())))


@pytest.mark.parametrize("generated", ["mean", "relaxed"])
def test_terms_over_generated_data_read_the_guide_without_labels(make, x, generated):
    vae = make(mi.InfoCatVAE)
    terms = [mi.BarberAgakov("c"), mi.RegularizedInformation("c")]
    entries = []
    for labelled in ([], [mi.LabelledCategory("c", weight=0.0)]):
        torch.manual_seed(2)
        elbo = mi.MutualInformationELBO([*terms, *labelled], max_plate_nesting=1)
        given = {"labels": EVERY} if labelled else {}
        elbo.loss(vae.model, vae.guide, x, **given)
        entries.append([elbo.ledger[term.name] for term in terms])
    assert entries[0] == entries[1]


def test_weight_zero_observes_labels_and_does_not_classify(make, x):
    vae = make()
    with_term = loss_of(vae, x, vae.objective(label_weight=0.0), labels=LABELS)
    guide = mi.observe_category(vae.guide, LABELS)
    torch.manual_seed(5)
    by_handler = vae.objective().differentiable_loss(vae.model, guide, x)
    assert torch.equal(with_term, by_handler)


@pytest.mark.parametrize("way", ["enumerate", "sample"])
def test_svi_equals_pyros_on_the_same_noise(make, x, way):
    losses, weights = [], []
    for kind in (SVI, mi.SVI):
        pyro.clear_param_store()
        vae = make(mi.InfoCatVAE, categorical=way)
        how = {"engine": "staged"} if kind is mi.SVI else {}
        optim = pyro.optim.Adam({"lr": 1e-2})
        svi = kind(vae.model, vae.guide, optim, vae.objective(label_weight=0.7), **how)
        torch.manual_seed(4)
        drawn = x[:2], torch.tensor([0, 2])
        losses.append([svi.step(x, labels=LABELS, labelled=drawn) for _ in range(6)])
        weights.append([p.detach().clone() for p in vae.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)


def test_the_scale_of_a_plate_counts_for_the_classifier(discrete, x):
    model, guide, *_ = discrete
    elbo = mi.MutualInformationELBO([mi.LabelledCategory("c")])
    scaled = [pyro.poutine.scale(part, scale=3.0) for part in (model, guide)]
    once = elbo.loss(model, guide, x, labels=LABELS)
    assert elbo.loss(*scaled, x, labels=LABELS) == pytest.approx(3 * once)


def test_refused_labels(make, x):
    vae = make()
    with pytest.raises(
        DataError, match=r"range over -1 to 3; allowed are 0 to 2.*num_categories=4"
    ):
        loss_of(vae, x, labels=torch.tensor([3, -1, 0, 0, 0, 0]))
    with pytest.raises(DataError, match="range over -2 to 0"):
        loss_of(vae, x, labels=torch.tensor([-2, -1, 0, 0, 0, 0]))
    with pytest.raises(ShapeError, match=r"labels of shape \(5,\) for categories of shape \(6,\)"):
        loss_of(vae, x, labels=LABELS[:5])
    with pytest.raises(DataError, match="allowed are integers"):
        loss_of(vae, x, labels=LABELS.double())
    for wrong, error in ((torch.tensor([3, 0]), DataError), (torch.tensor([0]), ShapeError)):
        with pytest.raises(error, match="labels"):
            loss_of(vae, x, labelled=(x[:2], wrong))
    with pytest.raises(SiteError, match="'k', but the guide has sampled"):
        mi.observe_category(vae.guide, LABELS, "k")(x)
    with pytest.raises(SiteError, match="'z' of the guide is Independent"):
        mi.observe_category(vae.guide, LABELS, "z")(x)
    with pytest.raises(OptionError, match="weight=-1"):
        mi.LabelledCategory("c", weight=-1.0)
    normal = mi.VAE((4,), encoder=nn.Linear(4, 5), decoder=nn.Linear(20, 4))
    with pytest.raises(OptionError, match="VAE has no category"):
        normal.objective(label_weight=1.0)
    game = mi.InfoGAN((1, 4, 4), num_categories=3)
    with pytest.raises(OptionError, match="InfoGAN has no ELBO"):
        game.objective(label_weight=1.0)


def test_a_categorical_site_too(x):
    """Integers in place of one-hot vectors, and probabilities in place of logits."""
    table = torch.tensor([[0.2, 0.3, 0.5]] * N)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(table), infer={"enumerate": "parallel"})

    site = pyro.poutine.trace(mi.observe_category(guide, LABELS)).get_trace(x).nodes["c"]
    wanted = torch.where(LABELS.unsqueeze(-1) < 0, table, torch.eye(K)[LABELS])
    torch.testing.assert_close(site["fn"].probs, wanted)
    assert (site["value"] == LABELS)[LABELS >= 0].all()
    assert not weigh(site["fn"].probs, site["fn"].logits).isnan().any()
