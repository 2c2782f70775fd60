"""Targets in place of weights: the dual ascent, and the saddle point that it ends in."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.schedules import Weight

pytestmark = pytest.mark.usefixtures("double")
VARIANCES, NOISE = torch.tensor([4.0, 2.0], dtype=torch.float64), 0.5


class LinearPair(PyroModule):
    """A linear decoder with fixed noise, and the guide that suits it."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.spread = nn.Parameter(torch.zeros(2))

    @pyro.nn.pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    @pyro.nn.pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.Normal(self.encoder(x), self.spread.exp())
            pyro.sample("z", fn.to_event(1))


def data(count):
    """Data whose covariance is exactly the diagonal matrix of the variances."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / count)).T
    return x * VARIANCES.sqrt()


def rate_of(beta):
    """Rate of the optimal linear pair: that of probabilistic PCA with the noise beta sigma^2."""
    return 0.5 * (VARIANCES / (beta * NOISE**2)).log().clamp(min=0).sum()


def test_the_rate_of_the_linear_pair_is_held_at_the_closed_form_weight():
    """Reverse water-filling: at 1 nat both directions are in use, at the weight 4.16."""
    target = 1.0
    beta = (VARIANCES.prod() / NOISE**4).sqrt() * math.exp(-target)
    torch.testing.assert_close(rate_of(beta), torch.tensor(target))
    torch.manual_seed(1)
    pair, x = LinearPair(), data(2000)
    elbo = mi.MutualInformationELBO(
        kl_weights={"z": mi.Target(target, speed=0.02)}, max_plate_nesting=1
    )
    adam = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.9985}
    )
    svi = mi.SVI(pair.model, pair.guide, adam, elbo)
    rates, weights = [], []
    for step in range(1500):
        svi.step(x)
        adam.step()
        if step >= 1300:
            rates.append(float(svi.ledger["rate"]) / len(x))
            weights.append(float(svi.ledger["weight_kl_z"]) / len(x))
    assert sum(rates) / len(rates) == pytest.approx(target, rel=0.01)
    assert sum(weights) / len(weights) == pytest.approx(float(beta), rel=0.03)


def test_the_weight_moves_as_the_equations_say():
    target = mi.Target(2.0, speed=0.3, start=0.5, window=4, bounds=(0.1, 0.9))
    weights = Weight(target), Weight(target, rises_below=True)
    gap, logs = [0.0, 0.0], [math.log(0.5)] * 2
    for value in (3.0, 2.5, 40.0, 0.5, 1.0, 1.9, -7.0):
        for place, weight in enumerate(weights):
            weight.see(torch.tensor(value))
            weight.ascend()
            sign = 1 - 2 * place
            gap[place] += (min(max(sign * (value - 2) / 2, -1), 1) - gap[place]) / 4
            logs[place] = min(max(logs[place] + 0.3 * gap[place], math.log(0.1)), math.log(0.9))
            assert float(weight()) == pytest.approx(math.exp(logs[place]))
    weights[0].see(None)  # counts as the target
    weights[0].ascend()
    assert float(weights[0].gap) == pytest.approx(0.75 * gap[0])


@pytest.mark.parametrize(("value", "side", "bound"), [(1e3, "below", 0.5), (0.01, "above", 4.0)])
def test_a_target_out_of_reach_ends_at_a_bound(value, side, bound):
    pair, x = LinearPair(), data(50)
    target = mi.Target(value, speed=0.5, bounds=(0.5, 4.0))
    elbo = mi.MutualInformationELBO(kl_weights={"z": target}, max_plate_nesting=1)
    svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-5}), elbo)
    assert elbo.limits == []
    for _ in range(40):
        svi.step(x)
    assert float(elbo.kl_weights["z"]()) == pytest.approx(bound)
    (limit,) = elbo.limits
    assert limit.startswith(f"kl_z: the value stays {side} the target of {value:g} nats")
    assert limit.endswith(f"at its bound, {bound:g}")


def test_training_alone_moves_the_weight():
    pair, x = LinearPair(), data(20)
    elbo = mi.MutualInformationELBO(kl_weights={"z": mi.Target(0.1)}, max_plate_nesting=1)
    weight = elbo.kl_weights["z"]
    elbo.loss(pair.model, pair.guide, x)
    elbo.differentiable_loss(pair.model, pair.guide, x)
    assert float(weight()) == 1.0
    elbo.loss_and_grads(pair.model, pair.guide, x)
    assert float(weight()) > 1.0
    rate = float(elbo.ledger["kl_z"]) / len(x)
    assert float(weight.gap) == pytest.approx(min((rate - 0.1) / 0.1, 1.0) / 10)


def test_both_kinds_of_svi_take_the_same_steps():
    ends = []
    for kind in (pyro.infer.SVI, mi.SVI):
        pyro.clear_param_store()
        torch.manual_seed(2)
        pair = LinearPair()
        elbo = mi.MutualInformationELBO(
            [mi.BarberAgakov("z", generated="relaxed", weight=mi.Target(0.7))],
            {"z": mi.Target(0.5)},
            max_plate_nesting=1,
        )
        svi = kind(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.02}), elbo)
        pyro.set_rng_seed(3)
        losses = [svi.step(data(30)) for _ in range(12)]
        ends.append([*losses, *(float(w()) for w in (elbo.kl_weights["z"], elbo.terms[0].weight))])
    assert ends[0] == pytest.approx(ends[1], rel=1e-10)
    assert ends[0][-2] != 1.0 != ends[0][-1]


def test_sites_that_share_a_target_are_held_together():
    vae = mi.InfomaxVAE((1, 4, 4), latent_dim=3, code_dim=1).double()
    target, x = mi.Target(5.0, window=1, speed=1.0), torch.rand(8, 1, 4, 4)
    elbo = mi.MutualInformationELBO(kl_weights={"z": target, "c": target}, max_plate_nesting=1)
    elbo.loss_and_grads(vae.model, vae.guide, x)
    weight = elbo.kl_weights["z"]
    assert weight is elbo.kl_weights["c"]
    rate = float(elbo.ledger["rate"]) / 8
    assert float(weight.seen) == pytest.approx(rate)
    assert float(weight()) == pytest.approx(math.exp((rate - 5) / 5))
    assert float(elbo.ledger["weight_kl_z"]) == 8.0  # that of the step
    assert "weight_kl_c" not in elbo.ledger
    apart = {"z": mi.Target(5.0), "c": mi.Target(5.0)}
    elbo = mi.MutualInformationELBO(kl_weights=apart, max_plate_nesting=1)
    elbo.loss(vae.model, vae.guide, x)
    assert {"weight_kl_z", "weight_kl_c"} <= elbo.ledger.keys()
    beta = mi.BetaVAE((1, 4, 4), beta=mi.Target(5.0), prior=mi.MixturePrior(3, 6, 1.0))
    objective = beta.objective()
    assert len(set(objective.kl_weights.values())) == 1


def test_information_in_a_game_is_held(double):
    vae = mi.InfoGAN((1, 8, 8), num_categories=3, code_dim=0, mi_weight=mi.Target(1.0)).double()
    objective = vae.objective()
    objective.loss_and_grads(vae.model, vae.guide, torch.rand(8, 1, 8, 8))
    information = float(objective.ledger["mi_c_mean"]) / 8
    weight = objective.weights["c"]
    assert float(weight()) == pytest.approx(math.exp(0.02 * min(max(1 - information, -1), 1) / 10))
    assert float(objective.ledger["weight_mi_c_mean"]) == 8.0


def test_it_is_written_out():
    elbo = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=mi.Target(2.0, start=3.0))], {"z": mi.Target(20.0)}
    )
    told = mi.explain(elbo)
    assert "- (held at 20 nats, from 1) * KL(q(z|x) || p(z))" in told
    assert "+ (held at or above 2 nats, from 3) * (E_p[log q(c|x')] + H(c))" in told
    elbo.kl_weights["z"].current.fill_(1.5)
    assert "(held at 20 nats, now 1.5)" in mi.explain(elbo)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: mi.Target(0), "value=0; a target is a number of nats other than 0"),
        (lambda: mi.Target(math.nan), "value=nan; allowed are finite numbers"),
        (lambda: mi.Target(1.0, speed=0.0), "speed=0.0; allowed are .* above 0"),
        (lambda: mi.Target(1.0, window=0), "window=0; allowed are whole numbers from 1 up"),
        (lambda: mi.Target(1.0, start=0.0), "start=0.0; allowed are .* above 0"),
        (lambda: mi.Target(1.0, bounds=(0.0, 1.0)), r"bounds\[0\]=0.0; allowed are .* above 0"),
        (lambda: mi.Target(1.0, bounds=(2.0, 3.0)), "start=1.0 and bounds="),
        (lambda: mi.Target(1.0, bounds=(0.5, 1.0, 2.0)), "start=1.0 and bounds="),
        (
            lambda: mi.MutualInformationELBO(kl_weights={"z": mi.Target(-1.0)}),
            r"kl_weights\['z'\]=Target.*allowed are targets above 0 nats here",
        ),
        (lambda: mi.weigh_sites(print, {"z": mi.Target(1.0)}), "allowed are finite numbers"),
        (lambda: mi.RelaxedCategoricalELBO(temperature=mi.Target(1.0)), "allowed are finite"),
    ],
)
def test_bad_options(make, told):
    with pytest.raises(OptionError, match=told):
        make()


def test_what_has_no_value_to_hold_is_refused():
    pair, x = LinearPair(), data(5)
    elbo = mi.MutualInformationELBO(kl_weights={"z": mi.Target(1.0)}, max_plate_nesting=1)
    with pytest.raises(SiteError, match="the first argument of model and guide has no length"):
        elbo.loss(lambda: pair.model(x), lambda: pair.guide(x))
    vae = mi.InfomaxVAE((1, 4, 4), latent_dim=3, deterministic=True).double()
    elbo = mi.MutualInformationELBO(kl_weights={"c": mi.Target(1.0)}, max_plate_nesting=1)
    with pytest.raises(SiteError, match="the divergence of 'c', which is a point mass"):
        elbo.loss(vae.model, vae.guide, torch.rand(4, 1, 4, 4))
