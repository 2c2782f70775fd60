"""A few decoded categories against the exact sum: unbiased in value and every gradient."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.elbo import mutual_information
from pyro_mivae.engine.steps import trace_step
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import MixtureGuide
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.networks import MLPDecoder, MLPEncoder

from .by_hand import Counting, pieces

SHAPE, BATCH, K, DIM = (6,), 4, 5, 10
TOLERANCE = {"rtol": 0, "atol": 1e-10}
ONE = torch.ones(())
BUDGETS = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2)]


pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def x():
    return torch.rand(BATCH, *SHAPE)


@pytest.fixture
def vae():
    return build()


def build(**options):
    vae = mi.CatVAE(
        SHAPE,
        num_categories=K,
        latent_dim=DIM,
        encoder=MLPEncoder(SHAPE, (5,), nn.Tanh),
        decoder=MLPDecoder(DIM, SHAPE, (5,), nn.Tanh),
        **options,
    )
    with torch.no_grad():
        vae.guide.heads[0].linear.weight.mul_(4)  # probabilities from 0.02 to 0.7
        vae.model.decoder.layers[0].weight.mul_(3)
    return vae


def seeded_loss(objective, vae, x):
    torch.manual_seed(7)
    return objective.differentiable_loss(vae.model, vae.guide, x)


def seeded(objective, vae, x):
    """The loss and its gradient, given the noise of z."""
    loss = seeded_loss(objective, vae, x)
    return loss.detach(), torch.autograd.grad(loss, list(vae.parameters()))


def assert_equal(found, expected):
    for ours, theirs in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)


def sampled(exact, draws, **options):
    return mi.SampledCategoricalELBO(exact=exact, draws=draws, max_plate_nesting=1, **options)


# Value and gradient


def assert_exact_on_average(objective, vae, x, monkeypatch):
    """With the noise of z held, the average over every choice, weighed, is no estimate."""
    exact = mi.MutualInformationELBO(kl_weights={"z": 0.3}, max_plate_nesting=1)
    value, gradient = seeded(exact, vae, x)
    probs = vae.guide.heads[0].linear(vae.guide.encoder(x)).softmax(-1).detach().T
    found = [torch.zeros_like(total) for total in (value, *gradient)]
    ledger = dict.fromkeys(exact.ledger, 0.0)
    state = objective.state_dict() | dict.fromkeys(("baseline.mean", "baseline.weight"), ONE)
    for uniform, length in zip(*pieces(probs, objective.exact, objective.draws)):
        if not objective.exact:
            objective.load_state_dict(state)  # a mean of 1 nat over former steps
        monkeypatch.setattr(torch, "rand_like", lambda t, u=uniform: u.expand_as(t))
        loss, slopes = seeded(objective, vae, x)
        ledger = {key: total + length * objective.ledger[key] for key, total in ledger.items()}
        found = [total + length * one for total, one in zip(found, (loss, *slopes))]
    assert_equal((found[0], found[1:]), (value, gradient))
    for key, total in ledger.items():
        torch.testing.assert_close(total, exact.ledger[key], **TOLERANCE)


@pytest.mark.parametrize(("exact", "draws"), BUDGETS)
def test_is_the_exact_objective_on_average(vae, x, exact, draws, monkeypatch):
    objective = sampled(exact, draws, kl_weights={"z": 0.3})
    assert_exact_on_average(objective, vae, x, monkeypatch)


def scaled(program):
    kept = torch.tensor([True, True, False, True])
    return pyro.poutine.scale(pyro.poutine.mask(program, mask=kept), scale=3.0)


class ScaledModel(GenerativeModel):
    def forward(self, x):
        return scaled(super().forward)(x)


class ScaledGuide(MixtureGuide):
    def forward(self, x):
        return scaled(super().forward)(x)


def test_with_a_scale_and_a_mask(x, monkeypatch):
    vae = build()
    torch.manual_seed(7)
    plain = sampled(1, 4)
    plain.loss(vae.model, vae.guide, x[[0, 1, 3]])
    vae.model.__class__, vae.guide.__class__ = ScaledModel, ScaledGuide
    monkeypatch.setattr(mutual_information, "code_program", lambda m: scaled(code_program(m)))
    objective = sampled(1, 1, kl_weights={"z": 0.3})
    assert_exact_on_average(objective, vae, x, monkeypatch)
    kl_c, unscaled = objective.ledger["kl_c"], plain.ledger["kl_c"]
    torch.testing.assert_close(kl_c, 3 * unscaled, **TOLERANCE)


@pytest.mark.parametrize(("exact", "draws"), [(0, 5), (2, 3), (4, 1), (1, 8), (9, 1)])
def test_is_the_exact_objective_where_all_are_decoded(vae, x, exact, draws):
    objective, other = sampled(exact, draws), mi.MutualInformationELBO(max_plate_nesting=1)
    assert_equal(seeded(objective, vae, x), seeded(other, vae, x))
    assert objective.ledger.keys() == other.ledger.keys()


def moments(objective, vae, x, count):
    """Mean and variance of the gradient, flattened, over seeds."""
    gradients = []
    for _ in range(count):
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        slopes = torch.autograd.grad(loss, list(vae.parameters()))
        gradients.append(torch.cat([slope.flatten() for slope in slopes]))
    stacked = torch.stack(gradients)
    return stacked.mean(0), stacked.var(0)


def test_gradient_over_seeds(vae, x):
    """Also with fresh noise, a schedule, and a term that draws of its own."""
    count = 40
    options = {"kl_weights": {"c": lambda step: 0.5}, "terms": [mi.BarberAgakov("c", weight=2.0)]}
    other = mi.MutualInformationELBO(max_plate_nesting=1, num_particles=2, **options)
    mean, variance = moments(sampled(1, 1, **options), vae, x, count)
    expected, spread = moments(other, vae, x, count)
    error = ((variance + spread) / count).sqrt()
    assert len(mean) > 200
    assert ((mean - expected).abs() <= 4.5 * error + 1e-12).all()
    assert ((mean - expected) / error.clamp(min=1e-12)).square().mean() < 1.5


@pytest.mark.usefixtures("wide")
def test_the_baseline_and_the_certain_category_lower_the_variance(vae, x):
    plain, one, two = (
        moments(sampled(*budget), vae, x, 30)[1].sum() for budget in [(0, 1), (1, 1), (1, 2)]
    )
    assert two < 0.7 * one < 0.1 * plain


def test_the_learned_mean_lowers_the_variance(vae, x):
    without, learned = sampled(0, 1), sampled(0, 1)
    without.baseline.forward = torch.zeros_like
    moments(learned, vae, x, 40)  # learns
    assert moments(learned, vae, x, 30)[1].sum() < 0.2 * moments(without, vae, x, 30)[1].sum()


def test_the_learned_mean_moves_only_in_training(vae, x):
    objective = sampled(0, 1)
    objective.loss(vae.model, vae.guide, x)
    assert objective.baseline.mean == 0
    distortions = []
    for _ in range(100):
        objective.loss_and_grads(vae.model, vae.guide, x)
        distortions.append(objective.ledger["distortion"] / BATCH)
    learned = objective.baseline.mean / objective.baseline.weight
    newest_count_most = 0.99 ** torch.arange(100).flip(0)
    expected = (newest_count_most * torch.stack(distortions)).sum() / newest_count_most.sum()
    torch.testing.assert_close(learned, expected, rtol=1e-5, atol=0)
    assert "baseline.mean" in objective.state_dict()


def test_a_certain_category_leaves_no_variance_of_the_choice(vae, x):
    with torch.no_grad():
        vae.guide.heads[0].linear.weight.mul_(1e3)
    exact = mi.MutualInformationELBO(max_plate_nesting=1)
    assert_equal(seeded(sampled(1, 1), vae, x), seeded(exact, vae, x))


@pytest.mark.parametrize("part", ["model.decoder", "guide.heads.1"])
def test_gradient_by_finite_differences(vae, x, part):
    """Of what does not move the choice."""
    objective, step = sampled(1, 1), 1e-5
    parameters = dict(vae.named_parameters())
    names = [name for name in parameters if name.startswith(part)]
    slopes = dict(zip(parameters, seeded(objective, vae, x)[1]))
    assert names
    for name in names:
        direction = torch.randn_like(parameters[name])
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameters[name].add_(sign * step * direction)
                values.append(sign * seeded_loss(objective, vae, x))
                parameters[name].sub_(sign * step * direction)
        numeric = sum(values) / (2 * step)
        slope = (slopes[name] * direction).sum()
        torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-6)


# What it works with


@pytest.mark.parametrize(("decodes", "rows"), [(2, 2), (3, 3), (5, 5), (9, 5)])
def test_only_the_chosen_are_decoded(vae, x, decodes, rows):
    vae.model.decoder = Counting(vae.model.decoder)
    sampled(1, decodes - 1).loss(vae.model, vae.guide, x)
    assert vae.model.decoder.rows == rows * BATCH


def test_decodes_is_what_each_step_decodes(x):
    vae = build(categorical="sample", num_decodes=4)
    vae.model.decoder = Counting(vae.model.decoder)
    vae.objective().loss(vae.model, vae.guide, x)
    assert vae.model.decoder.rows == 4 * BATCH


@pytest.mark.parametrize(("exact", "draws"), [(1, 1), (0, 3)])
def test_is_staged(x, exact, draws):
    """No structure depends on values; `stage` compares with the eager step on the same noise."""
    vae, objective = build(), sampled(exact, draws)

    def loss(x):
        return objective.differentiable_loss(vae.model, vae.guide, x), objective.ledger

    trace_step(TrainStep.of_modules(loss, vae), x)


def test_half_precision_draws_in_single(x, monkeypatch):
    """Of uniform numbers in bfloat16 there are too few for small probabilities."""
    vae, drawn = build().bfloat16(), []
    rand_like = torch.rand_like
    monkeypatch.setattr(torch, "rand_like", lambda t: drawn.append(rand_like(t)) or drawn[-1])
    loss = sampled(1, 1).loss(vae.model, vae.guide, x.bfloat16())
    assert [one.dtype for one in drawn] == [torch.float32]
    assert math.isfinite(loss)


@pytest.mark.parametrize("vectorize", [False, True])
def test_particles(vae, x, vectorize):
    options = {"num_particles": 3, "vectorize_particles": vectorize}
    objective = sampled(1, 1, **options, kl_weights={"c": 0.5})
    many = x.repeat(8, 1)  # as many draws at once
    losses = torch.tensor([objective.loss(vae.model, vae.guide, many) for _ in range(20)]) / 8
    other = mi.MutualInformationELBO((), {"c": 0.5}, max_plate_nesting=1)
    expected = other.loss(vae.model, vae.guide, x.repeat(400, 1)) / 400
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - expected) < 4 * error < 0.1
    if vectorize:  # the same noise, since the choice draws its numbers last
        exact = mi.MutualInformationELBO(max_plate_nesting=1, **options)
        assert_equal(seeded(sampled(1, 4, **options), vae, x), seeded(exact, vae, x))


def test_trains_with_stock_svi(x):
    vae = mi.InfoCatVAE(
        SHAPE, num_categories=K, latent_dim=DIM, categorical="sample", warm_start=0
    )
    optimiser = pyro.optim.Adam({"lr": 2e-2})
    svi = SVI(vae.model, vae.guide, optimiser, vae.objective(num_steps=20))
    exact = mi.MutualInformationELBO(max_plate_nesting=1)
    many = x.repeat(20, 1)
    before = exact.loss(vae.model, vae.guide, many)
    for _ in range(50):
        svi.step(x)
    assert exact.loss(vae.model, vae.guide, many) < before - len(many) * 0.3


class IndexPrior(PyroModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("means", 3 * torch.eye(K))

    def forward(self):
        c = pyro.sample("c", dist.Categorical(torch.ones(K)))
        return pyro.sample("z", dist.Normal(self.means[c.long()], 1.0).to_event(1))


class IndexGuide(PyroModule):
    def __init__(self, infer):
        super().__init__()
        self.infer = infer
        self.logits = nn.Linear(*SHAPE, K)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.logits(x)), infer=self.infer)
            pyro.sample("z", dist.Normal(2 * torch.eye(K)[c.long()], 1.0).to_event(1))


def test_a_category_that_is_an_index(x):
    parts = {"prior": IndexPrior(), "guide": IndexGuide({"enumerate": "parallel"})}
    vae = mi.CatVAE(SHAPE, num_categories=K, latent_dim=K, **parts)
    exact = mi.MutualInformationELBO(max_plate_nesting=1)
    assert_equal(seeded(sampled(2, 3), vae, x), seeded(exact, vae, x))
    many = x.repeat(10, 1)  # as many draws at once
    losses, others = (
        torch.tensor([elbo.loss(vae.model, vae.guide, many) for _ in range(20)]) / 10
        for elbo in (sampled(1, 1), exact)
    )
    error = math.hypot(losses.std(), others.std()) / math.sqrt(20)
    assert abs(losses.mean() - others.mean()) < 4 * error < 0.3


@pytest.mark.parametrize(
    ("shape", "options", "rows"),
    [
        ((400,), {}, K),  # 2,000 values
        ((401,), {}, 2),
        ((401,), {"categorical": "enumerate"}, K),
    ],
)
def test_few_are_decoded_where_all_would_cost_much(shape, options, rows):
    vae = mi.CatVAE(shape, num_categories=K, latent_dim=DIM, **options)
    vae.model.decoder = Counting(vae.model.decoder)
    vae.objective().loss(vae.model, vae.guide, torch.rand(BATCH, *shape))
    assert vae.model.decoder.rows == rows * BATCH


def test_a_category_that_is_not_enumerated(x):
    vae = mi.CatVAE(SHAPE, prior=IndexPrior(), guide=IndexGuide({}), categorical="sample")
    with pytest.raises(SiteError, match="the guide enumerates no site"):
        vae.objective().loss(vae.model, vae.guide, x)


def test_models_that_cannot_be_drawn_without_decoding(vae, x):
    with pytest.raises(SiteError, match="needs a GenerativeModel"):
        sampled(1, 1).loss(lambda x: vae.model(x), vae.guide, x)


@pytest.mark.parametrize("options", [{"exact": -1}, {"draws": 0}])
def test_bad_options(options):
    with pytest.raises(OptionError, match="allowed are whole numbers from"):
        mi.SampledCategoricalELBO(**options)


@pytest.mark.parametrize(
    "objective",
    [
        mi.MutualInformationELBO(max_plate_nesting=1),
        mi.SampledCategoricalELBO(max_plate_nesting=1),
        mi.SampledCategoricalELBO(exact=K, max_plate_nesting=1),
        mi.RelaxedCategoricalELBO(max_plate_nesting=1),
        mi.RelaxedCategoricalELBO(relaxation="gumbel", max_plate_nesting=1),
        mi.MutualInformationELBO([mi.RegularizedInformation("c")], max_plate_nesting=1),
    ],
    ids=["exact", "sampled", "all", "soft", "gumbel", "regularised"],
)
def test_a_category_of_probability_zero(vae, x, objective):
    with torch.no_grad():
        vae.guide.heads[0].linear.bias[0] = -math.inf
    losses = []
    for each in (objective, mi.MutualInformationELBO(max_plate_nesting=1)):
        vae.zero_grad()
        torch.manual_seed(0)
        losses.append(each.loss_and_grads(vae.model, vae.guide, x))
        assert all(p.grad.isfinite().all() for p in vae.parameters() if p.grad is not None)
    assert all(map(math.isfinite, losses))
    assert math.isfinite(objective.ledger["kl_c"])
