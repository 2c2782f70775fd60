"""Bounds with the optimal critic, with wrong ones and with trained ones, on known information.

Of correlated Gaussians, -1/2 log(1 - rho^2) a dimension. A bound that holds in expectation is
tested by the mean over many samples, within a stated number of standard errors.
"""

import math

import pytest
import torch

from pyro_mivae.bounds import (
    MovingAverage,
    club_bound,
    donsker_varadhan_bound,
    infonce_bound,
    interpolated_bound,
    jensen_shannon_estimate,
    leave_one_out_bound,
    mine_bound,
    nwj_bound,
    off_diagonal,
    smile_estimate,
    tuba_bound,
)


class Gaussians:
    """Pairs of d dimensions with a known information, and what is known of them."""

    def __init__(self, dims, nats, seed=0, dtype=torch.float64):
        self.dims, self.nats, self.dtype = dims, nats, dtype
        self.rho = math.sqrt(1 - math.exp(-2 * nats / dims))
        self.generator = torch.Generator().manual_seed(seed)

    def pairs(self, n):
        x, noise = torch.randn(2, n, self.dims, generator=self.generator, dtype=self.dtype)
        return x, self.rho * x + math.sqrt(1 - self.rho**2) * noise

    def log_ratios(self, x, z):
        """log p(z_i | x_j) / p(z_i), shape (n, n)."""
        return self.log_ratio(x[None], z[:, None])

    def log_ratio(self, x, z):
        variance = 1 - self.rho**2
        shares = z.square() - (z - self.rho * x).square() / variance - math.log(variance)
        return 0.5 * shares.sum(-1)


def over_samples(bound, gaussians, n, runs):
    """Mean and standard error of a bound on the log-ratios of n pairs."""
    ratios = [gaussians.log_ratios(*gaussians.pairs(n)) for _ in range(runs)]
    return mean_and_error(torch.vmap(bound)(torch.stack(ratios)))


def mean_and_error(values):
    return values.mean(), values.std() / math.sqrt(len(values))


IN_EXPECTATION = {
    "infonce": infonce_bound,
    "nwj": lambda t: nwj_bound(1 + t.diagonal(), 1 + off_diagonal(t)),
    "nwj, n pairs": lambda t: nwj_bound(1 + t.diagonal(), 1 + t.diagonal(1)),
    "tuba": lambda t: tuba_bound(t.diagonal(), off_diagonal(t), 0.0, 0.0),
    "jensen-shannon": lambda t: jensen_shannon_estimate(t.diagonal(), off_diagonal(t)),
    "interpolated 0.01": lambda t: interpolated_bound(t, 0.0, alpha=0.01),
    "interpolated 0.5": lambda t: interpolated_bound(t, 0.0, alpha=0.5),
    "interpolated 1": lambda t: interpolated_bound(t, 0.0, alpha=1.0),
}
TIGHT = ("nwj", "nwj, n pairs", "tuba", "jensen-shannon")


KNOWN = [(1, 0.0), (20, 0.0), (5, 0.5), (1, 1.0), (20, 1.0), (1, 2.0), (5, 2.0), (20, 2.0)]


@pytest.mark.parametrize(("dims", "nats"), KNOWN)
def test_bounds_lie_on_their_side_and_unbiased_ones_on_the_truth(dims, nats):
    gaussians = Gaussians(dims, nats)
    ratios = torch.stack([gaussians.log_ratios(*gaussians.pairs(48)) for _ in range(150)])
    for name, bound in IN_EXPECTATION.items():
        mean, error = mean_and_error(torch.vmap(bound)(ratios))
        assert mean <= nats + 4 * error + 1e-12, name
        if name in TIGHT:
            assert abs(mean - nats) <= 4 * error + 1e-12, name
        assert error < 0.1, name  # else the above would say little
    mean, error = mean_and_error(torch.vmap(leave_one_out_bound)(ratios))
    assert mean >= nats - 4 * error - 1e-12
    mean, error = mean_and_error(torch.vmap(club_bound)(ratios))
    assert abs(mean - dims * math.expm1(2 * nats / dims)) <= 4 * error + 1e-12
    assert dims * math.expm1(2 * nats / dims) >= nats


WRONG = {
    "too sure": lambda t, x, z: 1.4 * t,
    "too unsure": lambda t, x, z: 0.5 * t,
    "not normalised": lambda t, x, z: t + 0.7,
    "wrong by datum": lambda t, x, z: t + 0.5 * x.sum(-1),
    "wrong by code": lambda t, x, z: t + 0.5 * z.sum(-1)[:, None],
    "unrelated": lambda t, x, z: torch.sin(3 * z.sum(-1)[:, None] + x.sum(-1)),
}


def test_no_critic_beats_the_optimal_one():
    nats, n, runs = 1.0, 48, 120
    gaussians = Gaussians(3, nats)
    bounds = {name: IN_EXPECTATION[name] for name in IN_EXPECTATION if name != "nwj, n pairs"}
    bounds["donsker-varadhan"] = lambda t: donsker_varadhan_bound(t.diagonal(), off_diagonal(t))
    pairs = [gaussians.pairs(n) for _ in range(runs)]
    best = torch.stack([gaussians.log_ratios(x, z) for x, z in pairs])
    of_best = {name: torch.vmap(bound)(best) for name, bound in bounds.items()}
    # What a bound cannot see is not wrong to it: its own invariances.
    unseen = {
        "donsker-varadhan": ["not normalised"],
        "infonce": ["not normalised", "wrong by code"],
        "interpolated 1": ["not normalised", "wrong by code"],
    }
    for critic, change in WRONG.items():
        scores = torch.stack([change(t, x, z) for t, (x, z) in zip(best, pairs)])
        for name, bound in bounds.items():
            mean, error = mean_and_error(of_best[name] - torch.vmap(bound)(scores))
            if critic in unseen.get(name, ()):
                assert abs(mean) < 1e-10, (critic, name)
            else:
                assert mean > 3 * error, (critic, name)


def ratios_drawn_apart(gaussians, runs, n):
    """Log-ratios of independent pairs, shape (runs, n), with the joint ones."""
    (x, z), (_, apart) = gaussians.pairs(runs * n), gaussians.pairs(runs * n)
    ratios = gaussians.log_ratio(x, z), gaussians.log_ratio(x, apart)
    return [r.reshape(runs, n) for r in ratios]


def test_donsker_varadhan_errs_high_by_what_the_delta_method_says():
    # The variance of the ratio under the product is e^{2I} - 1 in any number of dimensions.
    nats, n = 1.0, 100
    _, apart = ratios_drawn_apart(Gaussians(4, nats), 3000, n)
    at_the_truth = torch.tensor([nats], dtype=torch.float64)  # the other mean's share is exact
    values = torch.vmap(lambda scores: donsker_varadhan_bound(at_the_truth, scores))(apart)
    mean, error = mean_and_error(values)
    expected = math.expm1(2 * nats) / (2 * n)
    assert mean > nats + 5 * error
    assert abs(mean - nats - expected) < 4 * error + 0.15 * expected


@pytest.mark.parametrize("nats", [0.5, 1.0])
def test_nwj_varies_exponentially_with_the_information(nats):
    n, dims = 100, 4
    gaussians = Gaussians(dims, nats)
    joint, apart = ratios_drawn_apart(gaussians, 3000, n)
    values = torch.vmap(nwj_bound)(1 + joint, 1 + apart)
    expected = (dims * gaussians.rho**2 + math.expm1(2 * nats)) / n
    assert abs(values.var() - expected) < 0.15 * expected


def test_smile_errs_high_where_it_clips_and_has_the_truth_as_its_limit():
    gaussians = Gaussians(5, 2.0)

    def smile(clip):
        return lambda t: smile_estimate(t.diagonal(), off_diagonal(t), clip=clip)

    mean, error = over_samples(smile(1.0), gaussians, n=200, runs=100)
    assert mean > 2.0 + 10 * error
    mean, error = over_samples(smile(8.0), gaussians, n=200, runs=100)
    assert abs(mean - 2.0) < 4 * error


@pytest.mark.parametrize("nats", [5.0, 10.0])
def test_what_fails_at_large_information_fails_as_said(nats):
    gaussians, n, runs = Gaussians(20, nats), 128, 40
    scores = [gaussians.log_ratios(*gaussians.pairs(n)) for _ in range(runs)]
    for t in scores:
        assert infonce_bound(t) <= math.log(n) < nats
        assert leave_one_out_bound(t) > nats
        assert club_bound(t) > nats
    if nats == 10.0:
        nwj = torch.stack([nwj_bound(1 + t.diagonal(), 1 + t.diagonal(1)) for t in scores])
        assert (nwj > nats).double().mean() > 0.8  # though its expectation is the truth


OBJECTIVES = {
    "infonce": infonce_bound,
    "nwj": lambda t: nwj_bound(t.diagonal(), off_diagonal(t)),
    "donsker-varadhan": lambda t: donsker_varadhan_bound(t.diagonal(), off_diagonal(t)),
    "mine": None,
    "interpolated": lambda t: interpolated_bound(t, 1.0, alpha=0.1),
    "jensen-shannon": lambda t: jensen_shannon_estimate(t.diagonal(), off_diagonal(t)),
}


class Quadratic(torch.nn.Module):
    """A critic that holds the log-ratio of Gaussian pairs: quadratic in the datum and the code."""

    def __init__(self):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.zeros(4))

    def forward(self, x, z):
        across, of_x, of_z, constant = self.gains
        return (
            across * z @ x.T
            + of_x * x.square().sum(-1)
            + (of_z * z.square().sum(-1, keepdim=True) + constant)
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_trained_critic_comes_close(name):
    nats, dims, n = 1.5, 2, 40
    gaussians = Gaussians(dims, nats, dtype=torch.float32)
    critic, average = Quadratic(), MovingAverage(0.1)

    def mine(t):
        return mine_bound(t.diagonal(), off_diagonal(t), average)

    objective = OBJECTIVES[name] or mine
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.05)
    for _ in range(250):
        loss = -objective(critic(*gaussians.pairs(n)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        values = [objective(critic(*gaussians.pairs(256))) for _ in range(40)]
    mean, error = mean_and_error(torch.stack(values))
    assert mean < nats + 4 * error
    assert mean > 0.9 * nats
