"""One decode of a relaxed category against sums written by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import logsigmoid, softplus

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.networks import MLPDecoder, MLPEncoder

SHAPE, BATCH, K, DIM = (6,), 4, 3, 6
TOLERANCE = {"rtol": 0, "atol": 1e-10}


pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def x():
    return torch.rand(BATCH, *SHAPE)


@pytest.fixture
def vae():
    return mi.CatVAE(
        SHAPE,
        num_categories=K,
        latent_dim=DIM,
        encoder=MLPEncoder(SHAPE, (5,), nn.Tanh),
        decoder=MLPDecoder(DIM, SHAPE, (5,), nn.Tanh),
    )


def seeded_loss(objective, vae, x):
    torch.manual_seed(7)
    return objective.differentiable_loss(vae.model, vae.guide, x)


def mean_loss(objective, vae, x, count=20):
    many = x.repeat(10, 1)  # as many draws at once
    losses = torch.tensor([objective.loss(vae.model, vae.guide, many) for _ in range(count)]) / 10
    return losses.mean(), losses.std() / math.sqrt(count)


def by_hand(vae, x, relax, weights=(1.0, 1.0)):
    """The original code's loss: one decode, the KL divergences summed over the categories."""
    torch.manual_seed(7)
    features = vae.guide.encoder(x)
    logits = vae.guide.heads[0].linear(features)
    q = logits.softmax(-1)
    codes = vae.guide.heads[1].maps[0](features).reshape(BATCH, K, 2 * DIM)

    def normal(code):
        loc, scale = code.chunk(2, -1)
        return loc, softplus(scale) + 1e-4

    torch.randn(K, BATCH, DIM)  # of the run that holds the KL divergences
    a = relax(logits)
    loc, scale = normal((a[:, :, None] * codes).sum(1))
    decoded = vae.model.decoder(loc + scale * torch.normal(torch.zeros(BATCH, DIM), 1.0))
    log_x = (x * logsigmoid(decoded) + (1 - x) * logsigmoid(-decoded)).sum(-1)
    kl_c = (q * (q.log() + math.log(K))).sum(-1)
    kl_z = 0.0
    for k in range(K):
        loc, scale = normal(codes[:, k])
        squares = scale**2 + (loc - vae.prior.means[k]) ** 2 - 1 - 2 * scale.log()
        kl_z = kl_z + q[:, k] * 0.5 * squares.sum(-1)
    return -(log_x - weights[0] * kl_z - weights[1] * kl_c).sum()


def gumbel(temperature):
    def relax(logits):
        temperature_ = torch.tensor(temperature)
        return dist.RelaxedOneHotCategorical(temperature_, logits=logits).rsample()

    return relax


def hard(logits):
    """The likeliest category of a Gumbel draw, with the draw's gradient."""
    soft = gumbel(0.7)(logits)
    return torch.eye(K)[soft.argmax(-1)] + soft - soft.detach()


@pytest.mark.parametrize(
    ("options", "relax"),
    [
        ({"relaxation": "straight-through", "temperature": 0.7}, hard),
        ({"relaxation": "soft"}, lambda logits: logits.softmax(-1)),
        ({"relaxation": "gumbel", "temperature": 0.7}, gumbel(0.7)),
        ({"relaxation": "gumbel", "temperature": lambda step: 0.4}, gumbel(0.4)),
    ],
)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.0)])
def test_is_the_sum_by_hand(vae, x, options, relax, weights):
    kl_weights = dict(zip("zc", weights))
    objective = mi.RelaxedCategoricalELBO((), kl_weights, max_plate_nesting=1, **options)
    loss = seeded_loss(objective, vae, x)
    expected = by_hand(vae, x, relax, weights)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    parameters = list(vae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    ):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    plain = by_hand(vae, x, relax).detach()
    torch.testing.assert_close(objective.ledger["elbo"], -plain, **TOLERANCE)


def test_divergences_are_those_of_the_exact_objective(vae, x):
    soft, exact = mi.RelaxedCategoricalELBO(), mi.MutualInformationELBO()
    for objective in (soft, exact):
        objective.loss(vae.model, vae.guide, x)
    for key in ("kl_c", "kl_z", "rate"):
        torch.testing.assert_close(soft.ledger[key], exact.ledger[key], **TOLERANCE)


def test_gumbel_at_low_temperature_is_the_exact_objective(vae, x):
    cold = mi.RelaxedCategoricalELBO(relaxation="gumbel", temperature=1e-3, max_plate_nesting=1)
    exact = mi.MutualInformationELBO(max_plate_nesting=1)
    with torch.no_grad():
        vae.model.decoder.layers[0].weight.mul_(3)
    (a, s), (b, t) = (mean_loss(objective, vae, x) for objective in (cold, exact))
    assert abs(a - b) < 4 * math.hypot(s, t) < 0.03 * b


def test_gumbel_sharpens_as_its_schedule_falls(vae, x):
    objective = mi.RelaxedCategoricalELBO(
        relaxation="gumbel", temperature=mi.linear_warmup(2, start=1.0, end=0.2)
    )
    state = objective.state_dict()
    for temperature in (1.0, 0.6, 0.2):
        objective.max_plate_nesting = 1
        loss = seeded_loss(objective, vae, x)
        torch.testing.assert_close(loss, by_hand(vae, x, gumbel(temperature)), **TOLERANCE)
        objective.loss_and_grads(vae.model, vae.guide, x)
    assert objective.temperature() == pytest.approx(0.2)
    objective.load_state_dict(state)
    assert objective.temperature() == 1.0


@pytest.mark.parametrize("relaxation", ["soft", "gumbel"])
@pytest.mark.parametrize("options", [{}, {"num_particles": 3}])
@pytest.mark.parametrize("vectorize", [False, True])
def test_beside_an_information_term(vae, x, relaxation, options, vectorize):
    objective = mi.RelaxedCategoricalELBO(
        [mi.BarberAgakov("c", weight=2.0)],
        relaxation=relaxation,
        vectorize_particles=vectorize,
        max_plate_nesting=1,
        **options,
    )
    loss = seeded_loss(objective, vae, x).detach()
    entries = objective.ledger
    torch.testing.assert_close(loss, -entries["elbo"] - 2 * entries["mi_c_mean"])
    exact = mi.MutualInformationELBO(max_plate_nesting=1)
    exact.loss(vae.model, vae.guide, x)
    torch.testing.assert_close(entries["rate"], exact.ledger["rate"], **TOLERANCE)


class IndexPrior(PyroModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("means", torch.eye(K))

    def forward(self):
        c = pyro.sample("c", dist.Categorical(torch.ones(K)))
        return pyro.sample("z", dist.Normal(self.means[c.long()], 1.0).to_event(1))


class IndexGuide(PyroModule):
    def __init__(self, infer):
        super().__init__()
        self.infer = infer

    def forward(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(K)), infer=self.infer)
            pyro.sample("z", dist.Normal(torch.eye(K)[c.long()], 1.0).to_event(1))


@pytest.mark.parametrize(
    ("infer", "message"),
    [
        ({"enumerate": "parallel"}, "relaxed on the simplex, but its site is Categorical"),
        ({}, "annotate it with infer"),
    ],
)
def test_categories_that_cannot_be_relaxed(x, infer, message):
    vae = mi.CatVAE(SHAPE, prior=IndexPrior(), guide=IndexGuide(infer), categorical="soft")
    with pytest.raises(SiteError, match=message):
        vae.objective().loss(vae.model, vae.guide, x)


def test_models_that_cannot_be_drawn_without_decoding(vae, x):
    with pytest.raises(SiteError, match="needs a GenerativeModel"):
        mi.RelaxedCategoricalELBO().loss(lambda x: vae.model(x), vae.guide, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": "hard"}, "relaxation='hard'; allowed are soft, gumbel"),
        (
            {"relaxation": "gumbel", "temperature": 0.0},
            "temperature=0.0; allowed .* above 0",
        ),
        ({"relaxation": "gumbel", "temperature": math.nan}, "temperature=nan; allowed"),
        ({"kl_weights": {"z": -1.0}}, "from 0 up"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        mi.RelaxedCategoricalELBO(**options)
