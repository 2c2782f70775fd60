"""The report on models whose every figure has a closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_mivae as mi
from pyro_mivae.bounds import infonce_bound, leave_one_out_bound
from pyro_mivae.posterior.preserved_state import seeded

from .pairs import CASES, CONTRACT, LinearGaussian, between, information

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("name", CASES)
def test_linear_gaussian_figures_are_the_closed_forms(name):
    pair = CASES[name]
    x = pair.data(1000)
    truth = pair.truth(x)
    report = information(pair.model, pair.guide, x)
    values = report.to_dict()
    assert set(CONTRACT) <= set(values)
    assert all(type(value) is float for value in values.values())

    diagonal = torch.equal(pair.cov, pair.cov.diagonal().diag())
    closed = 1e-9 if diagonal else 4 * values["rate_se"]  # Pyro knows no KL of the full one
    assert abs(values["rate"] - truth["rate"]) < closed
    assert values[f"kl_{pair.site}"] == values["rate"]
    noise = 4 * values["distortion_se"]
    assert abs(values["distortion"] - truth["distortion"]) < noise
    assert abs(values["elbo"] - truth["elbo"]) < noise
    assert math.isclose(values["elbo"], -values["distortion"] - values["rate"], rel_tol=1e-9)
    assert values["elbo"] - noise < values["log_px"]
    if name.startswith("exact"):  # every importance weight is the same
        gain = values["log_px"] - values["elbo"]
        assert abs(gain - (truth["log_px"] - truth["elbo"])) < noise
    assert values["log_px"] < truth["log_px"] + noise

    between(values, "mi", truth["information"])
    between(values, f"mi_{pair.site}", truth["information"])
    between(values, "marginal_kl", truth["marginal_kl"])
    assert values["mi_upper"] <= values["rate"]
    assert values["mi_upper"] - values["mi_lower"] < 0.1
    assert values["saturated"] == 0
    assert values["active_units"] == truth["active"]
    if pair.latent == 1:
        assert values["total_correlation"] == 0
    else:
        between(values, "total_correlation", truth["total_correlation"])
        error = 4 * values["total_correlation_se"] + 0.01
        assert abs(values["total_correlation"] - truth["total_correlation"]) < error


def test_log_likelihood_of_an_exact_guide_is_exact():
    pair = CASES["exact"]
    x = pair.data(50)
    report = information(pair.model, pair.guide, x, iwae_samples=7, batch_size=32)
    assert math.isclose(report["log_px"], pair.truth(x)["log_px"], rel_tol=1e-9)


def test_importance_samples_close_the_gap_of_a_wrong_guide():
    pair = CASES["exact"]
    pair = LinearGaussian(pair.weight, pair.gain, torch.tensor([0.4, -0.4]), 1.5 * pair.cov)
    x = pair.data(200)
    truth = pair.truth(x)["log_px"]
    few, many = (
        information(pair.model, pair.guide, x, iwae_samples=k, iwae_items=200)["log_px"]
        for k in (1, 1000)
    )
    assert few < many - 0.1
    assert abs(truth - many) < 0.01


def test_a_subset_of_importance_samples_is_put_on_the_scale_of_the_elbo():
    pair = CASES["exact"]
    pair = LinearGaussian(pair.weight, pair.gain, torch.tensor([0.4, -0.4]), 1.5 * pair.cov)
    x = 4 * pair.data(2000)  # far from the model's: log p(x) varies by 20 nats
    report = information(pair.model, pair.guide, x, iwae_items=100, iwae_samples=500)
    assert report.protocol["iwae_items"] == 100
    truth = pair.truth(x)["log_px"]
    assert truth > report["elbo"] + 0.3
    # The mean over 100 data alone would have an error of 2 nats.
    assert abs(report["log_px"] - truth) < 0.2
    assert report["elbo_se"] < report["log_px_se"] < 1.2 * report["elbo_se"]


def test_streamed_pairs_are_the_pure_bounds():
    pair = CASES["wrong"]
    x = pair.data(40)
    seen = []

    def guide(x):
        pair.guide(x)

    report = information(pair.model, guide, x, batch_size=7)
    with seeded(0, x.device):  # the same codes
        for part in x.split(7):
            for sample in range(report.protocol["num_samples"]):
                trace = poutine.trace(guide).get_trace(part)
                torch.distributions.Categorical(torch.ones(len(part), 1)).sample()
                if sample == 0:
                    seen.append(trace.nodes["z"]["value"])
    codes = torch.cat(seen)
    trace = poutine.trace(guide).get_trace(x)
    densities = trace.nodes["z"]["fn"].log_prob(codes[:, None])
    assert math.isclose(report["mi_lower"], infonce_bound(densities), rel_tol=1e-8)
    upper = min(leave_one_out_bound(densities), report["rate"])
    assert math.isclose(report["mi_upper"], upper, rel_tol=1e-8)


def test_too_much_information_is_said_to_saturate():
    weight = torch.eye(6) * 20
    pair = LinearGaussian.exact(weight)
    x = pair.data(200)
    report = information(pair.model, pair.guide, x)
    truth = pair.truth(x)["information"]
    assert truth > math.log(200) + 5
    assert report["saturated"] == 1
    assert report["mi_lower"] <= math.log(200)
    assert report["mi_upper"] == report["rate"]
    assert report["marginal_kl_lower"] == 0
    between(report, "mi", truth)


def test_a_collapsed_code_knows_nothing():
    pair = CASES["exact"]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    values = information(pair.model, guide, pair.data(300)).to_dict()
    for name in ("rate", "mi_lower", "mi_upper", "marginal_kl_upper", "active_units", "saturated"):
        assert abs(values[name]) < 1e-9, name


def test_dimensions_are_active_whose_means_vary_by_more_than_a_hundredth():
    pair, x = CASES["exact"], CASES["exact"].data(4)
    x[:, 0] = torch.tensor([1.0, 1.0, -1.0, -1.0])  # of variance 4 / 3

    def guide(x):
        loc = x[:, :1] * torch.tensor([0.009, 0.007]).sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    assert information(pair.model, guide, x).to_dict()["active_units"] == 1


def test_reports_of_the_encoder_side_generate_nothing(encoder_side):
    """The fixture, which saves most of a report's time, is in effect."""
    pair = next(iter(CASES.values()))
    report = mi.information(pair.model, pair.guide, pair.data(20), generative_items=4)
    assert "mi_lower" in report
    assert "generative_mi_lower" not in report
