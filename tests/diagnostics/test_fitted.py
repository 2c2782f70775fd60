"""Bounds by a fitted marginal, on codes whose information is known."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Normal

from pyro_mivae.diagnostics import fitted
from pyro_mivae.diagnostics.aggregate import AggregatePosterior
from pyro_mivae.diagnostics.fitted import fitted_information, mixture_densities, stack_densities
from pyro_mivae.posterior.densities import Codes
from pyro_mivae.posterior.layout import SiteLayout

pytestmark = pytest.mark.usefixtures("double")


REAL = {"z": torch.distributions.constraints.real_vector}
PLAIN = SiteLayout(
    ("z",), (), (), ("z",), frozenset("z"), frozenset("z"), frozenset(), (), supports=REAL
)


def halves(n, seed=0):
    second = torch.zeros(n, dtype=torch.bool)
    second[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[::2]] = True
    return second


def measure(loc, scale, seed, prior=0.0):
    """The fitted bounds of z = loc(x) + scale * noise, under a prior N(prior, I)."""
    generator = torch.Generator().manual_seed(1000 + seed)
    z = loc + scale * torch.randn(loc.shape, generator=generator)
    n = len(z)
    result = AggregatePosterior(torch.arange(n), n, second=halves(n, seed))
    table = Normal(loc, scale).log_prob(z[:, None]).sum(-1)
    result.add(slice(0, n), 0, table.clone())
    codes = Codes({"z": z}, torch.zeros(n, dtype=torch.long), None)
    log_prior = Normal(prior, 1.0).log_prob(z).sum(-1)
    return fitted_information(result, codes, log_prior, PLAIN, seed), result, table


def gaussian(nats, dims, n, seed):
    """Posterior means and scale of a code whose aggregate is N(0, I)."""
    scale = math.exp(-nats / dims)
    generator = torch.Generator().manual_seed(seed)
    return math.sqrt(1 - scale**2) * torch.randn(n, dims, generator=generator), scale


@pytest.mark.parametrize(
    ("nats", "n", "short", "prior"),
    [
        (2.0, 200, 0.15, 0.0),
        (6.0, 300, 0.5, 0.0),
        (6.0, 300, 0.5, 3.0),  # the prior is far off
        pytest.param(12.0, 1200, 2.6, 3.0, marks=pytest.mark.slow),
    ],
)
def test_both_bounds_hold_and_are_close_above_log_n(nats, n, short, prior):
    repeats = 6 if n < 1000 else 3
    runs = [measure(*gaussian(nats, 4, n, seed), seed, prior) for seed in range(repeats)]
    upper = torch.tensor([found.upper[0] for found, _, _ in runs])
    error = upper.std() / math.sqrt(repeats)
    assert upper.mean() > nats - 3 * error
    assert upper.mean() < nats + 0.2  # KL(q | r) of a Gaussian fitted on a few hundred codes
    lower = torch.tensor([found.lower[0] for found, _, _ in runs])
    error = lower.std() / math.sqrt(repeats)
    assert lower.mean() < nats + 3 * error
    assert lower.mean() > nats - short
    if nats > math.log(n):
        nce = torch.stack([aggregate.lower.mean() for _, aggregate, _ in runs]).mean()
        loo = torch.stack([aggregate.upper.mean() for _, aggregate, _ in runs]).mean()
        assert nce < lower.mean() - 0.4  # held down by log N
        assert loo > upper.mean() + 0.8


def test_standard_errors_are_the_scatter_of_many_runs():
    runs = [measure(*gaussian(4.0, 4, 300, seed), seed)[0] for seed in range(20)]
    for name in ("upper", "lower"):
        values = torch.tensor([getattr(found, name) for found in runs])
        scatter, said = values[:, 0].std(), values[:, 1].mean()
        assert said / 1.8 < scatter < 1.4 * said


def test_far_beyond_reach_the_lower_one_stays_under_its_ceiling():
    """20 nats from 200 data: no two codes are close, and that is all it can say."""
    found, aggregate, _ = measure(*gaussian(20.0, 4, 200, 0), 0)
    assert found.reach == pytest.approx(1 + math.log(99 / 0.3))
    assert math.log(200) + 1 < found.lower[0] <= found.reach < 20
    assert found.reach - found.lower[0] < 0.1
    assert aggregate.lower.mean() <= math.log(200)
    assert abs(found.upper[0] - 20) < 4 * found.upper[1] + 0.2


@pytest.mark.parametrize(("n", "components"), [(90, 1), (90, 4), (7, 3)])
def test_mixtures_are_those_of_scikit_learn(n, components):
    """With too few codes for covariances the components are diagonal."""
    values = bimodal(n, 3, torch.Generator().manual_seed(0))
    ours = fitted._fit(values, components, 1).scores(values).logsumexp(1)
    theirs = GaussianMixture(
        components,
        covariance_type="full" if n > 7 else "diag",
        reg_covar=fitted.FLOOR,
        init_params="k-means++",
        max_iter=30,
        random_state=1,
    ).fit(values.numpy())
    torch.testing.assert_close(ours, torch.from_numpy(theirs.score_samples(values.numpy())))


def test_without_a_ceiling_it_would_read_too_high(monkeypatch):
    """The failure that alpha is there to prevent: rare pairs are missing from the average."""
    nats, bounds = 8.0, {}
    for events in (fitted.EVENTS, 1e-6):
        monkeypatch.setattr(fitted, "EVENTS", events)
        monkeypatch.setattr(fitted, "ALPHAS", (1.0,))
        runs = [measure(*gaussian(nats, 4, 100, seed), seed)[0] for seed in range(10)]
        bounds[events] = torch.tensor([found.lower[0] for found in runs])
    assert (bounds[fitted.EVENTS] > nats).double().mean() > 0.5
    assert (bounds[30] < nats).all()


@pytest.mark.parametrize(
    ("name", "gain", "offset", "scale"),
    [
        ("wrong scale", 1.0, 0.0, 1.5),
        ("wrong offset", 1.0, 4.0, 0.3),
        ("collapsed", 0.0, 0.0, 1.0),
        ("over-confident", 1.0, 0.0, 0.02),
    ],
)
def test_guides_that_are_no_posteriors(name, gain, offset, scale):
    """The information is the guide's own: 1/2 log(1 + gain^2 / scale^2) per dimension."""
    truth = 3 * 0.5 * math.log1p(gain**2 / scale**2)
    found = []
    for seed in range(6):
        loc = gain * torch.randn(300, 3, generator=torch.Generator().manual_seed(seed)) + offset
        found.append(measure(loc, scale, seed)[0])
    upper = torch.tensor([f.upper[0] for f in found])
    lower = torch.tensor([f.lower[0] for f in found])
    assert upper.mean() > truth - 3 * upper.std() / math.sqrt(6) - 1e-9
    assert upper.mean() < truth + 0.3
    assert lower.mean() < truth + 3 * lower.std() / math.sqrt(6) + 1e-9
    assert lower.mean() > min(truth - 0.3, found[0].reach - 0.8)


def bimodal(n, dims, generator):
    """Means at -1 and 1, 0.2 about each: no Gaussian, and 2^dims places in all."""
    place = 2.0 * torch.randint(2, (n, dims), generator=generator) - 1
    return place + 0.2 * torch.randn(n, dims, generator=generator)


def bimodal_nats(scale):
    grid = torch.linspace(-4, 4, 20001)
    spread = math.hypot(0.2, scale)
    density = (
        Normal(-1.0, spread).log_prob(grid).exp() + Normal(1.0, spread).log_prob(grid).exp()
    ) / 2
    entropy = -torch.xlogy(density, density).sum() * (grid[1] - grid[0])
    return float(entropy - 0.5 * math.log(2 * math.pi * math.e * scale**2))


def test_codes_that_no_gaussian_fits():
    truth = 5 * bimodal_nats(0.12)
    assert truth > 6
    found = []
    for seed in range(5):
        loc = bimodal(500, 5, torch.Generator().manual_seed(seed))
        found.append(measure(loc, 0.12, seed, prior=0.0)[0])
    upper = torch.tensor([f.upper[0] for f in found])
    lower = torch.tensor([f.lower[0] for f in found])
    assert upper.mean() > truth - 3 * upper.std() / math.sqrt(5)
    assert upper.mean() < truth + 2.5  # 32 places are too many to fit
    assert lower.mean() < truth + 3 * lower.std() / math.sqrt(5)
    assert lower.mean() > truth - 1.3


def test_a_marginal_of_its_own_data_would_be_too_good():
    """Ten dimensions and 30 codes to fit on: judged by the codes it has seen, r would win."""
    truth = 3.0
    found = [measure(*gaussian(truth, 10, 60, seed), seed, prior=3.0)[0] for seed in range(10)]
    upper = torch.tensor([f.upper[0] for f in found])
    assert upper.mean() > truth + 0.5


def test_the_bounds_are_those_of_the_prior_where_it_has_all_the_weight(monkeypatch):
    """Beside the pure function over all pairs of a half."""

    def only_the_prior(log_densities):
        weights = torch.zeros(log_densities.shape[1])
        weights[-2] = 1.0
        return weights

    monkeypatch.setattr(fitted, "stack_densities", only_the_prior)
    monkeypatch.setattr(fitted, "ALPHAS", (1.0,))
    monkeypatch.setattr(fitted, "OFFSETS", (0.7,))
    n = 120
    loc, scale = gaussian(3.0, 3, n, 5)
    z = loc + scale * torch.randn(loc.shape, generator=torch.Generator().manual_seed(1005))
    found, aggregate, table = measure(loc, scale, 5, prior=0.4)
    log_prior = Normal(0.4, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(found.upper[0], (table.diagonal() - log_prior).mean().item())

    same, cross = aggregate.others_by_half()
    alpha, size = fitted.EVENTS / 60, 60
    lower = []
    for half in (aggregate.second, ~aggregate.second):
        scores = table[half][:, half].exp()
        joint = scores.diagonal()
        apart = (scores.sum(1) - joint) / (size - 1)
        base = (1 - alpha) * math.exp(0.7) * log_prior[half].exp()
        first = (joint / (base + alpha * (apart + joint / (size - 1)))).log()
        lower.append((1 + first - apart / (base + alpha * apart)).mean())
        torch.testing.assert_close(same[half].exp(), apart)
        expected = table[half][:, ~half].logsumexp(1) - math.log(size)
        torch.testing.assert_close(cross[half], expected)
    torch.testing.assert_close(found.lower[0], (sum(lower) / 2).item())
    assert found.reach == pytest.approx(1 + math.log(59 / 0.5))


def test_weights_of_densities_find_the_shares_of_a_mixture():
    generator = torch.Generator().manual_seed(0)
    z = torch.where(torch.rand(4000, generator=generator) < 0.3, -2.0, 2.0)
    z = z + torch.randn(4000, generator=generator)
    table = torch.stack([Normal(mean, 1.0).log_prob(z) for mean in (-2.0, 2.0, 30.0)], 1)
    weights = stack_densities(table)
    torch.testing.assert_close(weights, torch.tensor([0.3, 0.7, 0.0]), rtol=0.0, atol=0.03)


def scores(values, kind, at, of, kinds):
    """Codes under mixtures that were fitted on others."""
    learned = torch.arange(len(values))
    both = torch.cat([values, at]), torch.cat([kind, of])
    return mixture_densities(*both, learned, kinds, seed=0)[len(values) :]


def test_mixtures_are_densities_in_every_configuration():
    """They integrate to 1 over configurations and values, one without codes of its own too."""
    generator = torch.Generator().manual_seed(0)
    kind = (torch.rand(400, generator=generator) < 0.9).long()
    values = (4.0 * kind + 0.5 * torch.randn(400, generator=generator))[:, None] / 3
    grid = torch.linspace(-12, 12, 4001)[:, None]
    total = 0.0
    for k in range(3):
        total = total + scores(values, kind, grid, torch.full((4001,), k), 3).exp().sum(0)
    torch.testing.assert_close(total * (grid[1] - grid[0]), torch.ones(len(total)))
    own, other = (scores(values, kind, values, k, 3) for k in (kind, torch.full_like(kind, 2)))
    apart = own - other
    assert (apart > 0).double().mean() > 0.9


def test_dimensions_without_a_spread_are_no_trouble():
    values = torch.cat([torch.randn(50, 1), torch.zeros(50, 1)], 1)
    alike = torch.zeros(50, dtype=torch.long)
    assert scores(values, alike, values, alike, 1).isfinite().all()


def test_weights_of_densities_that_are_zero_somewhere():
    table = torch.full((5, 2), -torch.inf)
    assert stack_densities(table).isfinite().all()
    table[0, 0] = -3.0
    torch.testing.assert_close(stack_densities(table), torch.tensor([1.0, 0.0]))
