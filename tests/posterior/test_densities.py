"""Densities of guides without a mean, or an inverse."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as flows
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import nn

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import active_units, costs
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code
from pyro_mivae.diagnostics.report import information
from pyro_mivae.posterior.densities import Posterior
from pyro_mivae.posterior.probe import probe

from .pairs import FEW, guide_of, normal, plain_model


@pytest.fixture
def no_evidence(monkeypatch):
    families = (costs, information_in_code, dimensions, active_units)
    monkeypatch.setattr(measuring, "FAMILIES", families)


class Flows(nn.Module):
    """Posteriors whose densities have no short form."""

    def __init__(self):
        super().__init__()
        self.shared = flows.affine_autoregressive(2, hidden_dims=[8])
        self.given = flows.conditional_affine_autoregressive(2, 4, hidden_dims=[8])
        self.coupled = flows.conditional_affine_coupling(2, 4, hidden_dims=[8])
        self.planar = flows.planar(2)
        zuko = pytest.importorskip("zuko")
        self.maf = zuko.flows.MAF(2, 4, transforms=1, hidden_features=(8,))

    def fn(self, kind, x):
        if kind == "maf":
            return ZukoToPyro(self.maf(x))
        if kind == "mixture":
            loc = torch.stack([x[:, :2], -x[:, 2:]], 1)
            weights = dist.Categorical(logits=x[:, :2])
            return dist.MixtureSameFamily(weights, dist.Normal(loc, 0.5).to_event(1))
        transform = getattr(self, kind)
        transform = transform if kind in ("shared", "planar") else transform.condition(x)
        return dist.TransformedDistribution(normal(x), [transform])


@pytest.mark.parametrize("kind", ["shared", "given", "coupled", "maf", "mixture"])
def test_flows_are_scored_as_datum_by_datum(kind):
    torch.manual_seed(0)
    family, x = Flows(), torch.randn(9, 4)
    guide = guide_of(lambda x: family.fn(kind, x))
    layout = probe(plain_model, guide, x)
    assert layout.meanless == (frozenset() if kind == "mixture" else {"z"})
    assert layout.free == {"z"}
    codes = {"z": torch.randn(5, 2)}
    with torch.no_grad():
        table = Posterior(guide, x, layout).mixture(("z",), codes)
        columns = [family.fn(kind, datum.expand(5, 4)).log_prob(codes["z"]) for datum in x]
    torch.testing.assert_close(table, torch.stack(columns, 1).double(), rtol=1e-4, atol=1e-4)


def test_a_flow_gives_the_figures_of_the_normal_that_it_is(no_evidence):
    """A shift by a transform: the same draws, and no mean or closed form."""

    def shifted(x):
        shift = flows.AffineTransform(torch.tensor([1.0, -2.0]), 1.0, event_dim=1)
        return dist.TransformedDistribution(normal(x), [shift])

    class Alike(dist.TorchDistribution):
        """Scores values that are laid out as its own draws, and no others."""

        def __init__(self, x):
            self.inner, self.shape = shifted(x), x.shape[:1]
            super().__init__(self.shape, (2,), validate_args=False)

        has_rsample, support = True, dist.constraints.real_vector

        def rsample(self, sample_shape=()):
            return self.inner.rsample(sample_shape)

        def log_prob(self, value):
            if value.shape[:-1] != self.shape:
                raise RuntimeError("shapes")
            return self.inner.log_prob(value)

    def plain(x):
        return dist.Normal(0.5 * x[:, :2] + torch.tensor([1.0, -2.0]), 0.5).to_event(1)

    x = torch.randn(60, 4)
    expected = information(plain_model, guide_of(plain), x, num_samples=1, **FEW)
    for fn in (shifted, Alike):
        report = information(plain_model, guide_of(fn), x, num_samples=1, **FEW)
        for name in ("distortion", "mi_lower", "mi_z_lower", "fitted_mi_lower"):
            assert report[name] == pytest.approx(expected[name], abs=1e-4), (fn, name)
        assert report["rate"] == pytest.approx(expected["rate"], abs=6 * report["rate_se"])


@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_noise_of_a_flow_is_no_active_unit(gain, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (active_units,))

    def flow(x):
        base = dist.Normal(gain * x[:, :2], 1.0).to_event(1)
        identity = flows.AffineTransform(0.0, 1.0, event_dim=1)
        return dist.TransformedDistribution(base, [identity])

    report = information(plain_model, guide_of(flow), torch.randn(300, 4), num_samples=2)
    assert report["active_units"] == (2 if gain else 0)
    assert "100 draws" in report.protocol["active_units"]
    once = information(plain_model, guide_of(flow), torch.randn(300, 4), num_samples=1)
    assert math.isnan(once["active_units"])


@pytest.mark.parametrize("kind", ["planar", "straight-through", "too coarse"])
def test_what_cannot_be_scored_is_nan_for_a_reason(kind):
    torch.manual_seed(0)
    family, category = Flows(), dist.RelaxedOneHotCategoricalStraightThrough

    def model(x):
        with pyro.plate("data", len(x)):
            prior = category(torch.tensor(0.7), torch.ones(len(x), 4))
            pyro.sample("x", dist.Normal(pyro.sample("z", prior), 0.5).to_event(1), obs=x)

    def far(x):
        return dist.Normal(1e7 + 0.5 * x[:, :2], 0.5).to_event(1)

    model, fn, reason = {
        "planar": (plain_model, lambda x: family.fn("planar", x), "has no inverse"),
        "straight-through": (
            model,
            lambda x: category(torch.tensor(0.7), logits=3 * x),
            "straight-through",
        ),
        "too coarse": (plain_model, far, "vary too little for float32"),
    }[kind]
    options = {**FEW, "generative_items": 10}
    report = information(model, guide_of(fn), torch.randn(60, 4), **options)
    for name in ("distortion", "rate", "elbo", "log_px"):
        assert math.isfinite(report[name]), name
    assert report["mi_upper"] == report["rate"]
    for name in ("mi_lower", "saturated", "fitted_mi_upper", "generative_mi_lower"):
        assert math.isnan(report[name]), name
    assert reason in report.protocol["mi"]
    assert reason in report.protocol["generative_mi"]


def test_generative_information_without_a_density_is_not_zero(monkeypatch):
    """A model whose own samples score NaN."""
    monkeypatch.setattr(measuring, "FAMILIES", (generative_information,))

    class Broken(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) + torch.where(value > 3, torch.nan, 0.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
            pyro.sample("x", Broken(z, torch.ones(len(x))), obs=x)

    guide = guide_of(lambda x: dist.Normal(0.5 * x, 1.0))
    report = information(model, guide, torch.zeros(50), generative_items=200)
    for end in ("lower", "upper"):
        assert math.isnan(report[f"generative_mi_{end}"])
    assert "not defined" in report.protocol["generative_mi"]
