"""The sums over all pairs of a code and a datum, against plain loops."""

import math
import sys
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_mivae.diagnostics.aggregate import (
    aggregate,
    aggregate_conditioned,
)
from pyro_mivae.posterior.densities import Codes
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.probe import probe

N, KINDS, DIMS = 11, 3, 2


pytestmark = pytest.mark.usefixtures("double")


class Guide:
    """kind; place given kind, normal; tint given kind, with full covariance; weight given x."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.probs = normal(N, KINDS).softmax(-1)
        self.place = normal(N, KINDS, DIMS), normal(N, KINDS, DIMS).exp()
        self.tint = normal(N, KINDS, DIMS)
        self.cov = torch.tensor([[1.0, 0.4], [0.4, 0.5]])
        self.weight = normal(N), normal(N).exp()

    def __call__(self, x):
        i = x.long()
        with pyro.plate("data", len(x)):
            k = pyro.sample("kind", dist.Categorical(self.probs[i]))
            loc, scale = (p[i, k] for p in self.place)
            pyro.sample("place", dist.Normal(loc, scale).to_event(1))
            pyro.sample("tint", dist.MultivariateNormal(self.tint[i, k], self.cov))
            pyro.sample("weight", dist.Normal(self.weight[0][i], self.weight[1][i]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Categorical(torch.ones(KINDS)))
            pyro.sample("place", dist.Normal(torch.zeros(DIMS), 1.0).to_event(1))
            pyro.sample("tint", dist.Normal(torch.zeros(DIMS), 1.0).to_event(1))
            weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(weight, 1.0), obs=x)

    def site(self, name, codes, i, j, k):
        """log q of code i's site under datum j, given category k."""
        value = codes.values[name][i]
        if name == "place":
            return Normal(self.place[0][j, k], self.place[1][j, k]).log_prob(value).sum()
        if name == "tint":
            return MultivariateNormal(self.tint[j, k], self.cov).log_prob(value)
        return Normal(self.weight[0][j], self.weight[1][j]).log_prob(value)

    def densities(self, names, codes, rows):
        """Matrix of log q(code_i | x_j); of the whole code, or of sites with kind summed out."""
        table = torch.empty(len(rows), N)
        for row, i in enumerate(rows.tolist()):
            for j in range(N):
                if names is None:
                    k = codes.configuration[i]
                    whole = (self.site(s, codes, i, j, k) for s in ("place", "tint", "weight"))
                    table[row, j] = self.probs[j, k].log() + sum(whole)
                else:
                    parts = [
                        self.probs[j, k] * sum(self.site(s, codes, i, j, k) for s in names).exp()
                        for k in range(KINDS)
                    ]
                    table[row, j] = sum(parts).log()
        return table


@pytest.fixture
def case():
    guide = Guide()
    x = torch.arange(N).double()
    values = {
        "kind": torch.arange(N) % KINDS,
        "place": torch.randn(N, DIMS),
        "tint": torch.randn(N, DIMS),
        "weight": torch.randn(N),
    }
    layout = probe(guide.model, guide, x[:4])
    return guide, x, Codes(values, values["kind"]), ProbedPair(guide.model, guide, layout)


def check(result, table, rows):
    own = table[torch.arange(len(rows)), rows]
    others = table.clone()
    others[torch.arange(len(rows)), rows] = -torch.inf
    torch.testing.assert_close(result.own, own)
    torch.testing.assert_close(result.everyone, table.logsumexp(1) - math.log(N))
    torch.testing.assert_close(result.others, others.logsumexp(1) - math.log(N - 1))
    torch.testing.assert_close(result.lower, own - result.everyone)
    torch.testing.assert_close(result.upper, own - result.others)


def test_the_layout_says_what_depends_on_what(case):
    layout = case[3].layout
    assert layout.enumerated == ("kind",)
    assert layout.drawn == ("place", "tint", "weight")
    assert layout.sizes == (KINDS,)
    assert layout.free == {"kind", "place", "tint", "weight"}
    assert layout.branching == {"place", "tint"}
    assert layout.alone == {"kind", "weight"}


def test_contrasts_are_those_of_the_loops_in_batches_of_any_size(case):
    guide, x, codes, pair = case
    some, every = torch.tensor([1, 4, 10]), torch.arange(N)
    targets = [
        (None, every),
        (None, some),
        (("place",), some),
        (("tint",), every),
        (("weight",), some),
        (("place", "tint", "weight"), every),
    ]
    tables = [guide.densities(names, codes, rows) for names, rows in targets]
    for batch_size in (1, 4, 100):
        results = aggregate(replace(pair, batch_size=KINDS * batch_size), x, codes, targets)
        for (_, rows), table, result in zip(targets, tables, results):
            check(result, table, rows)


def test_small_blocks_change_nothing(case, monkeypatch):
    guide, x, codes, pair = case
    monkeypatch.setattr(sys.modules[aggregate.__module__], "BLOCK", 12)
    rows = torch.arange(N)
    targets = [(None, rows), (("place",), rows)]
    for (names, _), result in zip(
        targets, aggregate(replace(pair, batch_size=4 * KINDS), x, codes, targets)
    ):
        check(result, guide.densities(names, codes, rows), rows)


def test_conditioned_contrasts_are_those_of_the_loops(case):
    guide, x, codes, pair = case
    rows = torch.arange(N)
    result = aggregate_conditioned(pair, x, codes)
    check(result, guide.densities(None, codes, rows), rows)


def test_groups_keep_codes_from_other_data(case):
    guide, x, codes, pair = case
    group = torch.arange(N) % 2
    rows = torch.arange(N)
    table = guide.densities(None, codes, rows)
    table[group[:, None] != group] = -torch.inf
    grouped = Codes(codes.values, codes.configuration, group)
    (result,) = aggregate(replace(pair, batch_size=4 * KINDS), x, grouped, [(None, rows)])
    check(result, table, rows)
    check(aggregate_conditioned(pair, x, grouped), table, rows)
