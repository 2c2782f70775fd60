"""The discrepancy against its closed form for Gaussians, and as a term of an objective."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.terms import Particle, maximum_mean_discrepancy
from pyro_mivae.traces import TracePair


def exact(mean, variance, dim, bandwidth):
    """MMD^2 of N(mean 1, variance I) and N(0, I) under exp(-|a-b|^2 / h), in closed form."""

    def mean_kernel(shift, spread):  # E exp(-d^2 / h), d ~ N(shift, spread) in each coordinate
        one = math.sqrt(bandwidth / (bandwidth + 2 * spread))
        return (one * math.exp(-(shift**2) / (bandwidth + 2 * spread))) ** dim

    between = mean_kernel(mean, 1 + variance)
    return mean_kernel(0, 2 * variance) + mean_kernel(0, 2) - 2 * between


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.25)])
@pytest.mark.parametrize("dim", [1, 4])
def test_unbiased_for_the_closed_form(mean, variance, dim):
    torch.manual_seed(0)
    bandwidth = 2.0 * dim
    draws = torch.stack(
        [
            maximum_mean_discrepancy(
                mean + math.sqrt(variance) * torch.randn(40, dim),
                torch.randn(30, dim),
                bandwidth=bandwidth,
            )
            for _ in range(600)
        ]
    )
    error = float(draws.std()) / 600**0.5
    expected = exact(mean, variance, dim, bandwidth)
    assert float(draws.mean()) == pytest.approx(expected, abs=4 * error)
    if (mean, variance) == (0.0, 1.0):
        assert draws.min() < 0 < draws.max()


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_by_hand(kernel):
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 2.0], [0.0, 0.0]])

    def k(square):
        return math.exp(-square / 3) if kernel == "rbf" else 3 / (3 + square)

    expected = k(1) + k(4) - 2 * (k(4) + k(0) + k(5) + k(1)) / 4
    value = maximum_mean_discrepancy(a, b, kernel=kernel, bandwidth=3.0)
    assert float(value) == pytest.approx(expected)


def test_gradient_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    for kernel in ("rbf", "imq"):
        assert torch.autograd.gradcheck(
            lambda a, b, kernel=kernel: maximum_mean_discrepancy(
                a, b, kernel=kernel, bandwidth=2.0
            ),
            (a.requires_grad_(), b.requires_grad_()),
        )


class Shifted(PyroModule):
    """q(z) = N(shift, 1 + gain^2) beside p(z) = N(0, 1)."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = self.shift + 0.6 * x
            pyro.sample("z", dist.Normal(loc, 0.8 * torch.ones(1)).to_event(1))


def test_term_is_the_discrepancy_of_the_aggregate_posterior():
    torch.manual_seed(0)
    values = {}
    for shift in (0.0, 1.0):
        pair = Shifted(shift)
        elbo = mi.MutualInformationELBO(
            [mi.MaximumMeanDiscrepancy("z", weight=10.0)], {"z": 0.0}, max_plate_nesting=1
        )
        draws = []
        for _ in range(60):
            loss = elbo.loss(pair.model, pair.guide, torch.randn(64, 1))
            draws.append(float(elbo.ledger["mmd_z"]) / 64)
            kept = float(elbo.ledger["distortion"]) + 10 * 64 * draws[-1]
            assert loss == pytest.approx(kept, rel=1e-4)
        values[shift] = torch.tensor(draws)
    for shift, draws in values.items():  # q(z) = N(shift, 0.36 + 0.64)
        error = float(draws.std()) / 60**0.5
        assert float(draws.mean()) == pytest.approx(exact(shift, 1.0, 1, 2.0), abs=4 * error)


@pytest.mark.parametrize(("aim", "rises"), [(1e-3, True), (1e3, False)])
def test_a_target_holds_the_discrepancy(aim, rises):
    pair = Shifted(2.0)
    term = mi.MaximumMeanDiscrepancy("z", weight=mi.Target(aim, window=1))
    elbo = mi.MutualInformationELBO([term], {"z": 0.0}, max_plate_nesting=1)
    elbo.loss_and_grads(pair.model, pair.guide, torch.randn(64, 1))
    assert float(elbo.ledger["mmd_z"]) > 0
    assert (float(term.weight()) > 1) == rises


def test_bad_options():
    a = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match=r"b has shape \(1, 2\).* m 2 or more"):
        maximum_mean_discrepancy(a, a[:1], bandwidth=1.0)
    with pytest.raises(OptionError, match="kernel='linear'; allowed are rbf, imq"):
        mi.MaximumMeanDiscrepancy("z", kernel="linear")
    with pytest.raises(OptionError, match="bandwidth=-1"):
        mi.MaximumMeanDiscrepancy("z", bandwidth=-1.0)
    with pytest.raises(OptionError, match="mi_weight=1.5; allowed are finite numbers up to 1"):
        mi.MMDVAE((1, 3, 4), mi_weight=1.5)
    with pytest.raises(OptionError, match="whose sum is 1 or more"):
        mi.MMDVAE((1, 3, 4), mi_weight=0.2, marginal_weight=0.1)


def test_far_from_the_origin_it_is_the_same():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 32, 4, generator=generator, dtype=torch.float32)
    near = maximum_mean_discrepancy(a, b + 1, bandwidth=8.0)
    far = maximum_mean_discrepancy(a + 1024, b + 1025, bandwidth=8.0)
    assert float(far) == pytest.approx(float(near), abs=1e-3)


def plain(x, index):
    with pyro.plate("data", 60, subsample=index):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def factored(x, index):
    pyro.factor("f", torch.tensor(-1.0))
    plain(x, index)


def global_first(x, index):
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))
    plain(x, index)


def by_pixel(x, index):
    with pyro.plate("data", 60, subsample=index, dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("pixels", 10, subsample_size=2, dim=-2):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.expand(2, -1))


def index_guide(x, index):
    with pyro.plate("data", 60, subsample=index, dim=-1):
        pyro.sample("z", dist.Normal(x, 0.7))


@pytest.mark.parametrize("model", [plain, factored, global_first, by_pixel])
def test_the_data_decide_how_many_they_stand_for(model):
    """Neither a factor, nor what is observed once, nor a plate that the code is not in."""
    args = torch.randn(20), torch.arange(20)
    pair = TracePair.run(model, index_guide, args, {}, max_plate_nesting=2)
    count = mi.MaximumMeanDiscrepancy("z").count(Particle(model, index_guide, args, {}, pair))
    assert count == pytest.approx(60)


@pytest.mark.filterwarnings("ignore:a batch of 40")
def test_codes_of_a_part_of_the_data_are_refused():
    def program(observe):
        def run(x):
            with pyro.plate("data", len(x), subsample_size=8) as i:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if observe:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

        return run

    elbo = mi.MutualInformationELBO([mi.MaximumMeanDiscrepancy("z")], max_plate_nesting=1)
    with pytest.raises(SiteError, match="give model and guide the mini-batch itself"):
        elbo.loss(program(True), program(False), torch.randn(40))
