"""The gradient of a sampled divergence: its expectation is exact, and its noise small."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import kl_divergence

from pyro_mivae.distributions import NormalMixture
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.guides import CouplingFlow, InverseAutoregressiveFlow
from pyro_mivae.traces import TracePair

ROWS, DIMS = 20_000, 2
X = torch.tensor(0.8)
LOC, SCALE = torch.tensor([0.3, -0.5]), torch.tensor([0.6, 1.4])


def prior(loc=0.0, scale=1.0):
    """A Normal as a mixture of one component: it has no closed form here."""
    normal = dist.Normal(torch.full((1, DIMS), loc), torch.full((1, DIMS), scale)).to_event(1)
    return NormalMixture(dist.Categorical(torch.ones(1)), normal)


def rate(q, p):
    """Divergence of each row of draws, shape ``(ROWS,)``."""

    def program(fn):
        def run():
            with pyro.plate("data", ROWS):
                pyro.sample("z", fn)

        return run

    pair = TracePair.run(program(p), program(q), (), {}, max_plate_nesting=1)
    ((cost, _),) = pair.rate_costs("z")
    return cost


def by_row(*values):
    """Parameters with a row, and so a gradient, for each draw."""
    return [v.expand(ROWS, *v.shape).clone().requires_grad_() for v in values]


def close(found, exact):
    """Compares the mean over rows to an exact value, within five standard errors."""
    error = found.std(0) / ROWS**0.5
    assert ((found.mean(0) - exact).abs() <= 5 * error + 1e-5).all()


FAMILIES = {
    "independent": (
        lambda loc, scale: dist.Normal(loc, scale).to_event(1),
        (LOC, SCALE),
    ),
    "full covariance": (
        lambda loc, tril: dist.MultivariateNormal(loc, scale_tril=tril.tril()),
        (LOC, torch.tensor([[0.6, 0.0], [0.5, 1.4]])),
    ),
    "low rank": (
        dist.LowRankMultivariateNormal,
        (LOC, torch.tensor([[0.5], [-0.3]]), SCALE),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_of_a_normal_is_exact_in_expectation(name):
    family, values = FAMILIES[name]
    rows = by_row(*values)
    found = torch.autograd.grad(rate(family(*rows), prior()).sum(), rows)
    free = [v.clone().requires_grad_() for v in values]
    standard = dist.MultivariateNormal(torch.zeros(DIMS), torch.eye(DIMS))
    q = family(*free)
    if name == "independent":
        q = dist.MultivariateNormal(free[0], scale_tril=torch.diag(free[1]))
    exact = torch.autograd.grad(kl_divergence(q, standard), free)
    for mean, true in zip(found, exact, strict=True):
        close(mean, true)


def test_gradient_has_no_noise_where_the_guide_is_the_prior():
    rows = by_row(torch.full((DIMS,), 0.7), torch.full((DIMS,), 1.3))
    q = dist.Normal(*rows).to_event(1)
    cost = rate(q, prior(0.7, 1.3))
    for gradient in torch.autograd.grad(cost.sum(), rows):
        assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("family", [dist.Laplace, dist.StudentT], ids=["Laplace", "StudentT"])
def test_other_families_keep_the_whole_gradient(family):
    scale = torch.tensor(0.7, requires_grad=True)
    options = (4.0, 0.2, scale) if family is dist.StudentT else (0.2, scale)

    def model():
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Cauchy(0.0, 1.0)), 1.0), obs=X)

    def guide():
        pyro.sample("z", family(*options))

    found = []
    for objective in (Trace_ELBO(max_plate_nesting=0), MutualInformationELBO(max_plate_nesting=0)):
        torch.manual_seed(0)
        value = objective.differentiable_loss(model, guide)
        found.append((value.detach(), *torch.autograd.grad(value, scale)))
    torch.testing.assert_close(*found)


def test_value_is_that_of_pyro():
    loc = LOC.clone().requires_grad_()

    def model():
        pyro.sample("x", dist.Normal(pyro.sample("z", prior()).sum(), 1.0), obs=X)

    def guide():
        pyro.sample("z", dist.Normal(loc, SCALE).to_event(1))

    found = []
    for objective in (Trace_ELBO(max_plate_nesting=0), MutualInformationELBO(max_plate_nesting=0)):
        torch.manual_seed(0)
        found.append(objective.differentiable_loss(model, guide).detach())
    torch.testing.assert_close(*found)


FLOWS = {"iaf": InverseAutoregressiveFlow, "affine-coupling": CouplingFlow}


def flow_and_params(name, *, trained):
    torch.manual_seed(1)
    flow = FLOWS[name](DIMS, num_layers=2, hidden_dim=4, context_dim=1)
    if trained:
        for param in flow.parameters():
            torch.nn.init.normal_(param, std=0.5)
    params = torch.tensor([0.3, -0.5, 0.2, 0.4, 0.6])
    return flow, params


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_that_is_not_trained_has_no_noise_where_its_normal_is_the_prior(name):
    flow, params = flow_and_params(name, trained=False)
    (rows,) = by_row(params)
    fn = flow(rows)
    loc, scale = (part.detach()[:1] for part in (fn.last.loc, fn.last.scale))
    p = NormalMixture(dist.Categorical(torch.ones(1)), dist.Normal(loc, scale).to_event(1))
    (gradient,) = torch.autograd.grad(rate(fn, p).sum(), rows)
    assert gradient[:, : 2 * DIMS].abs().max() < 1e-5


@pytest.mark.parametrize("name", FLOWS)
def test_gradient_of_a_flow_is_that_of_its_density_in_expectation(name):
    flow, params = flow_and_params(name, trained=True)
    found = []
    for seed, estimate in enumerate([rate, plain]):
        torch.manual_seed(seed)
        (rows,) = by_row(params)
        cost = estimate(flow(rows), prior())
        (gradient,) = torch.autograd.grad(cost.sum(), rows)
        found.append(torch.cat([cost.detach()[:, None], gradient], 1))
    ours, theirs = found
    error = (ours.var(0) + theirs.var(0)).sqrt() / ROWS**0.5
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + 1e-5).all()


def plain(q, p):
    z = q()
    return q.log_prob(z) - p.log_prob(z)
