"""InfoGAN's game: each player's gradient is that of its own loss, and the bound is a bound."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.networks import Discriminator

SHAPE = (1, 3, 4)
N, K = 6, 3
WEIGHTS = {"c": 0.7, "u": 0.2}


@pytest.fixture
def gan():
    torch.manual_seed(1)
    return mi.InfoGAN(SHAPE, latent_dim=5, num_categories=K).double()


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0)).double()


def loss_of(gan, **options):
    return mi.InfoGANLoss(gan.discriminator, WEIGHTS, **options)


def gradients(loss, gan):
    names, parameters = zip(*gan.named_parameters())
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    zeros = (torch.zeros_like(p) if s is None else s for s, p in zip(slopes, parameters))
    return dict(zip(names, zeros))


def by_hand(gan, x):
    """Losses written out from the networks, on the codes that the model draws for this seed."""
    torch.manual_seed(7)
    trace = poutine.trace(gan.model).get_trace(x)
    c, u, z = (trace.nodes[name]["value"].detach() for name in ("c", "u", "z"))
    image = torch.sigmoid(gan.model.decoder(torch.cat([z, c, u], -1)))
    hidden = gan.guide.hidden(gan.guide.encoder(image))
    u_q = gan.guide.heads["u"](hidden)
    info_c = (gan.guide.heads["c"](hidden).log_softmax(-1) * c).sum() + N * math.log(K)
    info_u = u_q.log_prob(u).sum() + N * 2 * math.log(2.0)
    ones, zeros = torch.ones(N).double(), torch.zeros(N).double()
    real, fake = gan.discriminator(x), gan.discriminator(image)
    fixed = gan.discriminator(image.detach())
    d_loss = cross_entropy(real, ones, reduction="sum")
    return {
        "D": d_loss + cross_entropy(fixed, zeros, reduction="sum"),
        "G": cross_entropy(fake, ones, reduction="sum"),
        "V": -cross_entropy(fake, zeros, reduction="sum"),
        "c": info_c,
        "u": info_u,
    }


def part(name):
    """Which player a parameter belongs to."""
    if name.startswith("model."):
        return "generator"
    if name.startswith("discriminator.head"):
        return "head"
    return "trunk" if name.startswith("guide.encoder") else "recogniser"


@pytest.mark.parametrize("saturating", [False, True])
def test_every_player_has_the_gradient_of_its_own_loss(gan, x, saturating):
    torch.manual_seed(7)
    loss = loss_of(gan, saturating=saturating)
    ours = gradients(loss.differentiable_loss(gan.model, gan.guide, x), gan)
    hand = by_hand(gan, x)
    from_d = gradients(hand["D"], gan)
    from_g = gradients(hand["V" if saturating else "G"], gan)
    from_q = gradients(-sum(WEIGHTS[s] * hand[s] for s in WEIGHTS), gan)
    learns = {
        "generator": lambda n: from_g[n] + from_q[n],
        "head": lambda n: from_d[n],
        "trunk": lambda n: from_d[n] + from_q[n],
        "recogniser": lambda n: from_q[n],
    }
    seen = set()
    for name, slope in ours.items():
        expected = learns[part(name)](name)
        torch.testing.assert_close(slope, expected, atol=1e-9, rtol=1e-7, msg=name)
        assert expected.abs().max() > 0, name
        seen.add(part(name))
    assert seen == set(learns)
    # What must not leak would be seen: the generator's wish moves the discriminator's layers.
    assert max(float(from_g[n].abs().max()) for n in ours if part(n) in ("head", "trunk")) > 1e-3
    assert all(not from_q[n].any() for n in ours if part(n) == "head")
    assert all(not from_d[n].any() for n in ours if part(n) == "generator")


def test_the_ledger_adds_up(gan, x):
    loss = loss_of(gan)
    torch.manual_seed(7)
    value = loss.loss(gan.model, gan.guide, x)
    hand = by_hand(gan, x)
    expected = {
        "loss_discriminator": hand["D"],
        "loss_generator": hand["G"],
        "mi_c_mean": hand["c"],
        "mi_u_mean": hand["u"],
    }
    for name, figure in expected.items():
        torch.testing.assert_close(loss.ledger[name], figure.detach())
    total = hand["D"] + hand["G"] - sum(WEIGHTS[s] * hand[s] for s in WEIGHTS)
    assert value == pytest.approx(total.item(), rel=1e-12)
    assert set(loss.ledger) == {"loss", *expected}


def test_a_discriminator_that_cannot_tell_costs_log_4(gan, x):
    nn.init.zeros_(gan.discriminator.head.weight)
    nn.init.zeros_(gan.discriminator.head.bias)
    loss = loss_of(gan)
    loss.loss(gan.model, gan.guide, x)
    assert float(loss.ledger["loss_discriminator"]) / N == pytest.approx(math.log(4.0))
    assert float(loss.ledger["loss_generator"]) / N == pytest.approx(math.log(2.0))


def test_the_generators_turn_leaves_running_statistics_alone(gan, x):
    """Three runs with gradients for the layers move them: data, images, and codes of images."""
    counts = [m for m in gan.discriminator.modules() if isinstance(m, nn.BatchNorm1d)]
    loss_of(gan).differentiable_loss(gan.model, gan.guide, x)
    assert counts
    assert {int(m.num_batches_tracked) for m in counts} == {3}
    own = [m for m in gan.guide.hidden if isinstance(m, nn.BatchNorm1d)]
    assert {int(m.num_batches_tracked) for m in own} == {1}
    gan.eval()
    before = {name: value.clone() for name, value in gan.named_buffers()}
    loss_of(gan).differentiable_loss(gan.model, gan.guide, x)
    assert all(torch.equal(value, before[name]) for name, value in gan.named_buffers())


# The bound, where everything is known


class Toy(PyroModule):
    """Two bits of four, which the image shows with a bit of the noise; its posterior by table."""

    def __init__(self):
        super().__init__()
        self.probs = nn.Parameter(torch.tensor([0.1, 0.4, 0.2, 0.3]).double())

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(probs=self.probs.detach()))
            noise = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5).double()))
            halves = c[:, :2].sum(-1) * 2 + noise  # of four images, two per pair of categories
            pyro.sample("x", dist.Delta(halves[:, None], event_dim=1), obs=x)


class Exact(PyroModule):
    """The exact posterior of `Toy`."""

    def __init__(self, toy):
        super().__init__()
        self.toy = toy

    def forward(self, x):
        p = self.toy.probs.detach()
        first = torch.cat([p[:2] / p[:2].sum(), torch.zeros(2).double()])
        second = torch.cat([torch.zeros(2).double(), p[2:] / p[2:].sum()])
        probs = torch.where(x > 1, first, second)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(probs=probs))


def test_the_bound_is_tight_for_the_exact_posterior():
    """I(c; x') is then what the pair of c says, by brute force."""
    toy, n = Toy(), 20_000
    p = toy.probs.detach()
    pairs = torch.stack([p[:2].sum(), p[2:].sum()])
    joint = torch.zeros(4, 4).double()  # of category and image
    for c in range(4):
        for noise in range(2):
            joint[c, 2 * (c < 2) + noise] += p[c] / 2
    ratio = joint / (joint.sum(0) * joint.sum(1, keepdim=True))
    truth = float(torch.xlogy(joint, ratio.masked_fill(joint == 0, 1.0)).sum())
    assert truth == pytest.approx(float(-(pairs * pairs.log()).sum()))
    judge = nn.Sequential(nn.Linear(1, 1, dtype=torch.float64), nn.Flatten(0))
    loss = mi.InfoGANLoss(judge, {"c": 1.0})
    loss.loss(toy.model, Exact(toy), torch.zeros(n, 1).double())
    error = 3 * float(p.log().std()) / math.sqrt(n)
    assert float(loss.ledger["mi_c_mean"]) / n == pytest.approx(truth, abs=error)


def test_agrees_with_the_barber_agakov_term(gan, x):
    from pyro_mivae.terms import Particle
    from pyro_mivae.traces import TracePair

    gan.eval()
    pair = TracePair.run(gan.model, gan.guide, (x,), {}, max_plate_nesting=1)
    torch.manual_seed(3)
    term = mi.BarberAgakov("c", "u")(Particle(gan.model, gan.guide, (x,), {}, pair))
    torch.manual_seed(3)
    loss = loss_of(gan)
    loss.loss(gan.model, gan.guide, x)
    torch.testing.assert_close(loss.ledger["mi_c_mean"] + loss.ledger["mi_u_mean"], term.detach())


def test_scales_and_schedules(gan, x):
    gan.eval()
    weights = {"c": mi.linear_warmup(2, 0.5), "u": 0.0}
    loss = mi.InfoGANLoss(gan.discriminator, weights)
    torch.manual_seed(2)
    value = loss.loss_and_grads(gan.model, gan.guide, x)
    total = loss.ledger["loss_discriminator"] + loss.ledger["loss_generator"]
    assert value == pytest.approx(float(total - 0.5 * loss.ledger["mi_c_mean"]))
    assert float(loss.weights["c"]()) == 0.75
    torch.manual_seed(2)
    again = mi.InfoGANLoss(gan.discriminator, {"c": 0.5, "u": 0.0})
    with poutine.scale(scale=3.0):
        assert again.loss(gan.model, gan.guide, x) == pytest.approx(3 * value)


def test_stock_svi_and_a_torch_optimiser_train_all_players(gan, x):
    gan = gan.float()
    before = {name: value.clone() for name, value in gan.named_parameters()}
    svi = SVI(gan.model, gan.guide, pyro.optim.Adam(gan.optim_args), gan.objective())
    for _ in range(2):
        svi.step(x.float())
    assert all((value != before[name]).any() for name, value in gan.named_parameters())
    with pyro.settings.context(module_local_params=True):
        local = mi.InfoGAN(SHAPE, latent_dim=5)
        module = local.objective()(local.model, local.guide)
        assert set(local.parameters()) == set(module.parameters())
        module(x.float()).backward()
        assert all(parameter.grad is not None for parameter in local.parameters())


def test_rates_are_the_papers(gan, x):
    gan = gan.float()
    optimiser = pyro.optim.Adam(gan.optim_args)
    svi = SVI(gan.model, gan.guide, optimiser, gan.objective())
    svi.step(x.float())
    rates = {id(p): o.param_groups[0] for p, o in optimiser.optim_objs.items()}
    for name, parameter in gan.named_parameters():
        slow = part(name) in ("head", "trunk")
        assert rates[id(parameter)]["lr"] == (2e-4 if slow else 1e-3), name
        assert rates[id(parameter)]["betas"] == (0.5, 0.999)


# What is refused


def test_a_batch_of_one_has_nothing_to_be_normalised_by(gan, x):
    with pytest.raises(DataError, match="a batch of 1 given, but batch norm in the discriminator"):
        loss_of(gan).differentiable_loss(gan.model, gan.guide, x[:1])
    gan.eval()
    assert math.isfinite(loss_of(gan).loss(gan.model, gan.guide, x[:1]))
    plain = Discriminator(nn.Flatten(), 12).double()
    alone = mi.InfoGANLoss(plain, WEIGHTS)
    assert not alone.needs_batch
    assert math.isfinite(alone.loss(gan.model, gan.guide, x[:1]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [({}, "weights holds 0; give 1 or more"), ({"c": -1.0}, r"weights\['c'\]=-1.0; allowed")],
)
def test_bad_weights(gan, weights, message):
    with pytest.raises(OptionError, match=message):
        mi.InfoGANLoss(gan.discriminator, weights)


def unobserved(x):
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Normal(torch.zeros(len(x)), 1.0))


def deterministic(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x.new_zeros(len(x), 3), event_dim=1))
        pyro.sample("c", dist.Delta(x.new_zeros(len(x), K), event_dim=1))
        pyro.sample("u", dist.Delta(x.new_zeros(len(x), 2), event_dim=1))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda g, x: (unobserved, g.guide, g.discriminator), SiteError, r"observes \[\]; let"),
        (lambda g, x: (g.model, unobserved, g.discriminator), SiteError, "does not sample the c"),
        (
            lambda g, x: (g.model, deterministic, g.discriminator),
            SiteError,
            "makes the code 'c' d",
        ),
        (lambda g, x: (g.model, g.guide, nn.Flatten()), ShapeError, r"gives shape \(6, 12\) for"),
    ],
)
def test_what_does_not_fit(gan, x, use, error, message):
    model, guide, discriminator = use(gan, x)
    loss = mi.InfoGANLoss(discriminator, {"u": 1.0, "c": 1.0} if guide is unobserved else WEIGHTS)
    with pytest.raises(error, match=message):
        loss.differentiable_loss(model, guide, x)


def test_names_codes_that_are_not_there(gan, x):
    with pytest.raises(SiteError, match=r"weights names \['y'\]; the model's codes are"):
        mi.InfoGANLoss(gan.discriminator, {"y": 1.0}).loss(gan.model, gan.guide, x)


def test_a_note_of_the_generator_counts_for_nothing(gan, x):
    def noting(x):
        pyro.deterministic("note", torch.ones(2))
        return gan.model(x)

    objective = gan.objective()
    losses = []
    for model in (gan.model, noting):
        torch.manual_seed(0)
        losses.append(objective.loss(model, gan.guide, x))
    assert losses[0] == losses[1]
