"""Traces of a pair: which divergences are in closed form, and means over enumerated sites."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_mivae.errors import SiteError
from pyro_mivae.traces import TracePair

ENUMERATE = {"enumerate": "parallel"}
N, K, D = 4, 3, 2


def vector(scale):
    return dist.Normal(torch.ones(D), scale).to_event(1)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


def run(model, guide, nesting=1):
    return TracePair.run(model, guide, (), {}, max_plate_nesting=nesting)


def one_site(fn, name="z", **options):
    def program():
        with pyro.plate("data", N):
            return pyro.sample(name, fn, **options)

    return program


@pytest.mark.parametrize(
    ("q", "p", "closed"),
    [
        (dist.Normal(1.0, 0.5), dist.Normal(0.0, 2.0), True),
        (dist.Gamma(2.0, 3.0), dist.Gamma(1.0, 1.0), True),
        (vector(0.5), vector(2.0), True),
        (dist.LogNormal(0.0, 1.0), dist.Gamma(1.0, 1.0), False),
        (dist.Normal(0.0, 1.0), dist.StudentT(3.0), False),
        (dist.Delta(torch.tensor(0.5)), dist.Normal(0.0, 1.0), False),
        (dist.Delta(torch.tensor(0.5)).expand([N]), dist.Normal(0.0, 1.0), False),
    ],
)
def test_closed_forms(q, p, closed):
    pair = run(one_site(p), one_site(q))
    divergence = pair.divergence("z")
    assert (divergence is not None) == closed
    if closed:
        expected = kl_divergence(q, p).expand(N)
        torch.testing.assert_close(divergence, expected)
        torch.testing.assert_close(pair.rate("z"), expected.sum())
    else:
        z = pair.guide.nodes["z"]["value"]
        torch.testing.assert_close(pair.rate("z"), (q.log_prob(z) - p.log_prob(z)).sum())


@pytest.mark.parametrize("scale", [1.0, 2.0, torch.tensor(2.0)])
def test_an_enumerated_site_has_the_scale_of_its_own_program(scale):
    q, p = (torch.rand(N, K).softmax(-1) for _ in range(2))
    model = pyro.poutine.scale(one_site(dist.Categorical(p), "c"), scale=scale)
    pair = run(model, one_site(dist.Categorical(q), "c", infer=ENUMERATE))
    expected = (q * (q.log() - scale * p.log())).sum()
    torch.testing.assert_close(pair.rate("c"), expected)


@pytest.mark.parametrize("family", [dist.OneHotCategorical, dist.Categorical])
@pytest.mark.parametrize("shape", [(K,), (N, K)])
def test_the_density_of_a_whole_support(family, shape):
    q, p = family(logits=torch.randn(N, K)), family(logits=torch.randn(shape))
    pair = run(one_site(p, "c"), one_site(q, "c", infer=ENUMERATE))
    value = pair.guide.nodes["c"]["value"]
    torch.testing.assert_close(pair.log_density("c"), q.log_prob(value), rtol=0, atol=0)
    expected = (q.probs * (q.logits - p.logits)).sum()
    torch.testing.assert_close(pair.rate("c"), expected)


def test_a_support_in_another_order_keeps_its_densities():
    q = dist.OneHotCategorical(logits=torch.randn(1, K))
    guide, model = (
        pyro.poutine.trace(one_site(q, "c", infer=dict(ENUMERATE))).get_trace() for _ in range(2)
    )
    value = q.enumerate_support(expand=False).flip(0)
    for trace in (guide, model):
        trace.nodes["c"]["infer"]["_enumerate_dim"] = -2
        trace.nodes["c"]["value"] = value
    density = TracePair(guide, model).log_density("c")
    torch.testing.assert_close(density[:, 0], q.logits[0].flip(0))


def test_costs_of_one_shape_are_weighed_as_each_by_itself():
    q = dist.OneHotCategorical(logits=torch.tensor([[0.0, 1.0, -math.inf]]))
    pair = run(one_site(q, "c"), one_site(q, "c", infer=ENUMERATE))
    site = pair.guide.nodes["c"]
    costs = [torch.randn(K, N), torch.randn(K, N).index_fill(0, torch.tensor(2), math.inf)]
    costs += [torch.randn(N), torch.randn(K, 1)]
    together = pair.expectations([(cost, site) for cost in costs])
    for cost, total in zip(costs, together, strict=True):
        torch.testing.assert_close(total, pair.expectation(cost, site))
        probs = q.probs.T if cost.dim() == 2 else torch.ones(())
        wanted = torch.where(probs == 0, 0.0, probs * cost).sum()
        torch.testing.assert_close(total, wanted * (N if cost.shape == (K, 1) else 1))


@pytest.mark.parametrize("order", [("z", "y"), ("y", "z")])
def test_no_closed_form_given_what_is_drawn_later(order):
    def program(names):
        def draw():
            with pyro.plate("data", N):
                for name in names:
                    pyro.sample(name, dist.Normal(0.0, 1.0))

        return draw

    pair = run(program(order), program(("z", "y")))
    known = {name for name in "zy" if pair.divergence(name) is not None}
    assert known == ({"z", "y"} if order == ("z", "y") else {"y"})


def mixture(scalar=False, second=False):
    """A guide whose z depends on one category, or on two of which one depends on the other."""
    torch.manual_seed(2)
    logits = torch.randn(N, K), torch.randn(K, K)
    loc = torch.randn(K, N, D)

    def guide():
        with pyro.plate("data", N):
            c = pyro.sample("c", dist.Categorical(logits=logits[0]), infer=ENUMERATE)
            if second:
                b = pyro.sample("b", dist.Categorical(logits=logits[1][c]), infer=ENUMERATE)
                mean = loc[b, torch.arange(N)] * (1.0 + c[..., None])
            else:
                mean = loc[c, torch.arange(N)]
            normal = dist.Normal(mean[..., 0], 1.0) if scalar else dist.Normal(mean, 1.0)
            pyro.sample("z", normal if scalar else normal.to_event(1))

    def model():
        with pyro.plate("data", N):
            c = pyro.sample("c", dist.Categorical(torch.ones(K)))
            if second:
                pyro.sample("b", dist.Categorical(torch.ones(K)))
            zero = torch.zeros(()) if scalar else torch.zeros(D)
            normal = dist.Normal(zero * c[..., None].sum(), 1.0)
            pyro.sample("z", normal if scalar else normal.to_event(1))

    q = logits[0].softmax(-1)
    if second:
        joint = q[:, :, None] * logits[1].softmax(-1)  # (N, K, K)
        factor = 1 + torch.arange(K)
        mean = torch.einsum("ncb,c,bnd->nd", joint, factor.double(), loc)
    else:
        mean = torch.einsum("nc,cnd->nd", q, loc)
    return model, guide, q, mean[:, 0] if scalar else mean


@pytest.mark.parametrize("scalar", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_marginal_means_sum_the_categories_out(scalar, second):
    model, guide, q, mean = mixture(scalar, second)
    pair = run(model, guide)
    torch.testing.assert_close(pair.marginal_mean("c"), q)
    torch.testing.assert_close(pair.marginal_mean("z"), mean)
    if second:
        assert pair.marginal_mean("b").shape == (N, K)
        torch.testing.assert_close(pair.marginal_mean("b").sum(-1), torch.ones(N))


def test_marginal_mean_of_a_single_category():
    def program(infer=None):
        def draw():
            with pyro.plate("data", N):
                c = pyro.sample("c", dist.OneHotCategorical(torch.ones(1)), infer=infer)
                pyro.sample("z", dist.Normal(c.expand(*c.shape[:-1], D), 1.0).to_event(1))

        return draw

    pair = run(program(), program(ENUMERATE))
    assert pair.marginal_mean("c").shape == (N, 1)
    assert pair.marginal_mean("z").shape == (N, D)


def test_draws_everything_when_no_nesting_is_given():
    model, guide, *_ = mixture()
    pair = run(model, guide, nesting=None)
    assert pair.enumerated == []
    assert pair.latent == ["c", "z"]
    assert pair.guide.nodes["c"]["value"].shape == (N,)


def test_observed_latent_and_auxiliary_sites():
    def model():
        with pyro.plate("data", N, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    def guide():
        with pyro.plate("data", N, subsample_size=2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(a))

    pair = run(model, guide)
    assert (pair.observed, pair.latent, pair.auxiliary) == (["x"], ["z"], ["a"])


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (one_site(dist.Normal(0.0, 1.0)), one_site(dist.Normal(0.0, 1.0), "y")),
        (one_site(dist.Normal(0.0, 1.0)), lambda: None),
    ],
)
def test_sites_that_do_not_match(model, guide):
    with pytest.raises(SiteError, match="are not in both; sample the same sites in each"):
        run(model, guide)
