"""Every bound of the report, for right and for wrong guides: on its side, and closing with N.

Data and guide are linear and Gaussian and need not fit the model, so that the truth of each figure
for the population is in closed form. In expectation a bound lies on its side at every N, which the
mean over many small data sets shows; on a large one the sandwich is shut.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import costs
from pyro_mivae.diagnostics.report import information

DIMS, LATENT, NOISE = 4, 3, 0.6


pytestmark = pytest.mark.usefixtures("double")


class Pair:
    """x = W z + noise; the guide is the posterior of W, with what is given changed."""

    def __init__(self, *, gain=1.0, offset=0.0, spread=1.0, mix=0.0, full=False):
        generator = torch.Generator().manual_seed(2)
        dtype = torch.float64
        self.weight = torch.randn(DIMS, LATENT, generator=generator, dtype=dtype)
        eye = torch.eye(LATENT, dtype=dtype)
        self.cov_x = self.weight @ self.weight.T + NOISE**2 * torch.eye(DIMS, dtype=dtype)
        exact = (eye + self.weight.T @ self.weight / NOISE**2).inverse()
        mixing = eye + mix * torch.ones_like(eye).triu(1)
        self.gain = gain * mixing @ exact @ self.weight.T / NOISE**2
        self.offset = torch.full((LATENT,), offset, dtype=dtype)
        self.full = full
        self.cov = spread**2 * (exact if full else exact.diagonal().diag())
        self.cov = self.cov if gain else eye

    def data(self, n, seed):
        root = torch.linalg.cholesky(self.cov_x)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, DIMS, generator=generator) @ root.T

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, NOISE).to_event(1), obs=x)

    def guide(self, x):
        loc = x @ self.gain.T + self.offset
        if self.full:
            fn = dist.MultivariateNormal(loc, self.cov)
        else:
            fn = dist.Normal(loc, self.cov.diagonal().sqrt()).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn)

    def truth(self):
        """Of the population: what each figure bounds, or is."""
        aggregate = self.gain @ self.cov_x @ self.gain.T + self.cov
        prior = MultivariateNormal(torch.zeros(LATENT), torch.eye(LATENT))
        nats = 0.5 * (aggregate.logdet() - self.cov.logdet())
        each = 0.5 * (aggregate.diagonal() / self.cov.diagonal()).log()
        from_prior = kl_divergence(MultivariateNormal(self.offset, aggregate), prior)
        error = torch.eye(DIMS) - self.weight @ self.gain
        mean_square = (error @ self.cov_x @ error.T).trace()
        mean_square += (self.weight @ self.offset).square().sum()
        mean_square += (self.weight @ self.cov @ self.weight.T).trace()
        likelihood = MultivariateNormal(torch.zeros(DIMS), self.cov_x)
        truth = {
            "mi": nats,
            "mi_z": nats,
            "fitted_mi": nats,
            "marginal_kl": from_prior,
            "rate": nats + from_prior,
            "distortion": 0.5 * mean_square / NOISE**2
            + 0.5 * DIMS * math.log(2 * math.pi * NOISE**2),
            "log_px": -likelihood.entropy(),
            "total_correlation": 0.5 * (aggregate.diagonal().log().sum() - aggregate.logdet()),
        }
        for d in range(LATENT):
            truth[f"mi_z[{d}]"] = each[d]
        if not self.full:
            marginal = Normal(self.offset, aggregate.diagonal().sqrt())
            for d, cost in enumerate(each + kl_divergence(marginal, Normal(0.0, 1.0))):
                truth[f"kl_z[{d}]"] = cost
        return {name: float(value) for name, value in truth.items()}


PAIRS = {
    "exact": Pair(full=True),
    "factorised": Pair(),
    "of the wrong scale": Pair(spread=3.0),
    "of the wrong offset": Pair(offset=1.5),
    "of mixed dimensions": Pair(mix=0.8),
    "collapsed": Pair(gain=0.0),
    "over-confident": Pair(spread=0.1),
}
BOUNDED = ("mi", "mi_z", "marginal_kl", "total_correlation", "fitted_mi")


def figures(pair, n, seed, **options):
    x = pair.data(n, seed)
    return information(pair.model, pair.guide, x, num_samples=1, seed=seed, **options).to_dict()


@pytest.mark.parametrize("name", PAIRS)
def test_in_expectation_each_bound_is_on_its_side(name, encoder_side):
    pair = PAIRS[name]
    runs = [figures(pair, 40, seed, iwae_samples=3) for seed in range(12)]
    truth = pair.truth()

    def mean(figure):
        values = torch.tensor([run[figure] for run in runs])
        return float(values.mean()), float(values.std()) / math.sqrt(len(runs)) + 1e-6

    for figure in (*BOUNDED, *(f"mi_z[{d}]" for d in range(LATENT))):
        for side, sign in (("lower", 1), ("upper", -1)):
            value, error = mean(f"{figure}_{side}")
            # The smaller of two upper bounds, both measured, is low where they are about equal.
            error += mean(f"{figure}_{side}_se")[0] / 6
            assert sign * value < sign * truth[figure] + 2.4 * error, (figure, side)
    exact = ["rate", "distortion", *(f"kl_z[{d}]" for d in range(0 if pair.full else LATENT))]
    for figure in exact:
        value, error = mean(figure)
        assert abs(value - truth[figure]) < 2.8 * error, figure
    value, error = mean("log_px")
    assert value < truth["log_px"] + 2.4 * error
    elbo, _ = mean("elbo")
    assert elbo < value + 1e-6 or pair.full
    for run in runs:
        assert run["mi_lower"] <= run["mi_upper"] <= run["rate"]
        assert run["fitted_mi_lower"] <= run["fitted_mi_upper"] <= run["rate"]
        assert run["marginal_kl_lower"] <= run["marginal_kl_upper"]


@pytest.mark.parametrize("name", PAIRS)
def test_the_sandwich_closes_as_the_data_grow(name, encoder_side):
    pair = PAIRS[name]
    truth = pair.truth()
    each = [f"mi_z[{d}]" for d in range(LATENT)]
    gaps = []
    for n in (25, 200, 2000 if name == "over-confident" else 1000):
        run = figures(pair, n, 0, iwae_samples=1, iwae_items=1, subset=n)
        gaps.append({f: run[f"{f}_upper"] - run[f"{f}_lower"] for f in (*BOUNDED, *each)})
    open_ones = {f for f in BOUNDED if gaps[2][f] > 0.15}
    if name == "over-confident":  # more nats than 2,000 data can show without a fit
        assert truth["mi"] > math.log(2000) - 0.5
        assert run["saturated"] == 1
        assert open_ones == set(BOUNDED) - {"fitted_mi"}
    else:
        assert not open_ones
    for figure in set(BOUNDED) - open_ones:
        assert gaps[2][figure] < max(gaps[0][figure] / 8, 0.02), figure
        for side in ("lower", "upper"):
            error = 4 * run[f"{figure}_{side}_se"]
            assert abs(run[f"{figure}_{side}"] - truth[figure]) < error + 0.15, (figure, side)
    for figure in {"mi", "marginal_kl", "total_correlation"} - open_ones:
        assert gaps[1][figure] < max(gaps[0][figure] / 2, 0.02), figure
        assert gaps[2][figure] < max(gaps[1][figure] / 3, 0.02), figure
    first, second, third = (sum(gap[figure] for figure in each) for gap in gaps)
    assert third <= second / 3 <= first / 6
    for figure in each:
        low, high = run[f"{figure}_lower"], run[f"{figure}_upper"]
        assert high - low < 0.1
        error = 4 * run[f"{figure}_lower_se"] + 1e-6
        assert low - error < truth[figure] < high + error


def test_importance_samples_rise_to_the_truth_and_not_beyond(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs,))
    pair = PAIRS["of the wrong scale"]
    x = pair.data(100, 0)
    truth = float(MultivariateNormal(torch.zeros(DIMS), pair.cov_x).log_prob(x).mean())
    bounds = []
    for k in (1, 10, 100, 2000):
        values = [
            information(pair.model, pair.guide, x, iwae_samples=k, seed=seed)["log_px"]
            for seed in range(1 if k > 100 else 4)
        ]
        bounds.append(sum(values) / len(values))
    assert bounds == sorted(bounds)
    assert truth - 0.01 < bounds[-1] < truth + 0.005


def test_a_total_correlation_that_the_data_are_too_few_for_is_the_lower_bound(encoder_side):
    """The mean of few narrow posteriors is no density of codes; a fitted one is."""
    pair = Pair(mix=0.8, spread=0.1)
    truth = pair.truth()["total_correlation"]
    run = figures(pair, 600, 0, iwae_samples=1)
    assert run["total_correlation_upper"] > truth + 1
    assert run["total_correlation"] == run["total_correlation_lower"]
    assert abs(run["total_correlation"] - truth) < 4 * run["total_correlation_se"] + 0.1
    few = figures(pair, 10, 0, iwae_samples=1)  # too few to fit on
    assert few["total_correlation_lower"] < truth < few["total_correlation_upper"]
