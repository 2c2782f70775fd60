"""Densities of the priors: they integrate to one, draws follow them, gradients are right."""

import pytest
import torch

import pyro_mivae as mi
from tests.densities import check_flow

from .kinds import FLOWS, KINDS, PLANE, draw, log_density, scattered


@pytest.fixture(autouse=True)
def in_double(double):
    """Numbers in double precision."""


def grid(half, count):
    """Centres of square cells, shape (count^2, 2), and the area of one."""
    line = (torch.arange(count) + 0.5) * (2 * half / count) - half
    return torch.cartesian_prod(line, line), (2 * half / count) ** 2


@pytest.mark.parametrize("name", PLANE)
def test_the_density_integrates_to_one_and_draws_follow_it(name):
    prior = scattered(KINDS[name]())
    half = {"student-t": 60.0, "coupling": 30.0, "spline": 7.0}.get(name, 16.0)
    points, area = grid(half, 300 if name == "spline" else 600)
    with torch.no_grad():
        mass = log_density(prior, points).exp() * area
        code = draw(prior, 20_000).nodes["_RETURN"]["value"]
    outside = 1e-3 if name == "student-t" else 1e-6  # P(|t_3| > 60 / 3^-0.5) twice
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-3 + outside)
    for direction in torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -2.0]]):
        for shift in (-1.0, 0.0, 1.5):  # a smooth step across the plane
            step = torch.sigmoid(2 * (points @ direction - shift))
            found = torch.sigmoid(2 * (code @ direction - shift))
            error = float(found.std()) / len(code) ** 0.5
            expected = float((mass * step).sum())
            assert float(found.mean()) == pytest.approx(expected, abs=4.5 * error + 1e-3 + outside)


def test_the_category_and_its_gaussian_have_the_joint_density_of_the_marginal():
    torch.manual_seed(1)
    joint = scattered(KINDS["learned mixture"]())
    marginal = KINDS["marginal mixture"]()
    marginal.load_state_dict(joint.state_dict())
    z = torch.randn(7, 2)
    total = []
    for c in torch.eye(3):
        trace = draw(joint, 7, c=c.expand(7, 3), z=z)
        total.append(sum(trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]) for n in "cz"))
    torch.testing.assert_close(torch.stack(total).logsumexp(0), log_density(marginal, z))


@pytest.mark.parametrize("name", [n for n in PLANE if list(KINDS[n]().parameters())])
def test_the_gradient_is_that_of_finite_differences(name):
    prior = scattered(KINDS[name]())
    points = torch.randn(4, 2)
    parameters = dict(prior.named_parameters())
    gradients = torch.autograd.grad(log_density(prior, points).sum(), list(parameters.values()))
    for (key, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            ends = []
            for step in (1e-5, -2e-5):
                parameter.add_(step * direction)
                ends.append(float(log_density(prior, points).sum()))
            parameter.add_(1e-5 * direction)
        slope = (ends[0] - ends[1]) / 2e-5
        found = float((gradient * direction).sum())
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-7), key


@pytest.mark.parametrize("name", FLOWS)
def test_the_density_of_a_flow_is_that_of_its_noise(name, monkeypatch):
    prior = scattered(mi.FlowPrior(5, name, hidden_dims=(8,)))
    check_flow(prior.distribution, 5, monkeypatch)


def test_student_t_has_unit_variance_and_heavy_tails():
    fn = draw(mi.StudentTPrior(1, df=5.0), 1).nodes["z"]["fn"]
    torch.testing.assert_close(fn.variance, torch.ones(1, 1))
    four = torch.tensor([[4.0]])
    normal = float(torch.distributions.Normal(0.0, 1.0).log_prob(four))
    assert float(fn.log_prob(four)) > normal + 2
    near = draw(mi.StudentTPrior(1, df=1e6), 1).nodes["z"]["fn"].log_prob(four)
    assert float(near) == pytest.approx(normal, abs=1e-3)


@pytest.mark.parametrize("name", FLOWS)
def test_samples_of_a_variant_pass_through_the_flow(name):
    """With the identity as decoder, samples have the flow's moments and not those of N(0, I)."""
    prior = scattered(KINDS[name](), 0.3)
    with torch.no_grad():
        draws = draw(prior, 20_000).nodes["_RETURN"]["value"]
    vae = mi.VAE(
        (2,), prior=prior, decoder=torch.nn.Identity(), likelihood=mi.GaussianLikelihood()
    )
    samples = vae.sample(20_000)
    spread = (draws.std(0) / 20_000**0.5).amax()
    torch.testing.assert_close(samples.mean(0), draws.mean(0), atol=6 * float(spread), rtol=0)
    apart = float((draws.mean(0)).norm() + (draws.T.cov() - torch.eye(2)).norm())
    assert apart > 0.3
    torch.testing.assert_close(samples.T.cov(), draws.T.cov(), atol=0.1, rtol=0.1)
    # Where a mean is needed, it is that of draws, and random numbers stay as they were.
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    mean = vae.decode({}, 3)
    assert torch.equal(torch.rand(1), expected)
    error = float(draws.std(0).max()) / 10
    torch.testing.assert_close(mean, draws.mean(0).expand(3, 2), atol=5 * error, rtol=0)
    assert torch.equal(mean, vae.decode({}, 3))
