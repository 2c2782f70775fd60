"""Figures of conditional pairs, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal

import pyro_mivae as mi
from pyro_mivae.diagnostics.report import information
from pyro_mivae.errors import DataError, OptionError, ShapeError

SIGMA, PER = 0.7, 200
WEIGHT = torch.tensor([1.0, -0.5, 2.0]).double()
SHIFT = torch.tensor([[3.0, 0.0, -1.0], [0.0, 2.0, 1.0]]).double()
PRECISION = 1 + float(WEIGHT @ WEIGHT) / SIGMA**2
FEW = {"iwae_samples": 8, "iwae_items": 400, "generative_items": 40, "generative_samples": 40}


def pair(centre=0.0):
    """x = w (z - k u) + B u + noise, its exact posterior, and p(z | u) = N(k u, 1)."""

    def model(x, u):
        at = centre * u[:, :1]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(at, 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z - at) * WEIGHT + u @ SHIFT, SIGMA).to_event(1), obs=x)

    def guide(x, u):
        mean = (x - u @ SHIFT) @ WEIGHT / SIGMA**2 / PRECISION
        with pyro.plate("data", len(x)):
            loc = mean.unsqueeze(-1) + centre * u[:, :1]
            pyro.sample("z", dist.Normal(loc, PRECISION**-0.5).to_event(1))

    return model, guide


@pytest.fixture(scope="module")
def u():
    return torch.nn.functional.one_hot(torch.arange(2 * PER) % 2, 2).double()


@pytest.fixture(scope="module")
def x(u):
    return draw(u)


def draw(u):
    generator = torch.Generator().manual_seed(1)
    z, e = (torch.randn(len(u), d, generator=generator).double() for d in (1, 3))
    return z * WEIGHT + u @ SHIFT + SIGMA * e


def log_px(x, u):
    cov = WEIGHT[:, None] * WEIGHT[None] + SIGMA**2 * torch.eye(3).double()
    return MultivariateNormal(torch.zeros(3).double(), cov).log_prob(x - u @ SHIFT)


def test_the_exact_posterior_has_the_exact_loss(x, u):
    elbo = mi.MutualInformationELBO()
    model, guide = pair(centre=5.0)
    losses = torch.tensor([elbo.loss(model, guide, x, u) for _ in range(40)])
    error = float(losses.std()) / 40**0.5
    assert float(losses.mean()) == pytest.approx(-float(log_px(x, u).sum()), abs=4 * error)


@pytest.mark.parametrize("centre", [0.0, 5.0])
def test_figures_are_those_given_the_condition(centre, x, u):
    """With centre = 5 the code says much about u, which is no information about x given u."""
    report = information(*pair(centre), x, given=u, **FEW)
    assert report["log_px"] == pytest.approx(float(log_px(x, u).mean()), abs=1e-6)
    truth = 0.5 * math.log(PRECISION)
    for name in ("mi_lower", "mi_upper", "fitted_mi_lower", "generative_mi_lower"):
        assert report[name] == pytest.approx(truth, abs=4 * report[f"{name}_se"] + 0.02), name
    assert report["generative_mi_upper"] >= report["generative_mi_lower"] > 0
    assert 0 <= report["marginal_kl_lower"] <= report["marginal_kl_upper"] < 0.1
    assert report["total_correlation"] == 0
    assert report.protocol["items"] == len(x)
    assert "means over 2 conditions of 200 to 200 data" in report.protocol["given"]
    assert report.protocol["information_items"] == len(x)


def test_a_figure_is_the_weighted_mean_over_the_conditions(x):
    u = torch.eye(2).double()[(torch.arange(len(x)) % 4 == 0).long()]  # three to one
    model, guide = pair()
    how = FEW | {"generative_items": 0, "iwae_items": len(x)}
    report = information(model, guide, x, given=u, **how)
    each = []
    for k in range(2):
        one = torch.eye(2)[k].double()

        def at(program, one=one):
            return lambda x: program(x, one.expand(len(x), 2))

        rows = u[:, k] == 1
        each.append(information(at(model), at(guide), x[rows], **how))
    weights = [0.75, 0.25]
    for name in ("distortion", "rate", "elbo", "active_units"):
        mean = sum(w * r[name] for w, r in zip(weights, each))
        error = math.hypot(*(w * r.get(f"{name}_se", 0) for w, r in zip(weights, each)))
        assert report[name] == pytest.approx(mean, abs=error), name
    spread = math.hypot(*(w * r["rate_se"] for w, r in zip(weights, each)))
    assert report["rate_se"] == pytest.approx(spread, rel=0.05)


def test_without_repeated_conditions_what_compares_data_is_left_out():
    u = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
    x = draw(u)
    report = information(*pair(), x, given=u, **FEW)
    assert report["log_px"] == pytest.approx(float(log_px(x, u).mean()), abs=1e-6)
    assert report["elbo"] == pytest.approx(report["log_px"], abs=1.0)
    assert set(report) >= {"distortion", "rate", "kl_z", "active_units"}
    left = ("mi_", "fitted", "marginal", "total", "generative", "saturated")
    assert not any(name.startswith(left) for name in report)
    assert "two or more of each" in report.protocol["mi"]


def test_a_wrong_condition_is_seen(x, u):
    model, guide = pair()
    right, wrong = (information(model, guide, x, given=v, **FEW) for v in (u, u.roll(1, 0)))
    assert wrong["elbo"] < right["elbo"] - 1


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (torch.zeros(3, 2), ShapeError, r"given has shape \(3, 2\) for 400 data"),
        (torch.tensor(1.0), ShapeError, r"given has shape \(\) for 400 data"),
        ([[1.0]], DataError, "a list given as given"),
    ],
)
def test_conditions_that_do_not_fit(given, error, told, x):
    with pytest.raises(error, match=told):
        information(*pair(), x, given=given)


@pytest.mark.parametrize("repeated", [True, False])
def test_evaluate_measures_given_the_condition(repeated, quick):
    torch.manual_seed(0)
    x, labels = torch.rand(24, 1, 2, 3), torch.arange(24) % 2
    u = torch.eye(3)[labels] if repeated else torch.randn(24, 3)
    vae = mi.CatVAE((1, 2, 3), num_categories=2, given_shape=(3,), warm_start=0)
    how = FEW | {"probe_items": 20, "samples_per_category": 8}
    report = mi.evaluate(vae, x, labels, given=u, **how)
    assert math.isfinite(report["reconstruction_r2"])
    assert math.isfinite(report["linear_probe"])
    assert ("mi_lower" in report) == repeated
    taught = mi.evaluate(vae, x, labels, (x, labels, None, u), given=u, **how)
    assert taught["elbo"] == report["elbo"]
    with pytest.raises(OptionError, match="given is missing"):
        mi.evaluate(vae, x, labels, (x, labels), given=u, **how)
    with pytest.raises(OptionError, match="given is missing"):
        mi.evaluate(vae, x)
