"""Terms of an objective, and objectives, each in a loss of a small pair."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae import elbo, terms

from .calls import Call


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5).to_event(1))


def categories(x):
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.OneHotCategorical(logits=x))


X = torch.eye(2).repeat(3, 1)


def loss(objective):
    return objective.loss(model, guide, X)


def loss_with(term):
    return loss(mi.MutualInformationELBO([term]))


def term(kind, **options):
    """A call of a term of one site."""
    return Call(
        kind.__name__,
        lambda site, **given: kind(site, **given),
        lambda: {"site": "z", **options},
        after=None if "function" in options else loss_with,
    )


def objective(kind, arguments, **options):
    return Call(kind.__name__, kind, arguments, **{"after": loss} | options)


def common():
    return {"terms": [mi.BarberAgakov("z")], "kl_weights": {"z": 2.0}}


CALLS = [
    term(mi.BarberAgakov, weight=1.0, generated="mean", temperature=0.5),
    term(
        mi.CriticBound,
        critic=mi.build_critic("joint", (2,), 2),
        bound=terms.ScoreBound("interpolated", alpha=0.5),
        weight=1.0,
        pairs="all",
        seed=1,
        regularization_strength=1.0,
        module_name="critic",
    ),
    Call(
        "ScoreBound",
        lambda name, **given: terms.ScoreBound(name, **given),
        lambda: {"name": "interpolated", "baseline": nn.Linear(2, 1), "alpha": 0.5},
    ),
    term(mi.MaximumMeanDiscrepancy, weight=1.0, kernel="rbf", bandwidth=2.0),
    term(mi.Penalty, weight=1.0, name="penalty", function=lambda particle: torch.ones(())),
    Call(
        "RegularizedInformation",
        mi.RegularizedInformation,
        lambda: {
            "site": "c",
            "weight": 1.0,
            "marginal_weight": 1.0,
            "smoothness": 0.5,
            "radius": 0.1,
        },
        after=lambda term: term.per_datum(categories, X),
    ),
    Call(
        "InvariantInformation",
        mi.InvariantInformation,
        lambda: {"site": "c", "weight": 1.0, "transform": torch.neg},
        after=lambda term: term.per_datum(categories, X),
    ),
    Call(
        "LabelledCategory",
        mi.LabelledCategory,
        lambda: {"site": "c", "weight": 1.0},
        after=lambda term: term.per_datum(categories, X, torch.arange(6) % 2),
    ),
    Call(
        "observe_category",
        mi.observe_category,
        lambda: {"fn": categories, "labels": torch.arange(6) % 3 - 1, "site": "c"},
        after=lambda program: program(X),
    ),
    Call(
        "maximum_mean_discrepancy",
        terms.maximum_mean_discrepancy,
        lambda: {"a": torch.eye(3), "b": torch.ones(4, 3), "kernel": "imq", "bandwidth": 1.0},
    ),
    objective(
        mi.MutualInformationELBO,
        lambda: (
            common()
            | {
                "num_particles": 2,
                "vectorize_particles": False,
                "retain_graph": None,
            }
        ),
        examples=50,
    ),
    objective(
        mi.SampledCategoricalELBO,
        lambda: common() | {"exact": 1, "draws": 1, "max_plate_nesting": 1},
        after=None,
    ),
    objective(
        mi.RelaxedCategoricalELBO,
        lambda: common() | {"relaxation": "gumbel", "temperature": 0.5},
        after=None,
    ),
    objective(
        mi.InfoGANLoss,
        lambda: {
            "discriminator": nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)),
            "weights": {"z": 1.0},
            "saturating": False,
            "name": "discriminator",
        },
    ),
    Call("explain", mi.explain, lambda: {"objective": mi.MutualInformationELBO()}),
    Call(
        "choose_categories",
        elbo.choose_categories,
        lambda: {
            "log_probs": torch.eye(4).log_softmax(0),
            "uniforms": torch.full((4,), 0.5),
            "exact": 1,
            "draws": 1,
        },
    ),
]
