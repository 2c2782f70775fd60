"""Information between the code and data that the model draws, against closed forms."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal

import pyro_mivae as mi
from pyro_mivae.diagnostics import generative
from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.errors import OptionError
from pyro_mivae.evidence.annealing import AnnealingOptions

from ..evidence.models import (
    GRID,
    SIGMA,
    Chain,
    Linear,
    Mixture,
    holds,
    integral,
    measure,
    mixture_information,
)

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("site", ["z", "anything"])
def test_linear_gaussian(site):
    for pair in (Linear(site=site), Linear(0.4, 1.6, site)):
        _, found = measure(pair, torch.zeros(4, 3), 50)
        holds(found.code(), pair.information, width=0.05)
        assert all(map(torch.equal, found.site(site), found.code()))


class Discrete:
    """Two categories, one given the other; the guide takes them the other way round."""

    def __init__(self):
        generator = torch.Generator().manual_seed(2)

        def table(*shape):
            return (1.5 * torch.randn(*shape, generator=generator)).softmax(-1)

        self.prior_a, self.prior_b, self.likelihood = table(3), table(3, 2), table(3, 2, 5)
        self.guide_b, self.guide_a = table(5, 2), table(5, 2, 3)
        self.joint = self.prior_a[:, None, None] * self.prior_b[..., None] * self.likelihood

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.prior_a))
            b = pyro.sample("b", dist.Categorical(self.prior_b[a]))
            pyro.sample("x", dist.Categorical(self.likelihood[a, b]), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Categorical(self.guide_b[x]))
            pyro.sample("a", dist.Categorical(self.guide_a[x, b]))


def test_a_discrete_model_is_summed_exactly():
    pair = Discrete()
    data, found = measure(pair, torch.arange(5), num_samples=4, items=60)
    x, a, b = data.x, data.code["a"], data.code["b"]
    p_x = pair.joint.sum((0, 1))[x]
    expected = {"code": (pair.likelihood[a, b, x] / p_x).log()}
    for name, index, table in (("a", a, pair.joint.sum(1)), ("b", b, pair.joint.sum(0))):
        prior = table.sum(1)
        entropy = -prior.xlogy(prior).sum()
        expected[name] = (table[index, x] / p_x).log() + entropy
    for name, rows in expected.items():
        for bound in found.code() if name == "code" else found.site(name):
            assert torch.allclose(bound, rows, rtol=1e-9), name


def test_a_mixture_of_gaussians():
    pair = Mixture()
    wide = Normal(pair.centres[:, None], math.hypot(0.6, SIGMA)).log_prob(GRID).exp()
    entropy_x = -integral((p := (pair.probs[:, None] * wide).sum(0)) * p.log())
    about_z = entropy_x - 0.5 * math.log(2 * math.pi * math.e * SIGMA**2)
    about_c = mixture_information(pair.probs, wide)
    x = torch.zeros(4)
    rough, fine = (measure(pair, x, k)[1] for k in (12, 300))
    holds(fine.code(), about_z, width=0.05)
    holds(fine.site("place"), about_z, width=0.05)  # x knows of c through z alone
    holds(fine.site("kind"), about_c, width=0.05)
    for found in (rough, fine):
        entropy = -pair.probs.xlogy(pair.probs).sum()
        assert all((rows <= entropy + 1e-9).all() for rows in found.site("kind"))
    # What is shared cancels: far nearer than the bounds of the evidence itself.
    gap = [float((high - low).mean()) for low, high in (rough.site("kind"), rough.code())]
    assert gap[0] < 0.6 * gap[1]


@pytest.mark.parametrize("backwards", [False, True])
def test_sites_that_depend_on_drawn_ones(backwards):
    cov = torch.tensor([[1.0, 0.5], [0.5, 1.25]])  # of z and w

    def information(variance):  # of z + w, in what is seen twice with unit noise
        return 0.5 * math.log(1 + 2 * variance)

    total = float(cov.sum())
    _, found = measure(Chain(backwards), torch.zeros(4, 2), 150)
    holds(found.code(), information(total), width=0.15)
    for place, name in enumerate("zw"):
        rest = total - float(cov[place].sum() ** 2 / cov[place, place])
        holds(found.site(name), information(total) - information(rest), width=0.2)


def test_ends_are_combined_outwards():
    _, found = measure(Chain(False), torch.zeros(4, 2), 1)
    for name, truth in (("z", 0.458), ("w", 0.530)):  # in closed form, as above
        low, high = (rows.mean() for rows in found.site(name))
        assert low < truth - 0.1
        assert truth + 0.1 < high


class Threshold:
    """A category that depends on a drawn site."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Bernoulli(logits=2 * z))
            pyro.sample("x", dist.Normal(1.5 * c + 0.5 * z, SIGMA), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.8 * x - 0.5, 0.8))
            pyro.sample("c", dist.Bernoulli(logits=z + x))


def test_a_category_given_a_drawn_site():
    z = torch.linspace(-8, 8, 1001)
    on = torch.sigmoid(2 * z)
    prior = Normal(0.0, 1.0).log_prob(z).exp() * (z[1] - z[0])
    joint = torch.stack(
        [
            (
                (prior * share)[:, None]
                * Normal(1.5 * c + 0.5 * z[:, None], SIGMA).log_prob(GRID).exp()
            ).sum(0)
            for c, share in enumerate((1 - on, on))
        ]
    )
    truth = mixture_information(torch.full((2,), 0.5), 2 * joint)
    _, found = measure(Threshold(), torch.zeros(4), 100)
    holds(found.site("c"), truth, width=0.1)


def test_the_size_of_a_batch_changes_no_expectation():
    pair = Linear(0.4, 1.6)
    found = [measure(pair, torch.zeros(4, 3), 20, 300, size)[1] for size in (50, 4096)]
    for small, large in zip(*(f.code() for f in found), strict=True):
        assert abs(small.mean() - large.mean()) < 0.3
        assert abs(small.std() / large.std() - 1) < 0.2


# In the report --------------------------------------------------------------------------------


def test_the_report_says_what_was_measured():
    pair = Mixture()
    x = torch.randn(20)
    report = mi.information(pair.model, pair.guide, x, generative_items=200)
    names = ("generative_mi", "generative_mi_kind", "generative_mi_place")
    for name in names:
        low, high = f"{name}_lower", f"{name}_upper"
        assert 0 <= report[low] <= report[high]
        assert report[f"{low}_se"] > 0
        assert report[f"{high}_se"] > 0
    assert report["generative_mi_place_upper"] <= report["generative_mi_upper"]
    assert report.protocol["generative_items"] == 200
    assert report.protocol["generative_samples"] == 200
    text = "200 data drawn from the model, each a sample of its Normal; 200 importance samples"
    assert report.protocol["generative_mi"].startswith(text)
    again = mi.information(pair.model, pair.guide, x, generative_items=0)
    assert not any(name.startswith("generative") for name in again)
    shared = {name: report[name] for name in again}
    assert shared == dict(again)  # nothing else is moved


def test_annealing_closes_the_bounds(monkeypatch, short_pilot):
    monkeypatch.setattr(measuring, "FAMILIES", (generative.generative_information,))
    monkeypatch.setattr(
        generative, "AnnealingOptions", partial(AnnealingOptions, leapfrog_steps=3)
    )
    pair = Linear(1.5, 0.3)
    options = {"generative_samples": 5, "ais_temperatures": 40}
    wide, close = (
        mi.information(pair.model, pair.guide, torch.zeros(10, 3), ais_items=n, **options)
        for n in (0, 100)
    )
    low, high = "generative_mi_lower", "generative_mi_upper"
    assert wide[high] - wide[low] > 0.5
    assert close[high] - close[low] < 0.2
    assert close[low] - 4 * close[f"{low}_se"] < pair.information
    assert pair.information < close[high] + 4 * close[f"{high}_se"]
    assert close["log_px_ais_gap"] == pytest.approx(close[high] - close[low])
    assert 0 < close["log_px_ais_gap_se"] < 0.1
    assert close.protocol["ais_gap_items"] == 100
    assert "log_px_ais_gap" not in wide
    assert close.protocol["generative_ais_items"] == 100
    assert "100 of them annealed both ways at 40" in close.protocol["generative_mi"]
    assert close.seconds["annealed_generation"] > close.seconds["generative_information"] > 0
    assert "annealed_generation" not in wide.seconds
    assert 0.6 < close.protocol["generative_ais_acceptance"] < 0.95


def test_closer_bounds_take_the_place_of_the_evidence():
    pair = Mixture()
    data, found = measure(pair, torch.zeros(4), 12)
    truth = pair.log_px(data.x)[:30]
    found.closer[""] = truth - 0.1, truth + 0.1
    exact = data.log_likelihood[:30] - truth
    for bounds in (found.code(), found.site("place")):  # x knows of the kind through the place
        assert torch.allclose(bounds[0], exact - 0.1)
        assert torch.allclose(bounds[1], exact + 0.1)
    kind = data.code["kind"][:30].argmax(-1)
    joint = Normal(pair.centres[kind], math.hypot(0.6, SIGMA)).log_prob(data.x[:30])
    joint = joint + pair.probs[kind].log()
    found.closer["kind"] = joint - 0.2, joint + 0.2
    exact = joint - truth - pair.probs.xlogy(pair.probs).sum()
    for bound, slack in zip(found.site("kind"), (-0.3, 0.3), strict=True):
        assert torch.allclose(bound, exact + slack)


def test_binary_data_for_grey_ones():
    torch.set_default_dtype(torch.float32)
    vae = mi.VAE(data_shape=(1, 4, 4), latent_dim=2)
    report = mi.information(vae.model, vae.guide, torch.rand(10, 1, 4, 4), generative_items=10)
    text = report.protocol["generative_mi"]
    assert "its Bernoulli, with whole numbers, unlike the given data" in text
    binary = torch.rand(10, 1, 4, 4).round()
    report = mi.information(vae.model, vae.guide, binary, generative_items=10)
    assert "its Bernoulli; " in report.protocol["generative_mi"]


def undefined(model, guide, x):
    report = mi.information(model, guide, x, iwae_samples=2)
    figures = {n: v for n, v in report.items() if n.startswith("generative")}
    assert {"generative_mi_lower", "generative_mi_upper"} <= set(figures)
    assert all(map(math.isnan, figures.values()))
    return report.protocol["generative_mi"]


def test_what_is_not_defined_is_named(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (generative.generative_information,))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    def model(x, observe):
        with pyro.plate("data", len(x)):
            observe(pyro.sample("z", dist.Normal(0.0, 1.0)))

    def twice(x):
        model(x, lambda z: [pyro.sample(n, dist.Normal(z, 1.0), obs=x) for n in "xy"])

    def halved(x):
        model(x, lambda z: pyro.sample("x", dist.Normal(z, 1.0), obs=x / 2))

    def conditional(x):
        model(x, lambda z: pyro.sample("x", dist.Normal(z + x, 1.0), obs=x))

    def exact(x):
        model(x, lambda z: pyro.sample("x", dist.Delta(z), obs=x))

    def pointed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x))

    def plain(x):
        model(x, lambda z: pyro.sample("x", dist.Normal(z, 1.0), obs=x))

    x = torch.randn(10)
    assert "several sites, x, y" in undefined(twice, guide, x)
    assert "site x is not the model's argument" in undefined(halved, guide, x)
    assert "x depend on the data" in undefined(conditional, guide, x)

    def picky(x):
        if not torch.isin(x, given).all():
            raise IndexError("never seen")
        guide(x)

    given = x
    assert "refuses data drawn from the model: IndexError: never" in undefined(plain, picky, x)
    assert "no density" in undefined(exact, guide, x)
    assert "makes z a function of the data" in undefined(plain, pointed, x)
    with pytest.raises(OptionError, match="generative_items=-1"):
        mi.information(plain, guide, x, generative_items=-1)
