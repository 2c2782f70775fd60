"""The structure of a pair: found on all data, and what cannot be reported on is refused."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as flows
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn
from torch.nn import functional

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import active_units, costs
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.diagnostics.mi_bounds import information_in_code
from pyro_mivae.diagnostics.per_dimension import dimensions
from pyro_mivae.diagnostics.report import information
from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.posterior.densities import Posterior
from pyro_mivae.posterior.probe import probe

FEW = {"iwae_samples": 1, "iwae_items": 1, "generative_items": 0, "subset": 300}


@pytest.fixture
def no_evidence(monkeypatch):
    families = (costs, information_in_code, dimensions, active_units)
    monkeypatch.setattr(measuring, "FAMILIES", families)


def plain_model(x):
    """z in two dimensions, x in four."""
    weight = torch.linspace(-1, 1, 8).reshape(2, 4)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)


def guide_of(fn):
    """A guide whose site z follows a distribution made from the data."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn(x))

    return guide


def normal(x, scale=0.5):
    return dist.Normal(0.5 * x[:, :2], scale).to_event(1)


# What depends on what --------------------------------------------------------------------------


def chained_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(len(x)), 2.0))
        pyro.sample("x", dist.Normal(torch.stack([z, w], -1), 1.0).to_event(1), obs=x)


def gated_guide(x):
    """w follows z where the second entry of the datum is 1."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("w", dist.Normal(3 * x[:, 1] * z, 0.1))


@pytest.mark.parametrize("place", [0, 399, 699])
def test_a_dependence_of_one_datum_is_found_wherever_it_is(place):
    x = torch.zeros(700, 2)
    assert probe(chained_model, gated_guide, x).free == {"z", "w"}
    x[place, 1] = 1
    layout = probe(chained_model, gated_guide, x, batch_size=100)
    assert layout.free == layout.alone == {"z"}
    assert layout.conditional == frozenset()


def test_bounds_hold_where_most_data_show_no_dependence(no_evidence):
    x = torch.stack([torch.randn(400), torch.arange(400) // 200.0], 1)
    report = information(chained_model, gated_guide, x, **FEW)
    z, gate = torch.randn(100_000), torch.arange(100_000) % 2
    w = 3 * gate * z + 0.1 * torch.randn(100_000)
    apart, tied = (dist.Normal(loc, 0.1).log_prob(w) for loc in (torch.zeros(100_000), 3 * z))
    own = torch.where(gate == 1, tied, apart)
    truth = float((own - torch.logaddexp(apart, tied) + math.log(2)).mean())
    for name in ("mi", "fitted_mi"):
        assert report[f"{name}_lower"] < truth + 3 * report[f"{name}_lower_se"]
        assert report[f"{name}_upper"] > truth - 3 * report[f"{name}_upper_se"]
    assert math.isnan(report["mi_w_upper"])


def conditional_model(x):
    """The prior is the guide's posterior: the rate is 0, and no bound."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", normal(x))
        pyro.sample("x", dist.Normal(z.repeat(1, 2), 1.0).to_event(1), obs=x)


def test_a_prior_that_depends_on_the_data_bounds_nothing(no_evidence):
    report = information(conditional_model, guide_of(normal), torch.randn(400, 4), **FEW)
    truth = math.log(2)  # 1/2 log(1 + 0.25 / 0.25) of each dimension
    assert abs(report["rate"]) < 1e-6
    for name, scale in (("mi", 1), ("mi_z", 1), ("fitted_mi", 1), ("mi_z[0]", 0.5)):
        assert report[f"{name}_lower"] < scale * truth + 4 * report[f"{name}_lower_se"]
        assert report[f"{name}_upper"] > scale * truth - 4 * report[f"{name}_upper_se"]
    assert math.isnan(report["marginal_kl_lower"])
    assert math.isnan(report["marginal_kl_upper"])
    assert "the prior of z depends on the data" in report.protocol["marginal_kl"]


def test_a_prior_that_depends_on_one_datum_in_many_is_found():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.clamp_min(0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = guide_of(lambda x: dist.Normal(0 * x, 1.0))
    x = torch.full((500,), -1.0)
    assert probe(model, guide, x, batch_size=64).alone == {"z"}
    x[-1] = 1.0
    layout = probe(model, guide, x, batch_size=64)
    assert layout.conditional == {"z"}
    assert layout.alone == frozenset()


def test_probing_draws_nothing_from_the_generator():
    state = torch.get_rng_state()
    probe(plain_model, guide_of(normal), torch.zeros(3, 4))
    assert torch.equal(torch.get_rng_state(), state)


# Guides without a mean, or an inverse ----------------------------------------------------------


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
    assert "not numbers" in report.protocol["generative_mi"]


# Refusals --------------------------------------------------------------------------------------


def relaxed(x):
    return dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=x)


def categorical_model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("z", dist.OneHotCategorical(torch.ones(4)))
        pyro.sample("x", dist.Normal(c @ torch.eye(4), 1.0).to_event(1), obs=x)


def indexed_model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("z", dist.Categorical(torch.ones(4)))
        pyro.sample("x", dist.Normal(torch.eye(4)[c], 1.0).to_event(1), obs=x)


def subsampling(x):
    with pyro.plate("data", len(x), subsample_size=8) as rows:
        pyro.sample("z", normal(x[rows]))


def with_parameters_per_datum(x):
    with pyro.plate("data", 300):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(300, 2)), 1.0).to_event(1))


def two_arguments(x, y):
    plain_model(x)


REFUSED = {
    "dropout": (guide_of(lambda x: normal(functional.dropout(x, 0.3))), "anew each time.*eval"),
    "batch": (
        guide_of(lambda x: normal(functional.batch_norm(x, None, None, training=True))),
        "other data of the batch.*eval",
    ),
    "spike and slab": (
        guide_of(
            lambda x: dist.MaskedMixture(
                x[:, :2] > 0, dist.Normal(x[:, :2], 1.0), dist.Delta(0 * x[:, :2])
            ).to_event(1)
        ),
        "mixes points",
    ),
    "subsample": (subsampling, "draws 8 of 20 data.*subsample=x"),
    "local parameters": (with_parameters_per_datum, r"pyro.plate\('data', len\(x\)\)"),
    "two arguments": (two_arguments, "missing.*'y'.*lambda x"),
    "on the simplex": (guide_of(lambda x: dist.Dirichlet(x[:, :2].exp())), "1-dimensional in the"),
    "auxiliary": (AutoNormal(plain_model), "auxiliary"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_guides_that_cannot_be_reported_on_are_refused(kind):
    guide, match = REFUSED[kind]
    with pytest.raises((SiteError, ShapeError), match=match):
        information(plain_model, guide, torch.randn(20, 4))


def noisy_model(x):
    plain_model(functional.dropout(x, 0.5))


@pytest.mark.parametrize(
    ("model", "fn", "match"),
    [
        (categorical_model, relaxed, "3-dimensional.*OneHotCategorical.*discrete"),
        (indexed_model, lambda x: dist.Categorical(logits=x[:, :3]), "4 values .* guide has 3"),
        (noisy_model, normal, "the model scores .* anew"),
    ],
    ids=["relaxed", "fewer values", "noise in the model"],
)
def test_models_that_do_not_fit_are_refused(model, fn, match):
    with pytest.raises(SiteError, match=match):
        information(model, guide_of(fn), torch.randn(20, 4))


def test_a_global_guide_is_refused_or_fails_with_a_remedy():
    guide = AutoDelta(plain_model)
    guide(torch.zeros(7, 4))
    with pytest.raises(ShapeError, match="one plate over the data"):
        information(plain_model, guide, torch.randn(20, 4))


def test_rows_given_to_a_plate_are_no_subsample(no_evidence):
    def guide(x):
        with pyro.plate("data", 1000, subsample=x):
            pyro.sample("z", normal(x))

    x = torch.randn(40, 4)
    report = information(plain_model, guide, x, **FEW).to_dict()
    expected = information(plain_model, guide_of(normal), x, **FEW).to_dict()
    assert report == pytest.approx(expected, nan_ok=True)


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide:UserWarning")
def test_what_a_model_or_guide_notes_counts_for_nothing():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.deterministic("loc", z.repeat(1, 2), event_dim=1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def noting(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x))
            pyro.deterministic("twice", 2 * z, event_dim=1)

    def plain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat(1, 2), 1.0).to_event(1), obs=x)

    x = torch.randn(30, 4)
    options = {**FEW, "generative_items": 10}
    expected = information(plain, guide_of(normal), x, **options).to_dict()
    assert information(model, noting, x, **options).to_dict() == pytest.approx(
        expected, nan_ok=True
    )
