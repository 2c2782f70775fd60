"""Figures of single dimensions and categories: plain loops, closed forms, exact sums."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.mi_bounds import aggregate_dimensions, information_in_code, marginals
from pyro_mivae.diagnostics.report import information
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError
from pyro_mivae.figures import parse
from pyro_mivae.posterior.densities import Codes
from pyro_mivae.posterior.layout import ProbedPair, factors
from pyro_mivae.posterior.probe import probe
from pyro_mivae.tables import by_index

N, KINDS, DIMS = 11, 3, 2


pytestmark = pytest.mark.usefixtures("double", "encoder_side")


class Mixed:
    """Two categories, and sites of several families, some of which depend on the first alone."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.probs, self.side = normal(N, KINDS).softmax(-1), normal(N, 2).softmax(-1)
        self.place = normal(N, KINDS, DIMS), normal(N, KINDS, DIMS).exp()
        self.share = normal(N, KINDS, DIMS).exp() + 1, normal(N, KINDS, DIMS).exp() + 1
        self.tint = normal(N, KINDS, DIMS)
        self.cov = torch.tensor([[1.0, 0.4], [0.4, 0.5]])
        self.weight = normal(N), normal(N).exp()
        self.low = torch.linspace(0.0, 1.5, N)

    def fns(self, i, k):
        return {
            "place": dist.Normal(*(p[i, k] for p in self.place)).to_event(1),
            "share": dist.Beta(*(p[i, k] for p in self.share)).to_event(1),
            "tint": dist.MultivariateNormal(self.tint[i, k], self.cov),
            "weight": ProbitNormal(self.weight[0][i], self.weight[1][i]),
            "band": dist.Uniform(self.low[i], self.low[i] + 1.0),
            "wait": dist.Pareto(self.low[i] + 1.0, 2.0),  # scores values below its support too
        }

    def __call__(self, x):
        i = x.long()
        with pyro.plate("data", len(x)):
            k = pyro.sample("kind", dist.Categorical(self.probs[i]))
            pyro.sample("side", dist.Categorical(self.side[i]))
            for name, fn in self.fns(i, k).items():
                pyro.sample(name, fn)

    def model(self, x):
        zero, half = torch.zeros(DIMS), torch.full((DIMS,), 0.5)
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Categorical(torch.ones(KINDS)))
            pyro.sample("side", dist.Categorical(torch.ones(2)))
            place = pyro.sample("place", dist.Normal(zero, 1.0).to_event(1))
            pyro.sample("share", dist.Beta(half, 1.0).to_event(1))
            pyro.sample("tint", dist.MultivariateNormal(zero, torch.eye(DIMS)))
            pyro.sample("weight", dist.Uniform(0.0, 1.0))
            pyro.sample("band", dist.Uniform(-1.0, 3.0))
            pyro.sample("wait", dist.Pareto(1.0, 1.0))
            pyro.sample("x", dist.Normal(place.sum(-1), 1.0), obs=x)

    def coordinate(self, name, j, k):
        if name == "tint":
            return Normal(self.tint[j, k], self.cov.diagonal().sqrt())
        return factors(self.fns(torch.tensor(j), torch.tensor(k))[name])


def test_single_coordinates_are_those_of_the_loops(monkeypatch):
    guide = Mixed()
    x = torch.arange(N).double()
    with pyro.plate("data", N):
        kind = torch.arange(N) % KINDS
        values = {name: fn.sample() for name, fn in guide.fns(torch.arange(N), kind).items()}
    layout = probe(guide.model, guide, x[:4])
    assert layout.sizes == (2, KINDS)
    assert layout.branching == {"place", "share", "tint"}
    codes = Codes({"kind": kind, "side": kind % 2, **values}, kind, None)
    found = []
    for batch_size, block in ((4, 2**22), (100, 2**22), (4, 40), (100, 40)):
        monkeypatch.setattr(sys.modules["pyro_mivae.diagnostics.aggregate"], "BLOCK", block)
        pair = ProbedPair(guide.model, guide, layout, batch_size=2 * KINDS * batch_size)
        found.append(aggregate_dimensions(pair, x, codes, values))
    for name, value in values.items():
        rows = value.reshape(N, -1)
        table = torch.zeros(N, N, rows.shape[1])
        for j in range(N):
            for k in range(KINDS):
                fn = guide.coordinate(name, j, k)
                inside = fn.support.check(rows)
                density = fn.log_prob(rows.where(inside, fn.mean)).exp()
                table[:, j] += guide.probs[j, k] * density.where(inside, torch.tensor(0.0))
        own = table[torch.arange(N), torch.arange(N)]
        others = (table.sum(1) - own) / (N - 1)
        close = {"rtol": 1e-4, "atol": 1e-5}  # others are summed in single precision
        for result in (results[name] for results in found):
            torch.testing.assert_close(result.own, own.log(), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(result.everyone, table.mean(1).log(), **close)
            torch.testing.assert_close(result.others, others.log(), **close)


def test_a_code_far_from_all_others_is_no_less_far():
    """Densities that underflow are kept as logarithms: nothing is cut off on the upper side."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.01))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.0, 1.0, 4.0])
    codes = Codes({"z": x}, torch.zeros(3, dtype=torch.long), None)
    pair = ProbedPair(model, guide, probe(model, guide, x), batch_size=2)
    result = aggregate_dimensions(pair, x, codes, ["z"])["z"]
    expected = torch.tensor([1e4 / 2, 1e4 / 2, 9e4 / 2]) + math.log(2)
    torch.testing.assert_close(result.upper[:, 0], expected, rtol=1e-5, atol=0.0)


def test_what_ties_dimensions_together():
    normal = dist.Normal(torch.zeros(4, 2, 3), 1.0)
    assert factors(normal.to_event(2)) is normal
    tied = dist.MultivariateNormal(torch.ones(4, 2), torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
    assert factors(tied) is None
    torch.testing.assert_close(marginals(tied).scale, torch.tensor([[2.0, 1.0]] * 4))
    assert marginals(dist.Dirichlet(torch.ones(3))) is None


class Linear:
    """x ~ N(0, I), z = G x + b + noise: a diagonal guide that need not be any posterior."""

    def __init__(self, gain, offset, scale):
        self.gain, self.offset, self.scale = gain, offset, scale

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(self.scale)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.gain, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = x @ self.gain.T + self.offset
            pyro.sample("z", dist.Normal(loc, self.scale).to_event(1))

    def truth(self):
        return 0.5 * torch.log1p((self.gain @ self.gain.T).diagonal() / self.scale**2)


GAIN = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [3.0, -1.0, 2.0]], dtype=torch.float64)
GUIDES = {
    "close to the posterior": (0.5, 0.0, [0.7, 1.0, 0.3]),
    "of the wrong scale": (0.5, 0.0, [1.5, 2.0, 1.0]),
    "of the wrong offset": (0.5, 3.0, [0.7, 1.0, 0.3]),
    "collapsed": (0.0, 0.0, [1.0, 1.0, 1.0]),
    "over-confident": (0.5, 0.0, [0.05, 0.1, 0.05]),
}


@pytest.mark.parametrize("name", GUIDES)
def test_dimensions_of_a_linear_guide_are_the_closed_forms(name):
    gain, offset, scale = GUIDES[name]
    pair = Linear(gain * GAIN, torch.full((3,), offset), torch.tensor(scale))
    x = torch.randn(1500 if name == "over-confident" else 600, 3)
    report = information(pair.model, pair.guide, x, iwae_samples=1)
    found, truth = report.dimensions("z"), pair.truth()
    few = information(pair.model, pair.guide, x[:5], iwae_samples=1).dimensions("z")
    assert (few["mi_upper"] <= few["kl"]).all()  # where the data are too few to say more
    assert set(found) == {f"{k}{se}" for k in ("kl", "mi_lower", "mi_upper") for se in ("", "_se")}
    costs = kl_divergence(Normal(x @ pair.gain.T + offset, pair.scale), Normal(0.0, 1.0))
    torch.testing.assert_close(found["kl"], costs.mean(0))
    torch.testing.assert_close(found["kl_se"], costs.std(0) / math.sqrt(len(x)))
    assert math.isclose(found["kl"].sum(), report["kl_z"], rel_tol=1e-9)
    assert (found["mi_lower"] <= truth + 4 * found["mi_lower_se"]).all()
    assert (found["mi_upper"] >= truth - 4 * found["mi_upper_se"]).all()
    assert (found["mi_upper"] <= found["kl"]).all()
    assert (found["mi_upper"] - found["mi_lower"] < 0.1).all()
    assert found["mi_upper"][1] < 0.01  # nothing goes there


@pytest.mark.slow
def test_codes_on_an_interval_are_measured_too():
    """I(x; Phi(u)) = I(x; u), and so is the divergence; the Beta's by numerical integration."""
    scale = torch.tensor([0.3, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Uniform(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("b", dist.Uniform(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(c.sum(-1), 1.0), obs=x)

    def guide(x):
        loc = torch.stack([x, 0 * x], -1)
        with pyro.plate("data", len(x)):
            pyro.sample("c", ProbitNormal(loc, scale.expand(len(x), 2)).to_event(1))
            heads = (1 + 9 * x.sigmoid())[:, None]
            pyro.sample("b", dist.Beta(heads, 11 - heads).to_event(1))

    x = torch.randn(1000)
    report = information(model, guide, x, iwae_samples=1)
    found = report.dimensions("c")
    truth = torch.tensor([0.5 * math.log(1 + 1 / 0.09), 0.0])
    assert (found["mi_lower"] <= truth + 4 * found["mi_lower_se"] + 1e-9).all()
    assert (found["mi_upper"] >= truth - 4 * found["mi_upper_se"] - 1e-9).all()
    assert (found["mi_upper"] - found["mi_lower"] < 0.03).all()
    # Pyro knows no divergence of a ProbitNormal from a Uniform, so it is drawn, here as there.
    assert math.isclose(found["kl"].sum(), report["kl_c"], rel_tol=1e-9)

    grid = torch.linspace(0.0005, 0.9995, 1000)
    heads = (1 + 9 * x.sigmoid())[:, None]
    density = dist.Beta(heads, 11 - heads).log_prob(grid).exp()
    truth = (density.xlogy(density) - density.xlogy(density.mean(0))).mean()
    found = report.dimensions("b")
    assert found["mi_lower"] - 4 * found["mi_lower_se"] < truth
    assert truth < found["mi_upper"] + 4 * found["mi_upper_se"]
    assert found["mi_upper"] - found["mi_lower"] < 0.02


def test_a_prior_that_ties_dimensions_leaves_their_divergence_undefined():
    def model(x):
        with pyro.plate("data", len(x)):
            cov = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), cov))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 0.5).to_event(1))

    found = information(model, guide, torch.randn(400), iwae_samples=1).dimensions("z")
    assert found["kl"].isnan().all()
    truth = 0.5 * math.log(1 + 1 / 0.25)
    assert (abs(found["mi_lower"] - truth) < 4 * found["mi_lower_se"]).all()


def test_divergence_of_dimensions_given_a_category_is_its_mean_over_categories():
    probs = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    loc = torch.tensor([[0.0, 1.0], [2.0, -1.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2)))
            z = pyro.sample("z", dist.Normal(loc[c], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(probs[x.long()]))
            pyro.sample("z", dist.Normal(-loc[c], 0.5).to_event(1))

    x = torch.arange(3.0)
    report = information(model, guide, x, iwae_samples=1)
    each = kl_divergence(Normal(-loc, 0.5), Normal(loc, 1.0))  # (category, dim)
    torch.testing.assert_close(report.dimensions("z")["kl"], (probs @ each).mean(0))


def test_shares_of_categories_are_the_exact_sums():
    generator = torch.Generator().manual_seed(4)
    table = (1.5 * torch.randn(6, 4, generator=generator)).softmax(-1)
    counts = torch.tensor([1, 2, 3, 4, 5, 6])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4])))
            pyro.sample("x", dist.Normal(c.double(), 1.0), obs=x.double())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "c", dist.OneHotCategorical(table[x]) if one_hot else dist.Categorical(table[x])
            )

    one_hot = False
    x = torch.arange(6).repeat_interleave(counts)
    report = information(model, guide, x, iwae_samples=1)
    q = counts / counts.sum()
    mean = q @ table
    truth = (q[:, None] * table * (table / mean).log()).sum(0)
    found = report.dimensions("c")
    assert "kl" not in found
    torch.testing.assert_close(found["mi_lower"], truth)
    assert (truth >= 0).all()
    assert math.isclose(truth.sum(), report["mi_c_lower"], rel_tol=1e-9)
    rows = table[x]
    others = (rows.sum(0) - rows) / (len(x) - 1)
    left_out = (rows * (rows / others).log()).mean(0)
    rest = report["mi_c_upper"] - (truth.sum() - truth)
    torch.testing.assert_close(found["mi_upper"], torch.minimum(left_out, rest))
    assert found["mi_upper"].sum() >= report["mi_c_upper"] - 1e-12
    torch.testing.assert_close(
        found["mi_lower_se"], (rows * (rows / mean).log()).std(0) / math.sqrt(len(x))
    )


def test_no_category_holds_more_than_the_site_less_the_others():
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(table.mean(0)))
            pyro.sample("x", dist.Normal(c.double(), 1.0), obs=x.double())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(table[x]))

    report = information(model, guide, torch.arange(2), iwae_samples=1)
    assert math.isclose(report["mi_c_upper"], report["mi_c_lower"], rel_tol=1e-9)  # it is the KL
    found = report.dimensions("c")
    torch.testing.assert_close(found["mi_upper"], found["mi_lower"])


def test_shares_bound_those_of_a_population_on_either_side(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (information_in_code,))
    generator = torch.Generator().manual_seed(4)
    table = (1.5 * torch.randn(6, 4, generator=generator)).softmax(-1)
    truth = (table * (table / table.mean(0)).log()).mean(0)

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(4)))
            pyro.sample("x", dist.Normal(c.double(), 1.0), obs=x.double())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(table[x]))

    low, high = [], []
    for seed in range(40):
        x = torch.randint(6, (10,), generator=generator.manual_seed(seed))
        found = information(model, guide, x, num_samples=1).dimensions("c")
        low.append(found["mi_lower"])
        high.append(found["mi_upper"])
    for rows, sign in ((torch.stack(low), 1), (torch.stack(high), -1)):
        error = rows.std(0) / math.sqrt(len(rows))
        assert (sign * (truth - rows.mean(0)) > -3 * error).all()


def test_printed_tables_leave_single_dimensions_out():
    pair = Linear(GAIN, torch.zeros(3), torch.ones(3))
    report = information(pair.model, pair.guide, torch.randn(20, 3), iwae_samples=1)
    assert "mi_z[2]_lower_se" in report.to_dict()
    assert "[" not in str(report)
    with pytest.raises(OptionError, match="'w' has no figures.*allowed are: z"):
        report.dimensions("w")


def test_names_of_single_figures_are_told_apart():
    found = [parse(text).index for text in ("kl_z[0]", "kl_z[12]_se", "mi_my_site[3]_lower")]
    assert found == [0, 12, 3]
    whole = ("kl_z", "mi_z_lower", "total_correlation", "linear_probe")
    assert not any(parse(text).index is not None for text in whole)
    figures = {"mi_z[10]_upper": 10.0, "mi_z[2]_upper": 2.0, "mi_zz[0]_upper": 7.0}
    assert by_index(figures, "z")["mi_upper"].tolist() == [2.0, 10.0]
    assert math.isnan(by_index({"kl_z[0]": None}, "z")["kl"])
    with pytest.raises(OptionError, match="allowed are: none"):
        by_index({"elbo": 1.0}, "z")
