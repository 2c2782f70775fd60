"""Two players, one bound: what each learns, and whether the critic hears what there is."""

import copy
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae import bounds
from pyro_mivae.errors import OptionError, PyroMivaeWarning, ShapeError, SiteError, TrainingError
from pyro_mivae.networks import Critic, JointCritic, SeparableCritic
from pyro_mivae.terms import CriticBound, Particle, Penalty, ScoreBound
from pyro_mivae.terms.critic import Permutations
from pyro_mivae.traces import TracePair

D = 3
BOUNDS = {
    "nwj": {},
    "tuba": {"baseline": True},
    "donsker-varadhan": {},
    "mine": {},
    "infonce": {},
    "interpolated": {"alpha": 0.3, "baseline": True},
    "jensen-shannon": {},
    "smile": {"clip": 2.0},
}


pytestmark = pytest.mark.usefixtures("double")


class Linear(PyroModule):
    """x ~ N(0, I); z | x ~ N(gain x, 1): the information is known."""

    def __init__(self, gain=1.0, dim=D):
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), gain))
        self.dim = dim

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.gain * x, torch.ones(self.dim)).to_event(1))

    def information(self):
        return 0.5 * torch.log1p(self.gain**2).sum()


class Optimal(Critic):
    """log q(z|x) / q(z) + 1, of a `Linear` pair."""

    def __init__(self, pair):
        super().__init__((pair.dim,), pair.dim)
        self.pair = pair

    def forward(self, x, code):
        gain = self.pair.gain
        own = dist.Normal(gain * x, 1.0).log_prob(code)
        return 1 + (own - dist.Normal(0.0, (1 + gain**2).sqrt()).log_prob(code)).sum(-1)


@pytest.fixture
def x():
    return torch.randn(80, D, generator=torch.Generator().manual_seed(3))


def make_critic(seed=0):
    torch.manual_seed(seed)
    return JointCritic((D,), D, (8, 8))


def run(pair, x, seed=5):
    if seed is not None:
        torch.manual_seed(seed)
    traces = TracePair.run(pair.model, pair.guide, (x,), {}, max_plate_nesting=1)
    return Particle(pair.model, pair.guide, (x,), {}, traces)


def gradients(value, parameters):
    return torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)


# Whose gradient is whose


@pytest.mark.parametrize(
    ("bound", "weight"),
    [("nwj", 0.0), ("infonce", 7.0), ("nwj", mi.linear_warmup(10, start=0.5))]
    + [(bound, 0.25) for bound in BOUNDS],
)
def test_each_player_has_its_own_gradient(x, bound, weight):
    """Against two losses written by hand, one with the codes and one with the critic held."""
    pair, critic, options = Linear(0.7), make_critic(), dict(BOUNDS[bound])
    if "baseline" in options:
        options["baseline"] = nn.Linear(D, 1)
    of_scores = ScoreBound(bound, **options)
    term = CriticBound("z", critic=critic, bound=of_scores, weight=weight, seed=1)
    term._state.eval()  # MINE's average takes no part
    particle = run(pair, x)
    gain, _ = term.contribute(particle)
    code = particle.traces.guide.nodes["z"]["value"]

    def by_hand(code, critic):
        partner = Permutations(1)(len(x), x.device, training=False)
        joint, marginal = critic(x, code), critic(x, code[partner])
        log_a = options["baseline"](code).squeeze(-1) if "baseline" in options else None
        scores = critic.all_pairs(x, code)
        return {
            "nwj": lambda: bounds.nwj_bound(joint, marginal),
            "tuba": lambda: bounds.tuba_bound(joint, marginal, log_a, log_a[partner]),
            "donsker-varadhan": lambda: bounds.donsker_varadhan_bound(joint, marginal),
            "mine": lambda: bounds.donsker_varadhan_bound(joint, marginal),
            "infonce": lambda: bounds.infonce_bound(scores),
            "interpolated": lambda: bounds.interpolated_bound(scores, log_a, alpha=0.3),
            "jensen-shannon": lambda: bounds.jensen_shannon_estimate(joint, marginal),
            "smile": lambda: bounds.smile_estimate(joint, marginal, clip=2.0),
        }[bound]()

    present = 0.5 if callable(weight) else weight
    held = make_critic().requires_grad_(False)
    of_critic = gradients(80 * by_hand(code.detach(), critic), critic.parameters())
    torch.testing.assert_close(gradients(gain, critic.parameters()), of_critic)
    (of_guide,) = gradients(present * 80 * by_hand(code, held), [pair.gain])
    torch.testing.assert_close(gradients(gain, [pair.gain])[0], of_guide)
    torch.testing.assert_close(gain.detach(), present * 80 * by_hand(code, critic).detach())


def test_regularisation_of_the_critic_is_its_own(x):
    pair, critic = Linear(0.7), make_critic()

    def large(joint, marginal):
        return joint.square().mean() + marginal.square().mean()

    def term(**options):
        return CriticBound("z", critic=critic, pairs="all", **options)

    plain, _ = term().contribute(run(pair, x))
    regular = term(regularization=large, regularization_strength=3.0)
    gain, ledger = regular.contribute(run(pair, x))
    scores = critic.all_pairs(x, run(pair, x).traces.guide.nodes["z"]["value"].detach())
    extra = 80 * 3 * large(scores.diagonal(), bounds.off_diagonal(scores))
    slopes = (gradients(value, critic.parameters()) for value in (plain, gain))
    difference = [a - b for a, b in zip(*slopes, strict=True)]
    torch.testing.assert_close(tuple(difference), gradients(extra, critic.parameters()))
    torch.testing.assert_close(gradients(gain, [pair.gain]), gradients(plain, [pair.gain]))
    torch.testing.assert_close(gain, plain)
    expected = extra.detach() - ledger["mi_z_critic"]
    torch.testing.assert_close(ledger["loss_critic_z"], expected)


def test_penalty_is_the_models(x):
    pair = Linear(0.7)

    def spread(particle):
        return particle.traces.guide.nodes["z"]["value"].square().sum()

    penalty = Penalty("z", function=spread, weight=2.0)
    elbo = mi.MutualInformationELBO([penalty], max_plate_nesting=1)
    torch.manual_seed(5)
    loss = elbo.differentiable_loss(pair.model, pair.guide, x)
    torch.manual_seed(5)
    plain = mi.MutualInformationELBO(max_plate_nesting=1)
    base = plain.differentiable_loss(pair.model, pair.guide, x)
    extra = float(elbo.ledger["penalty_z"])
    assert extra > 0
    torch.testing.assert_close(loss.detach(), base.detach() + 2 * extra)


def test_divergence_of_ones_own(x):
    """The KL written out as a penalty gives the ELBO's own loss."""
    pair = Linear(0.7)

    def kl(particle):
        guide, model = (t.nodes["z"]["fn"] for t in (particle.traces.guide, particle.traces.model))
        return torch.distributions.kl_divergence(guide, model).sum()

    ours = mi.MutualInformationELBO([Penalty("z", function=kl)], {"z": 0.0}, max_plate_nesting=1)
    plain = mi.MutualInformationELBO(max_plate_nesting=1)
    losses = []
    for elbo in (ours, plain):
        torch.manual_seed(5)
        losses.append(elbo.differentiable_loss(pair.model, pair.guide, x))
    torch.testing.assert_close(*losses)


# Registered, stepped, restored


def test_stock_svi_trains_the_critic_at_its_own_rate(x):
    pair, critic = Linear(0.7), make_critic()
    term = CriticBound("z", critic=critic, weight=0.0)
    before = [p.clone() for p in critic.parameters()]
    optimiser = pyro.optim.Adam(lambda name: {"lr": 0.25 if "critic" in name else 1e-9})
    elbo = mi.MutualInformationELBO([term])
    SVI(pair.model, pair.guide, optimiser, elbo).step(x)
    steps = [
        (p - b).detach().abs().max() for p, b in zip(critic.parameters(), before, strict=True)
    ]
    assert float(max(steps)) == pytest.approx(0.25, rel=1e-3)
    assert elbo.ledger["loss_critic_z"] == -elbo.ledger["mi_z_critic"]


def test_a_torch_optimiser_gets_the_critic_too(x):
    pair, critic = Linear(0.7), make_critic()
    baseline = nn.Linear(D, 1)
    term = CriticBound("z", critic=critic, bound=ScoreBound("tuba", baseline=baseline))
    loss_of = mi.MutualInformationELBO([term], max_plate_nesting=1)(pair, pair)
    owned = set(loss_of.parameters())
    assert owned == {*pair.parameters(), *critic.parameters(), *baseline.parameters()}


def test_mines_average_is_kept(x):
    elbo = mi.MutualInformationELBO([CriticBound("z", critic=make_critic(), bound="mine")])
    pair = Linear(0.7)
    elbo.loss_and_grads(pair.model, pair.guide, x)
    moved = elbo.state_dict()["mi_z_critic.average.log_sum"]
    assert moved.isfinite()
    elbo.loss(pair.model, pair.guide, x)  # evaluation leaves it alone
    assert elbo.state_dict()["mi_z_critic.average.log_sum"] == moved


def test_particles_and_the_plates_scale(x):
    pair, critic = Linear(0.7), make_critic()
    values = {}
    for vectorize in (False, True):
        elbo = mi.MutualInformationELBO(
            [CriticBound("z", critic=critic)], num_particles=100, vectorize_particles=vectorize
        )
        torch.manual_seed(0)
        elbo.loss(pair.model, pair.guide, x[:64])
        values[vectorize] = float(elbo.ledger["mi_z_critic"])
    one = CriticBound("z", critic=critic)
    draws = torch.stack([one(run(pair, x[:64], seed=None)).detach() for _ in range(9)])
    assert draws.std() > 0  # another permutation each time
    assert values[False] == pytest.approx(values[True], abs=8 * float(draws.std()) / 100**0.5)
    with pyro.poutine.scale(scale=2.5):
        scaled = CriticBound("z", critic=critic, seed=1)(run(pair, x))
    plain = CriticBound("z", critic=critic, seed=1)(run(pair, x))
    torch.testing.assert_close(scaled, 2.5 * plain)


def test_the_weight_of_the_divergence_is_not_the_terms(x):
    pair, critic = Linear(0.7), make_critic()
    ledgers = []
    for weight in (0.0, 1.0, 3.0):
        term = CriticBound("z", critic=critic, seed=1)
        elbo = mi.MutualInformationELBO([term], {"z": weight}, max_plate_nesting=1)
        torch.manual_seed(5)
        elbo.loss(pair.model, pair.guide, x)
        ledgers.append(elbo.ledger["mi_z_critic"])
    assert ledgers[0] == ledgers[1] == ledgers[2]


# What it hears


def test_the_best_critic_hears_all_but_the_bounds_own_error():
    pair = Linear(0.8)
    torch.manual_seed(0)
    particles = [run(pair, torch.randn(160, D), seed=None) for _ in range(40)]
    for bound in ("nwj", "donsker-varadhan", "tuba", "infonce", "interpolated"):
        term = CriticBound("z", critic=Optimal(pair), bound=bound, pairs="all")
        with torch.no_grad():
            values = torch.stack([term(p) / 160 for p in particles])
        error = float(values.std()) / 40**0.5
        assert float(values.mean()) == pytest.approx(
            float(pair.information().detach()), abs=4 * error + 0.02
        ), bound


def test_a_trained_critic_comes_close():
    """One of 1.0 nats, learnt by stock SVI beside a guide that stands still."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    pair = Linear((math.exp(2 * 1.0 / D) - 1) ** 0.5)
    assert float(pair.information().detach()) == pytest.approx(1.0)
    critic = SeparableCritic((D,), D, (64,))
    elbo = mi.MutualInformationELBO([CriticBound("z", critic=critic, bound="infonce", weight=0.0)])
    optimiser = pyro.optim.Adam(lambda name: {"lr": 6e-3 if "critic" in name else 1e-12})
    svi = SVI(pair.model, pair.guide, optimiser, elbo)
    for _ in range(150):
        svi.step(torch.randn(128, D))
    heard = []
    for _ in range(10):
        elbo.loss(pair.model, pair.guide, torch.randn(512, D))
        heard.append(float(elbo.ledger["mi_z_critic"]) / 512)
    assert 0.8 < sum(heard) / 10 < 1.03


def test_partners_are_a_permutation_without_a_fixed_point():
    cpu, partners = torch.device("cpu"), Permutations(0)
    seen = torch.zeros(5, 5)
    for _ in range(400):
        partner = partners(5, cpu, training=True)
        assert sorted(partner.tolist()) == list(range(5))
        assert not (partner == torch.arange(5)).any()
        seen[torch.arange(5), partner] += 1
    others = seen[~torch.eye(5, dtype=torch.bool)]
    assert others.min() > 100 - 5 * math.sqrt(400 * 0.25 * 0.75)  # 4 others, equally often
    again, first = Permutations(0), Permutations(0)
    for n in (5, 7):
        assert torch.equal(again(n, cpu, training=True), first(n, cpu, training=True))


# What cannot be


def test_small_batches(x):
    pair, term = Linear(), CriticBound("z", critic=make_critic())
    with pytest.raises(ShapeError, match="a batch of 1 given to CriticBound"):
        term(run(pair, x[:1]))
    with pytest.warns(PyroMivaeWarning, match="a batch of 63 for CriticBound"):
        term(run(pair, x[:63]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        term(run(pair, x[:5]))  # once is enough
        CriticBound("z", critic=make_critic())(run(pair, x[:64]))


class Discrete(Linear):
    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            super_z = dist.Normal(c[..., None] * torch.ones(self.dim), 1.0)
            z = pyro.sample("z", super_z.to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(0.5), infer=self.infer)
            pyro.sample("z", dist.Normal(self.gain * x, torch.ones(self.dim)).to_event(1))


@pytest.mark.parametrize("infer", [{}, {"enumerate": "parallel"}])
def test_discrete_sites_are_not_for_it(x, infer):
    pair = Discrete()
    pair.infer = infer
    with pytest.raises(SiteError, match="'c' is discrete, or drawn beside.*use BarberAgakov"):
        CriticBound("c", critic=make_critic())(run(pair, x))


def test_unknown_site(x):
    with pytest.raises(
        SiteError, match=r"CriticBound names the site 'y'; the latent sites are \['z'\]"
    ):
        CriticBound("y", critic=make_critic())(run(Linear(), x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": "nwjj"}, "bound='nwjj'; allowed are nwj, tuba"),
        (
            {"bound": "infonce", "pairs": "permutation"},
            "pairs='permutation' with bound",
        ),
        ({"weight": -1.0}, "weight=-1.0; allowed .* from 0 up"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        CriticBound("z", critic=make_critic(), **options)


def test_options_that_a_bound_has_no_use_for():
    with pytest.raises(OptionError, match="clip is given, but bound='nwj' has no such option"):
        ScoreBound("nwj", clip=1.0)
    with pytest.raises(OptionError, match="alpha is given, but bound='infonce'"):
        ScoreBound("infonce", alpha=0.1)


def test_scores_that_explode_are_named(x):
    """The term is infinite, not NaN, and fit stops with its name and the weights from before."""
    torch.set_default_dtype(torch.float32)
    pair, critic, x = Linear(), make_critic(), x.float()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(20)
    assert critic(x, x).abs().max() > 200  # e^200 is not a float32
    _, ledger = CriticBound("z", critic=critic).contribute(run(pair, x))
    assert ledger["mi_z_critic"] == -torch.inf
    vae = mi.CriticInfomaxVAE(
        (D,), latent_dim=D, critic=critic, bound="nwj", likelihood="gaussian"
    )
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(TrainingError, match=r"step 1 \(.*mi_z_critic = -inf.*before the first"):
        mi.fit(vae, x, epochs=1, batch_size=80)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name])
