"""Bounds on correlated Gaussians, whose information is -1/2 log(1 - rho^2) a dimension."""

import math

import pytest
import torch
from torch.distributions import Normal

from pyro_mivae.bounds import (
    barber_agakov_bound,
    infonce_bound,
    leave_one_out_bound,
    rate,
)
from pyro_mivae.errors import OptionError, ShapeError


def gaussian_pairs(n, dims, nats, seed=0):
    """Pairs (x, z) of the given information, and log p(z_i | x_j) as a matrix; float64."""
    rho = math.sqrt(1 - math.exp(-2 * nats / dims))
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, dims, generator=generator, dtype=torch.float64)
    scale = math.sqrt(1 - rho**2)
    z = rho * x + scale * noise
    squares = (torch.cdist(z, rho * x) / scale).square()
    return x, z, -squares / 2 - dims * math.log(scale * math.sqrt(2 * math.pi)), rho


def mean_and_error(rows):
    return rows.mean(), rows.std() / math.sqrt(len(rows))


@pytest.mark.parametrize(
    ("dims", "nats"), [(1, 0.0), (20, 0.0), (4, 0.5), (1, 2.0), (4, 2.0), (20, 2.0)]
)
def test_the_sandwich_holds_and_is_tight_for_little_information(dims, nats):
    _, _, densities, _ = gaussian_pairs(2000, dims, nats)
    lower, lower_error = mean_and_error(infonce_bound(densities, reduction="none"))
    upper, upper_error = mean_and_error(leave_one_out_bound(densities, reduction="none"))
    assert lower <= nats + 4 * lower_error + 1e-12
    assert upper >= nats - 4 * upper_error - 1e-12
    assert lower <= upper
    # Overlap gets rare in 20 dimensions: the leave-one-out mean has few terms that count.
    assert upper - lower < 0.1 + nats * dims / 50


@pytest.mark.parametrize("dims", [1, 5])
def test_expectations_are_on_the_right_side_by_more_than_noise(dims):
    nats, n, runs = 2.0, 16, 400
    low, high = [], []
    for seed in range(runs):
        _, _, densities, _ = gaussian_pairs(n, dims, nats, seed)
        low.append(infonce_bound(densities))
        high.append(leave_one_out_bound(densities))
    lower, lower_error = mean_and_error(torch.stack(low))
    upper, upper_error = mean_and_error(torch.stack(high))
    assert lower < nats - 3 * lower_error  # 16 samples: log 16 = 2.8 is close
    assert upper > nats + 3 * upper_error


@pytest.mark.parametrize("nats", [5.0, 10.0, 40.0])
def test_infonce_never_exceeds_its_ceiling(nats):
    n = 256
    _, _, densities, _ = gaussian_pairs(n, 20, nats)
    bound = infonce_bound(densities)
    assert bound <= math.log(n)
    assert bound < nats
    assert leave_one_out_bound(densities) > nats


def test_any_critic_is_a_lower_bound_and_none_beats_the_density():
    x, z, densities, _ = gaussian_pairs(1000, 2, 1.0)
    best = infonce_bound(densities)
    shifted = densities + z.square().sum(-1)[:, None]  # what depends on the code alone
    assert torch.allclose(infonce_bound(shifted), best, atol=1e-10)
    for critic in (z @ x.T, 0.3 * densities, torch.zeros_like(densities)):
        assert infonce_bound(critic) < best
    assert infonce_bound(torch.zeros(5, 5)) == 0


def test_rows_are_those_of_the_loops():
    _, _, densities, _ = gaussian_pairs(7, 3, 1.0)
    lower = infonce_bound(densities, reduction="none")
    upper = leave_one_out_bound(densities, reduction="none")
    for i in range(7):
        row = densities[i].exp()
        others = (row.sum() - row[i]) / 6
        assert math.isclose(lower[i], densities[i, i] - row.mean().log(), abs_tol=1e-10)
        assert math.isclose(upper[i], densities[i, i] - others.log(), abs_tol=1e-10)


@pytest.mark.parametrize("nats", [0.5, 2.0])
def test_barber_agakov_is_tight_with_the_true_posterior_alone(nats):
    x, z, _, rho = gaussian_pairs(2500, 3, nats)
    entropy = 3 * 0.5 * math.log(2 * math.pi * math.e)
    scale = math.sqrt(1 - rho**2)
    exact = Normal(rho * z, scale).log_prob(x).sum(-1)
    wrong = Normal(0.5 * rho * z, 1.3 * scale).log_prob(x).sum(-1)
    bound, error = mean_and_error(barber_agakov_bound(exact, entropy, reduction="none"))
    assert abs(bound - nats) < 4 * error
    looser, error = mean_and_error(barber_agakov_bound(wrong, entropy, reduction="none"))
    assert looser < nats - 4 * error
    sampled = barber_agakov_bound(exact, -Normal(0.0, 1.0).log_prob(x).sum(-1))
    assert abs(sampled - nats) < 0.1


@pytest.mark.parametrize("nats", [0.5, 2.0])
def test_rate_is_tight_with_the_aggregate_posterior_alone(nats):
    _, z, densities, _ = gaussian_pairs(2500, 2, nats)
    posterior = densities.diagonal()
    exact, error = mean_and_error(
        rate(posterior, Normal(0.0, 1.0).log_prob(z).sum(-1), reduction="none")
    )
    assert abs(exact - nats) < 4 * error
    wrong = Normal(0.5, 1.5)
    looser, error = mean_and_error(rate(posterior, wrong.log_prob(z).sum(-1), reduction="none"))
    gap = 2 * torch.distributions.kl_divergence(Normal(0.0, 1.0), wrong)
    assert abs(looser - nats - gap) < 4 * error


def test_infinite_densities_do_no_harm():
    densities = torch.full((4, 4), -torch.inf).fill_diagonal_(0.0)
    assert torch.isclose(infonce_bound(densities), torch.tensor(math.log(4)))
    assert leave_one_out_bound(densities) == torch.inf


@pytest.mark.parametrize("bound", [infonce_bound, leave_one_out_bound])
def test_gradients_are_those_of_finite_differences(bound):
    scores = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bound, scores)


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match=r"shape \(3, 2\); allowed is \(n, n\); row i"):
        infonce_bound(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="n 2 or more"):
        leave_one_out_bound(torch.zeros(1, 1))
    with pytest.raises(ShapeError, match=r"shape \(2, 2\); allowed is \(n,\)"):
        rate(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"log_prior has shape \(3,\); allowed is \(n,\), n = 2"):
        rate(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ShapeError, match=r"entropy has shape \(3,\).*give a scalar"):
        barber_agakov_bound(torch.zeros(2), torch.zeros(3))
    with pytest.raises(OptionError, match="reduction='sum'; allowed are mean, none"):
        infonce_bound(torch.zeros(2, 2), reduction="sum")
