"""Deterministic sites, state that the report leaves alone, limits of numbers, refusals."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import costs
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code
from pyro_mivae.diagnostics.report import information as report_of
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError

from .pairs import CASES, between, information

pytestmark = pytest.mark.usefixtures("double")


# Deterministic sites --------------------------------------------------------------------------


def delta_pair(gain):
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(c + z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(gain * x, event_dim=1))
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    return model, guide


def test_a_deterministic_site_has_no_divergence():
    model, guide = delta_pair(1.0)
    x = torch.randn(200, 1)
    values = information(model, guide, x).to_dict()
    undefined = (
        "rate elbo log_px kl_c mi_upper mi_c_upper marginal_kl_lower marginal_kl_upper "
        "total_correlation total_correlation_lower total_correlation_upper "
        "fitted_mi_lower fitted_mi_upper fitted_reach"
    ).split()
    assert {name for name in values if not name.endswith("_se") and math.isnan(values[name])} == (
        set(undefined)
    )
    assert math.isclose(values["mi_lower"], math.log(200), rel_tol=1e-9)
    assert math.isclose(values["mi_c_lower"], math.log(200), rel_tol=1e-9)
    assert values["saturated"] == 1
    between(values, "mi_z", 0.5 * math.log(1 + 0.25 / 0.49))
    assert values["active_units"] == 2


def test_data_that_are_a_function_of_the_code_have_no_density():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Delta(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.6 * x, 0.8))

    figures = information(model, guide, torch.randn(500)).to_dict()
    for name in ("distortion", "elbo", "log_px"):
        assert math.isnan(figures[name]), name
    assert figures["rate"] == pytest.approx(-math.log(0.8), abs=0.05)
    assert figures["mi_lower"] <= -math.log(0.8) + 0.1


def test_a_collapsed_deterministic_site_knows_nothing():
    model, guide = delta_pair(0.0)
    values = information(model, guide, torch.randn(500, 1))
    assert values["mi_c_lower"] == 0
    assert abs(values["mi_lower"] - values["mi_z_lower"]) < 1e-9
    assert values["saturated"] == 0
    assert values["active_units"] == 1


# What the report leaves alone, and what it refuses ---------------------------------------------


class Noisy(nn.Module):
    """A model and a guide in one module, with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.encoder[1].eval()

    def model(self, x):
        gain = pyro.param("gain", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = gain * z[..., :1].expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        scale = pyro.param("late", torch.tensor(0.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x)[..., :2], scale).to_event(1))


def test_nothing_is_left_behind():
    pair = Noisy()
    modes = [module.training for module in pair.modules()]
    buffers = {name: value.clone() for name, value in pair.named_buffers()}
    pyro.param("gain", torch.tensor(3.0))
    x = torch.randn(20, 3)
    state = torch.get_rng_state()
    information = partial(report_of, generative_items=20, generative_samples=20)
    first = information(pair.model, pair.guide, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in pair.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(value, buffers[name]) for name, value in pair.named_buffers())
    assert list(pyro.get_param_store().keys()) == ["gain"]
    assert pyro.param("gain") == 3.0
    assert all(p.grad is None for p in pair.parameters())

    torch.rand(5)
    assert information(pair.model, pair.guide, x) == first
    assert information(pair.eval().model, pair.guide, x) == first  # no dropout
    assert information(pair.model, pair.guide, x, seed=1) != first
    pyro.get_param_store()["gain"] = torch.tensor(1.0)  # the trained value is what counts
    assert information(pair.model, pair.guide, x)["distortion"] < first["distortion"]


def test_svi_goes_on_after_a_report():
    pair = Noisy()
    x = torch.randn(20, 3)
    svi = pyro.infer.SVI(
        pair.model, pair.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
    )
    svi.step(x)
    before = pyro.param("gain").item()
    report_of(pair.model, pair.guide, x, generative_items=10, generative_samples=10)
    assert pyro.param("gain").item() == before
    svi.step(x)
    assert pyro.param("gain").item() != before


def test_the_size_of_a_batch_changes_no_expectation(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code))
    pair = CASES["exact"]
    x = pair.data(100)
    small, large = (
        information(pair.model, pair.guide, x, batch_size=b, iwae_samples=1) for b in (3, 4096)
    )
    assert math.isclose(small["rate"], large["rate"], rel_tol=1e-9)
    assert abs(small["mi_lower"] - large["mi_lower"]) < 4 * small["mi_lower_se"]


def test_single_precision_is_enough():
    torch.set_default_dtype(torch.float32)
    weight = torch.eye(2) * 3

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 0.1**0.5).to_event(1))

    x = 10**0.5 * torch.randn(1000, 2)
    between(information(model, guide, x), "mi", math.log(10))


def test_one_datum():
    pair = CASES["exact"]
    values = information(pair.model, pair.guide, pair.data(1)).to_dict()
    assert values["mi_lower"] == 0
    assert values["mi_upper"] == values["rate"]
    assert math.isnan(values["active_units"])
    assert math.isnan(values["elbo_se"])
    assert math.isfinite(values["log_px"])


def moved(shift, scale, dtype):
    """The same pair with its code shifted and scaled."""
    centre, unit = torch.tensor(shift, dtype=dtype), torch.tensor(scale, dtype=dtype)

    def model(x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(centre.expand(3), 1.09**0.5 * unit).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(((z - centre) / unit).to(x), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.to(dtype) * unit + centre, 0.3 * unit).to_event(1))

    return model, guide


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_and_scale_of_the_code_change_nothing_or_are_too_much(dtype, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code, dimensions))
    options = {"iwae_items": 1, "iwae_samples": 1, "num_samples": 1}
    x = torch.randn(150, 3)
    expected = information(*moved(0.0, 1.0, dtype), x, **options)
    between(expected, "mi", 1.5 * math.log(1 + 1 / 0.09))
    names = [f"{n}_{s}" for n in ("mi", "mi_z[1]", "fitted_mi") for s in ("lower", "upper")]
    names += ["total_correlation_lower", "total_correlation_upper"]
    small = dtype == torch.float32
    shifts = (1e3, 1e5) if small else (1e6, 1e9, 1e12)
    for shift, scale in [*((shift, 1.0) for shift in shifts), (0.0, 1e-18), (0.0, 1e18)]:
        report = information(*moved(shift, scale, dtype), x, **options)
        accuracy = 0.02 if scale == 1 else 1e-4
        for name in names:
            assert report[name] == pytest.approx(expected[name], abs=accuracy), (
                shift,
                scale,
                name,
            )
    report = information(*moved(1e7 if small else 1e16, 1.0, dtype), x, **options)
    assert math.isnan(report["mi_lower"])
    assert math.isnan(report["mi_z[0]_lower"])
    assert math.isnan(report["total_correlation"])
    assert f"too little for float{32 if small else 64}" in report.protocol["mi"]


def test_clusters_far_apart_are_told_apart(monkeypatch):
    """1e8 deviations between two halves of the codes: log 2 more, and no less within."""
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code, dimensions))
    options = {"iwae_items": 1, "iwae_samples": 1, "num_samples": 1}
    x, half = torch.randn(300, 1), torch.arange(300) % 2

    def pair(gap):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1e9).to_event(1))
                pyro.sample("x", dist.Normal(z[..., 0], 1e9), obs=x[:, 0])

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x[:, :1] + gap * x[:, 1:], 1.0).to_event(1))

        return model, guide

    data = torch.cat([x, half[:, None].double()], 1)
    near, far = (information(*pair(gap), data, **options) for gap in (1e3, 1e8))
    for name in ("mi_lower", "mi_upper", "mi_z[0]_lower", "mi_z[0]_upper"):
        assert far[name] == pytest.approx(near[name], abs=1e-2), name


@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_standard_errors_of_few_data_are_called_unreliable(n, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs,))
    pair = CASES["exact"]
    report = information(pair.model, pair.guide, pair.data(n), iwae_samples=1)
    assert math.isnan(report["rate_se"]) is (n == 1)
    assert report["rate_se"] != 0
    assert ("standard_errors" in report.protocol) is (n < 10)
    assert ("unreliable" in str(report)) is (n < 10)


def test_scales_and_masks_count_for_nothing():
    pair = CASES["exact"]
    x = pair.data(50)
    weighed = poutine.scale(poutine.mask(pair.model, mask=False), 3.0)
    assert information(weighed, pair.guide, x) == information(pair.model, pair.guide, x)


def test_it_is_a_mapping():
    pair = CASES["exact"]
    report = information(pair.model, pair.guide, pair.data(30))
    assert dict(report) == report.to_dict()
    assert "mi_lower" in report
    assert "mi_middle" not in report
    assert len(report) == len(list(report))


def test_it_prints_a_table_with_errors():
    pair = CASES["exact"]
    text = str(information(pair.model, pair.guide, pair.data(20)))
    assert "elbo" in text
    assert "±" in text
    assert "_se" not in text


def test_bad_input_is_named():
    pair = CASES["exact"]
    x = pair.data(5)
    with pytest.raises(DataError, match=r"has shape \(0, 5\)"):
        information(pair.model, pair.guide, x[:0])
    with pytest.raises(OptionError, match="iwae_samples=0"):
        information(pair.model, pair.guide, x, iwae_samples=0)

    def blind(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(SiteError, match="observes nothing"):
        information(blind, pair.guide, x)

    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(SiteError, match="not in both"):
        information(pair.model, other, x)

    def unplated(x):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ShapeError, match="site 'z'.*over the data, got .*pyro.plate"):
        information(pair.model, unplated, x)

    with pytest.raises(OptionError, match="a Tensor of shape .*such as vae.guide"):
        information(pair.model, x)

    def undeclared(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ pair.weight.T, 1.0), obs=x)

    with pytest.raises(ShapeError, match="site 'x'.*to_event"):
        information(undeclared, pair.guide, x)
