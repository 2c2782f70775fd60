"""The Barber-Agakov term under plates and masks, and pairs that do not fit."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.terms import InformationTerm, Particle
from pyro_mivae.traces import TracePair

from .discrete import ENUMERATE, TOLERANCE, D, Discrete, assert_close_to, gradients, particle

pytestmark = pytest.mark.usefixtures("double")


# Plates


class Plated(PyroModule):
    """A site of the whole data set and one of each datum; x in a nested plate of pixels."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.pixels = nn.Parameter(torch.tensor(0.7))

    def plate(self, x):
        count = x.shape[-1]
        return pyro.plate("data", self.size or count, dim=-1, subsample=torch.arange(count))

    def model(self, x):
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with self.plate(x):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            with pyro.plate("pixels", D, dim=-2):
                pyro.sample("x", dist.Bernoulli(logits=self.pixels * (c + g)), obs=x)

    def guide(self, x):
        pyro.sample("g", dist.Normal(x.mean(), 0.5))
        with self.plate(x):
            pyro.sample("c", dist.Bernoulli(logits=x.sum(-2)), infer=ENUMERATE)


def plated_particle(pair, x):
    traces = TracePair.run(pair.model, pair.guide, (x,), {}, max_plate_nesting=2)
    return Particle(pair.model, pair.guide, (x,), {}, traces)


@pytest.mark.parametrize("sites", [("g",), ("c",), ("g", "c"), ("c", "g")])
@pytest.mark.parametrize("generated", ["mean", "score-function"])
def test_each_site_is_summed_over_its_own_plates(sites, generated):
    pair, n, size = Plated(size=40), 5, 40
    some = plated_particle(pair, torch.zeros(D, n))
    torch.manual_seed(9)
    value = mi.BarberAgakov(*sites, generated=generated)(some)
    torch.manual_seed(9)
    trace = poutine.trace(pair.model).get_trace(torch.zeros(D, n))
    g, c = (trace.nodes[name]["value"] for name in "gc")
    if generated == "mean":
        x = torch.sigmoid(pair.pixels * (c + g)).expand(D, n)
        recognised = {
            "g": dist.Normal(x.mean(), 0.5).log_prob(g) + dist.Normal(0.0, 1.0).entropy(),
            "c": size / n * (
                dist.Bernoulli(logits=x.sum(0)).log_prob(c) + dist.Bernoulli(0.4).entropy()
            ).sum(),
        }  # fmt: skip
        expected = sum(recognised[name] for name in sites)
        torch.testing.assert_close(value, expected, **TOLERANCE)
    assert value.shape == ()


def test_score_function_in_a_nested_plate():
    """The gradient of E_{x ~ p}[log q(c|x)] by the sum over all images."""
    pair, n = Plated(), 300
    x = torch.zeros(D, n)
    term = mi.BarberAgakov("c", generated="score-function")

    def model(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            with pyro.plate("pixels", D, dim=-2):
                pyro.sample("x", dist.Bernoulli(logits=pair.pixels * c), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            pyro.sample("c", dist.Bernoulli(logits=x.sum(-2)), infer=ENUMERATE)

    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=2)
    table = []
    for _ in range(200):
        value = term(Particle(model, guide, (x,), {}, traces)) / n
        table.append(torch.stack([value, *gradients(value, [pair.pixels])]))
    table = torch.stack(table).detach()
    total = dist.Bernoulli(0.4).entropy()
    for c, mass in ((0.0, 0.6), (1.0, 0.4)):
        for image in itertools.product([0.0, 1.0], repeat=D):
            image = torch.tensor(image)
            log_x = dist.Bernoulli(logits=pair.pixels * c).log_prob(image).sum()
            log_q = dist.Bernoulli(logits=image.sum()).log_prob(torch.tensor(c))
            total = total + mass * log_x.exp() * log_q
    exact = torch.stack([total, *gradients(total, [pair.pixels])]).detach()
    assert_close_to(table.mean(0), table.std(0) / math.sqrt(200), exact, 0.01)


@pytest.mark.parametrize("size", [None, 40])
def test_weight_is_per_datum(size):
    """The share of the term in the loss is the same for any batch size, N/B times on a part."""
    pair = Discrete()

    def plated(program):
        def scaled(x):
            with poutine.scale(scale=1.0 if size is None else size / len(x)):
                program(x)

        return scaled

    ratios = []
    for n in (5, 20):
        objective = mi.MutualInformationELBO(
            [mi.BarberAgakov("c", weight=3.0)], max_plate_nesting=1
        )
        with torch.no_grad():
            pair.pixels.zero_()  # so that the term is the same whatever is drawn
            pair.weight.zero_()
            pair.prior.zero_()
            pair.bias.zero_()
            pair.bias[0] = 1e-3
        objective.loss(plated(pair.model), plated(pair.guide), torch.zeros(n, D))
        entries = objective.ledger
        count = size or n
        ratios.append((entries["mi_c_mean"] / count, entries["distortion"] / count))
    torch.testing.assert_close(ratios[0][1], ratios[1][1], **TOLERANCE)
    torch.testing.assert_close(ratios[0][0], ratios[1][0], rtol=0, atol=1e-3)


def test_mask_leaves_data_out():
    pair = Discrete()
    mask = torch.tensor([True, False, True, False])
    model, guide = (poutine.mask(fn, mask=mask) for fn in (pair.model, pair.guide))
    some = particle(pair, torch.zeros(4, D), model, guide)
    torch.manual_seed(5)
    value = mi.BarberAgakov("c")(some)
    torch.manual_seed(5)
    c = dist.OneHotCategorical(logits=pair.prior).expand([4]).sample()
    log_q = ((c @ pair.pixels).sigmoid() @ pair.weight + pair.bias).log_softmax(-1)
    entropy = dist.Categorical(logits=pair.prior).entropy()
    expected = ((log_q * c).sum(-1) + entropy)[mask].sum()
    torch.testing.assert_close(value, expected, **TOLERANCE)


# Errors


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        ((), {}, r"sites \(\): name one or more latent sites"),
        (("c", "c"), {}, "each once"),
        (
            ("c",),
            {"generated": "softly"},
            "generated='softly'; allowed are mean, relaxed, straight-through",
        ),
        (("c",), {"temperature": 0.0}, "temperature=0.0; allowed .* above 0"),
        (("c",), {"temperature": math.nan}, "temperature=nan; allowed"),
        (("c",), {"weight": math.inf}, "weight=inf; allowed are finite numbers"),
        (("c",), {"weight": -1.0}, "weight=-1.0; allowed .* from 0 up"),
    ],
)
def test_bad_options(sites, options, message):
    with pytest.raises(OptionError, match=message):
        mi.BarberAgakov(*sites, **options)


def two_observed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])


def observing(change):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            seen = change(x)
            fn = dist.Normal(torch.zeros(seen.shape) + z.reshape(-1, *[1] * (seen.dim() - 1)), 1.0)
            pyro.sample("x", fn.to_event(seen.dim() - 1), obs=seen)

    return model


def normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.flatten(1).mean(1), 1.0))


def point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x.flatten(1).mean(1)))


@pytest.mark.parametrize(
    ("term", "model", "guide", "message"),
    [
        ("z", two_observed, normal, r"observes one site; this one observes \['x', 'y'\]"),
        ("z", observing(lambda x: x.reshape(2, 1, 2)), normal, "'x' must be the first argument"),
        ("z", observing(lambda x: x.T), normal, "'x' must be the first argument"),
        ("z", observing(lambda x: x + 0.0), normal, "'x' must be the first argument"),
        ("y", observing(lambda x: x), normal, r"names the site 'y'; the latent sites are \['z'\]"),
        ("x", observing(lambda x: x), normal, "names the site 'x'"),
        ("z", observing(lambda x: x), point, "makes the code 'z' deterministic"),
    ],
)
def test_pairs_that_do_not_fit(term, model, guide, message):
    objective = mi.MutualInformationELBO([mi.BarberAgakov(term)])
    with pytest.raises(SiteError, match=message):
        objective.loss(model, guide, torch.rand(2, 2))


def test_no_relaxation_of_counts():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp()[:, None]).to_event(1), obs=x)

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z", generated="relaxed")])
    with pytest.raises(
        SiteError, match="no relaxation of Poisson; use generated='score-function'"
    ):
        objective.loss(model, normal, torch.ones(2, 1))


def test_a_view_of_the_same_data_is_the_data():
    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")])
    objective.loss(observing(lambda x: x.view(x.shape)), normal, torch.rand(2, 2))
    assert objective.ledger["mi_z_mean"].isfinite()


def test_a_term_of_ones_own():
    class Spread(InformationTerm):
        name = "spread"
        formula = "Var z"

        def __call__(self, particle):
            return particle.traces.guide.nodes["z"]["fn"].mean.var() * len(particle.args[0])

    objective = mi.MutualInformationELBO([Spread("z", weight=2.0)])
    loss = objective.loss(observing(lambda x: x), normal, torch.rand(2, 2))
    entries = objective.ledger
    assert loss == pytest.approx(float(-entries["elbo"] - 2 * entries["spread"]))
    assert "+ 2 * Var z" in mi.explain(objective)


def test_a_note_counts_for_nothing():
    def noted(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("mean", z.expand(2, len(x)).T, event_dim=1)
            pyro.sample("x", dist.Normal(z[:, None].expand(-1, 2), 1.0).to_event(1), obs=x)

    x, found = torch.rand(50, 2), []
    for model in (noted, poutine.block(noted, hide=["mean"])):
        for generated in ("mean", "score-function", "relaxed"):
            objective = mi.MutualInformationELBO([mi.BarberAgakov("z", generated=generated)])
            objective.max_plate_nesting = 1
            torch.manual_seed(0)
            found.append(objective.loss(model, normal, x))
    assert found[:3] == found[3:]


def test_a_factor_leaves_no_prior_to_draw_from():
    def model(x):
        pyro.factor("f", torch.tensor(1.0))
        observing(lambda x: x)(x)

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")])
    with pytest.raises(SiteError, match=r"observes \['f', 'x'\] \(factors count\)"):
        objective.loss(model, normal, torch.rand(2, 2))


def test_every_run_is_on_the_same_sub_sample():
    """The plate scales the term, and the guide reads what its own mini-batch generated."""
    seen = []

    def plate(x):
        return pyro.plate("data", 40, subsample_size=len(x))

    def model(x):
        with plate(x) as i:
            seen.append(i.tolist())
            z = pyro.sample("z", dist.Normal(0.1 * i, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with plate(x) as i:
            seen.append(i.tolist())
            pyro.sample("z", dist.Normal(x + 0.1 * i, 0.7))

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")], max_plate_nesting=1)
    objective.loss(model, guide, torch.zeros(8))
    assert len(seen) == 4
    assert seen[1:] == seen[:-1]


def test_a_sub_sample_that_the_model_takes_itself_is_refused():
    def guide(x):
        with pyro.plate("data", len(x), subsample_size=8) as i:
            pyro.sample("z", dist.Normal(0.1 * x[i], 1.0))

    def model(x):
        with pyro.plate("data", len(x), subsample_size=8) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")], max_plate_nesting=1)
    with pytest.raises(SiteError, match="must be the first argument"):
        objective.loss(model, guide, torch.zeros(40))
