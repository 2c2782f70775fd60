"""Structure of pairs, found on all data; pairs that cannot be reported on are refused."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch.nn import functional

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import active_units, costs
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code
from pyro_mivae.diagnostics.report import information
from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.posterior.probe import probe

from .pairs import FEW, guide_of, normal, plain_model


@pytest.fixture
def no_evidence(monkeypatch):
    families = (costs, information_in_code, dimensions, active_units)
    monkeypatch.setattr(measuring, "FAMILIES", families)


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
    "dropout": (
        guide_of(lambda x: normal(functional.dropout(x, 0.3))),
        "differently each time.*eval",
    ),
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
        (noisy_model, normal, "the model scores .* differently"),
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
