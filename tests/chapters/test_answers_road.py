"""Answers to the exercises of the road and of chapters 1 to 4."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Bernoulli, ContinuousBernoulli, kl_divergence

import pyro_mivae as mi


def test_00a_1_lamps_of_another_room():
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    lit = torch.tensor([0.5, 0.9])
    log_p = Bernoulli(lit[:, None]).log_prob(patterns[:, None].expand(-1, 2, -1)).sum(-1)
    joint = log_p + math.log(1 / 2)
    posterior = joint - joint.logsumexp(1, keepdim=True)
    information = (joint.exp() * (posterior + math.log(2))).sum()
    # Less than the 0.64 nats of before: the two states are more alike.
    assert abs(information - 0.315) < 1e-3


def test_00a_2_a_rate_for_another_posterior(chapter):
    table = chapter("00a").Table(10)
    x = torch.rand(20, 64).round()
    joint = table.log_joint(x)  # (20, 10)
    log_prior = table.prior_logits.log_softmax(0)
    q = torch.full((20, 10), 0.1)
    rate = (q * (q.log() - log_prior)).sum(1)
    distortion = -(q * (joint - log_prior)).sum(1)
    surprise = -joint.logsumexp(1)
    # The difference is the divergence from the posterior: the gap of the ELBO.
    posterior = joint.log_softmax(1)
    gap = (q * (q.log() - posterior)).sum(1)
    torch.testing.assert_close(rate + distortion, surprise + gap)
    assert (gap > 0).all()


def test_00a_3_a_row_for_each_training_image():
    digits = mi.load_dataset("digits", binarize="fixed")
    train, test = digits.x_train.flatten(1), digits.x_test.flatten(1)
    probs = 0.1 + 0.8 * train  # (1438, 64)
    logits, dark = probs.logit(), (1 - probs).log().sum(1)
    seen, unseen = (
        math.log(len(train)) - (x @ logits.T + dark).logsumexp(1).mean() for x in (train, test)
    )
    # A training image finds its own row: log 1438 to name it, and 64 times -log 0.9. A test image
    # finds none that is made for it. The table has learned by heart.
    assert seen < math.log(1438) - 64 * math.log(0.9)
    assert unseen > seen + 5


def test_00b_1_a_mean_for_each_day():
    x = torch.randn(5, 3)

    def june(x):
        with pyro.plate("days", len(x)):
            mu = pyro.sample("mu", dist.Normal(15.0, 5.0))  # (5,): a temperature for each day
            readings = dist.Normal(mu.unsqueeze(-1), 2.0).expand([len(x), 3])
            pyro.sample("x", readings.to_event(1), obs=x)

    trace = poutine.trace(june).get_trace(x)
    trace.compute_log_prob()
    # Days no longer tell each other anything: five separate posteriors.
    assert trace.nodes["mu"]["fn"].batch_shape == (5,)
    assert trace.nodes["x"]["log_prob"].shape == (5,)


def test_00b_2_the_posterior_has_no_noise(chapter):
    june = chapter("00b").june
    x = torch.tensor([[18.9, 19.4, 19.0], [21.3, 20.8, 22.0]])
    precision = 1 / 25 + 6 / 4
    posterior = dist.Normal((15 / 25 + x.sum() / 4) / precision, precision**-0.5)

    def guide(x):
        pyro.sample("mu", posterior)

    losses = torch.tensor([Trace_ELBO().loss(june, guide, x) for _ in range(10)])
    # log p(mu, x) - log p(mu | x) is log p(x), at whatever mu was drawn.
    assert losses.std() < 1e-4


def test_00b_3_the_store_outlives_a_program(chapter):
    names = chapter("00b")
    svi = names.SVI(names.june, names.guide, names.Adam({"lr": 0.05}), loss=Trace_ELBO())
    svi.step(torch.randn(2, 3))
    moved = pyro.param("loc").detach().clone()
    # A second program that asks for "loc" finds the trained one, whatever start it gives.
    assert moved != 15
    assert pyro.param("loc", torch.tensor(0.0)) == moved
    pyro.clear_param_store()
    assert pyro.param("loc", torch.tensor(0.0)) == 0


@pytest.mark.usefixtures("double")
def test_00c_1_a_second_observation():
    w, s, x = 2.0, 1.0, torch.tensor([3.0, 1.0])
    z = torch.linspace(-8, 8, 4001)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z)
    log_joint = log_joint + dist.Normal(w * z, s).log_prob(x[:, None]).sum(0)
    posterior = log_joint.softmax(0)
    mean = (posterior * z).sum()
    variance = (posterior * (z - mean) ** 2).sum()
    # Precisions add: 1 / variance = 1 + n w^2 / s^2, so the variance falls like 1 / n.
    torch.testing.assert_close(1 / variance, torch.tensor(1 + 2 * w**2 / s**2))
    torch.testing.assert_close(mean, w * x.sum() / s**2 * variance)


@pytest.mark.usefixtures("double")
def test_00c_2_a_guide_that_ignores_the_datum():
    w, s = 2.0, 1.0
    posterior = dist.Normal(torch.tensor(0.0), s / math.sqrt(w**2 + s**2))
    x = math.sqrt(w**2 + s**2) * torch.randn(20_000)
    loc = w * x / (w**2 + s**2)
    gap = kl_divergence(dist.Normal(torch.zeros_like(x), 1.0), dist.Normal(loc, posterior.scale))
    # KL(prior || posterior), averaged: (v + m^2) / 2 v' - 1/2 + log(v' / v) / 2 with v = 1,
    # v' = s^2 / (w^2 + s^2) = 1 / 5 and E m^2 = w^2 / (w^2 + s^2) = 4 / 5.
    predicted = 4.0 - math.log(5) / 2
    assert abs(gap.mean() - predicted) < 4 * gap.std() / len(x) ** 0.5


@pytest.mark.usefixtures("double")
def test_00c_3_too_narrow_is_worse_than_too_wide():
    posterior = dist.Normal(0.0, 1.0)

    def spread(scale):
        q = dist.Normal(0.0, scale)
        draws = q.sample((20_000,))
        return (posterior.log_prob(draws) - q.log_prob(draws)).exp().square().mean()

    # The mean squared weight is finite only if the variance of q exceeds half the posterior's.
    # Draws where q is too small are rare and weigh enormously: a sample hardly ever sees them.
    wide = spread(2.0)
    exact = 4 / math.sqrt(7)  # sigma^2 / sqrt(2 sigma^2 - 1)
    assert abs(wide - exact) < 0.1
    narrow = dist.Normal(0.0, 0.5)
    tail = torch.tensor([0.0, 1.0, 2.0, 4.0])
    weight = posterior.log_prob(tail) - narrow.log_prob(tail)
    assert (weight.diff() > 0).all()
    assert weight[-1] > 20


def test_00d_2_units_change_nats_of_densities():
    sensors = torch.randn(1000, 6)
    metres = dist.Normal(0.0, 1.0).expand([6]).to_event(1)
    millimetres = dist.Normal(0.0, 1000.0).expand([6]).to_event(1)
    change = millimetres.log_prob(1000 * sensors) - metres.log_prob(sensors)
    # A density is per unit: log 1000 for each of six sensors. Compare nats in one unit only.
    torch.testing.assert_close(change, torch.full((1000,), -6 * math.log(1000)))


def test_00d_3_more_levels_cost_more_nats():
    grey = torch.rand(50, 1, 8, 8).mul(16).round() / 16
    levels = mi.CategoricalLikelihood(17)(torch.zeros(50, 1, 8, 8, 17)).log_prob(grey)
    bits = mi.BernoulliLikelihood()(torch.zeros(50, 1, 8, 8)).log_prob(grey)
    # Knowing nothing costs log 17 nats for a level, and log 2 for a yes-or-no question.
    torch.testing.assert_close(levels, torch.full_like(levels, -math.log(17)))
    torch.testing.assert_close(bits, torch.full_like(bits, -math.log(2)))


@pytest.mark.usefixtures("double")
def test_00d_1_a_missing_cause():
    mixing = torch.tensor(np.random.default_rng(0).normal(size=(2, 6)))
    covariance = mixing.T @ mixing + 0.25 * torch.eye(6)
    values, vectors = torch.linalg.eigh(covariance)  # rising
    noise = values[:5].mean()  # the variance that is left over, shared by five directions
    best = noise * torch.eye(6) + (values[5] - noise) * torch.outer(vectors[:, 5], vectors[:, 5])
    # KL(truth || best) of two normals; their trace term is 6, so the logarithms remain.
    truth = dist.MultivariateNormal(torch.zeros(6), covariance)
    cost = kl_divergence(truth, dist.MultivariateNormal(torch.zeros(6), best))
    torch.testing.assert_close(cost, 0.5 * (5 * noise.log() - values[:5].log().sum()))
    assert cost > 0.2


@pytest.mark.usefixtures("double")
def test_01_1_a_full_covariance_closes_the_gap(chapter):
    model = chapter("01").LinearModel(degrees=30)
    x = model.draw(50)
    posterior = model.posterior(x)
    # The posteriors of all data share one covariance, and their means are linear in the datum:
    # a linear layer and one scale_tril hold the exact posterior, so the best gap is 0.
    precision = torch.eye(2) + model.weight.T @ model.weight / model.noise**2
    scale_tril = torch.linalg.cholesky(torch.linalg.inv(precision))
    layer = torch.linalg.inv(precision) @ model.weight.T / model.noise**2
    q = dist.MultivariateNormal(x @ layer.T, scale_tril=scale_tril)
    assert kl_divergence(q, posterior).abs().max() < 1e-9


@pytest.mark.usefixtures("double")
def test_01_2_the_sampled_loss_is_the_less_noisy(chapter):
    names = chapter("01")
    model, guide = names.LinearModel(degrees=90), names.LinearGuide()
    x = model.draw(200)
    precision = torch.eye(2) + model.weight.T @ model.weight / model.noise**2
    with torch.no_grad():
        guide.loc.weight.copy_(torch.linalg.solve(precision, model.weight.T / model.noise**2))
        guide.loc.bias.zero_()
        guide.log_scale.copy_(-0.5 * precision.diag().log())
    scatter = {
        loss: torch.tensor([loss().loss(model, guide, x) for _ in range(10)]).std()
        for loss in (Trace_ELBO, TraceMeanField_ELBO)
    }
    # Sampled, both parts scatter and their noise cancels: the sum is log p(x) at every draw.
    assert scatter[Trace_ELBO] < 1e-9
    assert scatter[TraceMeanField_ELBO] > 1


@pytest.mark.usefixtures("double")
def test_01_3_the_learning_rate_of_a_mini_batch(chapter):
    names = chapter("01")
    model, guide = names.LinearModel(degrees=90), names.LinearGuide()
    x = model.draw(512)

    def gradient(x):
        loss = -names.exact_elbo(model, guide, x).sum()
        (found,) = torch.autograd.grad(loss, guide.loc.weight)
        return found

    batches = torch.stack([gradient(part) for part in x.split(64)])
    # The loss is a sum, so a batch of 64 has an eighth of the gradient: take 8 times the rate.
    torch.testing.assert_close(8 * batches.mean(0), gradient(x))


def test_02_1_bits_per_dimension():
    nats = 64 * math.log(2)  # of 64 fair coins
    bits = nats / (64 * math.log(2))
    assert bits == 1  # a coin is a bit, and a pixel a dimension


def test_02_2_the_continuous_bernoulli_is_a_density():
    x = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    density = ContinuousBernoulli(torch.tensor(0.05, dtype=torch.float64)).log_prob(x).exp()
    assert abs(torch.trapezoid(density, x) - 1) < 1e-6
    # Above 1 where it is high, so the logarithm is positive: nats of a density may be negative.
    assert density.max() > 1


def test_02_3_the_number_of_levels_is_part_of_the_protocol():
    p = torch.rand(16)
    p = p / p.sum()  # of sixteen levels
    merged = p.reshape(8, 2).sum(1)
    entropy, coarse = ((-q * q.log()).sum() for q in (p, merged))
    # H(levels) = H(pairs) + H(which of the pair): between nothing and log 2 for each pixel.
    assert coarse < entropy < coarse + math.log(2)


def annealing(chapter):
    """Chapter 3's functions, about one dimension: z ~ N(0, 1), x ~ N(2 z, 1), q too narrow."""
    names = chapter("03")
    one = {"D": 1, "W": torch.tensor([[2.0]]), "noise": 1.0, "scale_q": torch.tensor([0.3])}
    names.anneal.__globals__.update(one, mean_of=torch.tensor([[0.4]]))
    x = torch.linspace(-3, 3, 20)[:, None]
    return names, x, dist.Normal(0.0, 5**0.5).log_prob(x).sum(-1)


@pytest.mark.usefixtures("double")
def test_03_1_one_step_is_importance_sampling(chapter):
    names, x, _ = annealing(chapter)
    z = names.draw_q(x, 4)
    log_w = names.anneal(x, z, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(log_w, names.log_joint(z, x) - names.log_q(z, x))


@pytest.mark.usefixtures("double")
def test_03_2_chains_that_never_move(chapter):
    names, x, _ = annealing(chapter)
    z = names.draw_q(x, 4)
    # All is refused, so the terms of the path add up to the weight of the first draw: the bound
    # is no worse than importance sampling with as many draws, and still a bound.
    log_w = names.anneal(x, z, torch.linspace(0, 1, 11), step=1e6)
    torch.testing.assert_close(log_w, names.log_joint(z, x) - names.log_q(z, x))


@pytest.mark.usefixtures("double")
def test_03_3_backwards_from_a_draw_of_the_guide(chapter):
    names, x, log_px = annealing(chapter)
    backwards = torch.tensor([1.0, 0.0])
    codes = names.draw_q(x, 4000)
    wrong = -names.log_mean_exp(names.anneal(x, codes, backwards))
    posterior = dist.Normal(0.4 * x, 5**-0.5)
    right = -names.log_mean_exp(names.anneal(x, posterior.sample((4000,)), backwards))
    # Only an exact draw of the posterior makes it a bound from above.
    assert (wrong - log_px).mean() < -0.1
    assert (right - log_px).mean() > -0.05


def test_04_1_the_information_of_a_category():
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])
    entropies = -torch.xlogy(q, q).sum(1)
    marginal = q.mean(0)
    information = -torch.xlogy(marginal, marginal).sum() - entropies.mean()
    # Half of the data are told apart for certain, the others not at all: half of log 2. At most
    # it is log K, if all categories are equally frequent and each datum has one for certain.
    assert abs(information - math.log(2) / 2) < 1e-6


@pytest.mark.usefixtures("double")
def test_04_2_leave_one_out_without_overlap(chapter):
    names = chapter("04")
    names.bounds.__globals__["D"] = 4
    sharp = names.Channel(information=12.0)
    x = sharp.draw(300)
    lower, upper = names.bounds(sharp.posterior(x))
    # Each code is far from all other posteriors: the bound from above is above the rate, 12.
    # The rate is a bound from above as well, and the report takes the smaller one.
    assert upper.mean() > 13
    assert lower.mean() <= math.log(300)
    few = {"generative_items": 0, "iwae_samples": 1, "subset": 20}
    report = mi.information(sharp.model, sharp.guide, x, **few)
    assert report["mi_upper"] == report["rate"] < 13


def test_04_3_dimensions_that_say_the_same():
    v = 0.1  # x ~ N(0, 1); z1 and z2 given x ~ N(x, v), apart
    each = 0.5 * math.log(1 + 1 / v)
    joint = torch.tensor([[1 + v, 1.0], [1.0, 1 + v]])  # covariance of z1 and z2
    both = 0.5 * (torch.logdet(joint) - 2 * math.log(v))
    assert abs(both - 0.5 * math.log(1 + 2 / v)) < 1e-5
    assert each < both < 2 * each  # redundant: their informations do not add up
