"""Likelihoods are the distributions that they are called: sums, SciPy, draws, gradients."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_mivae as mi
from pyro_mivae.errors import DataError
from pyro_mivae.likelihoods.counts import NegativeBinomial
from pyro_mivae.likelihoods.levels import DiscretizedLogistic

from .kinds import FEW, KINDS

pytestmark = pytest.mark.usefixtures("double")
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@EACH
def test_the_density_integrates_or_sums_to_one(kind):
    for decoded in kind.decoded(3):
        log_prob = kind.build()(decoded).log_prob(torch.from_numpy(kind.values)).detach()
        if kind.is_continuous:
            total = torch.trapezoid(log_prob.exp(), torch.from_numpy(kind.values))
        else:
            total = log_prob.exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-6)


@EACH
def test_the_density_is_scipys(kind):
    if kind.reference is None:
        pytest.skip("SciPy has no continuous Bernoulli")
    values = kind.values[:: max(1, len(kind.values) // 500)]
    for decoded in kind.decoded(3):
        fn = kind.reference(*np.atleast_1d(decoded.numpy()))
        expected = fn.logpdf(values) if kind.is_continuous else fn.logpmf(values)
        found = kind.build()(decoded).log_prob(torch.from_numpy(values)).detach().numpy()
        np.testing.assert_allclose(found[expected > -700], expected[expected > -700], rtol=1e-8)


@EACH
def test_draws_have_the_mean_and_the_variance(kind):
    fn, n = kind.build()(kind.decoded(6)), 40_000
    drawn = fn.sample((n,))
    kind.build().check(drawn)
    error = (drawn.var(0) / n).sqrt()
    assert ((drawn.mean(0) - fn.mean).abs() < 5 * error).all()
    squares = (drawn - drawn.mean(0)).square()
    assert ((squares.mean(0) - fn.variance).abs() < 5 * squares.std(0) / math.sqrt(n)).all()


@EACH
def test_gradients_are_those_of_finite_differences(kind):
    likelihood = kind.build()
    decoded = kind.decoded(4).requires_grad_()
    x = likelihood(decoded.detach()).sample()
    assert torch.autograd.gradcheck(lambda d: likelihood(d).log_prob(x), decoded)
    assert torch.autograd.gradcheck(lambda d: likelihood(d).mean, decoded)


@EACH
def test_expanded_and_sampled_over_leading_dimensions(kind):
    decoded = kind.decoded(3, 2)
    fn = kind.build()(decoded)
    wide = fn.expand((5, 3, 2))
    x = wide.sample()
    assert x.shape == wide.batch_shape == (5, 3, 2)
    torch.testing.assert_close(wide.log_prob(x), torch.stack([fn.log_prob(row) for row in x]))
    torch.testing.assert_close(wide.mean, fn.mean.expand(5, 3, 2))


@pytest.mark.parametrize("theta", [1e-3, 1.0, 99.0, 101.0, 1e4, 1e6, 1e9])
def test_a_negative_binomial_is_right_up_to_the_poisson_in_float32(theta):
    """Pyro's is wrong by more than a nat from a total count of 1e7 on."""
    mean, x = 30.0, torch.tensor([0.0, 3.0, 30.0, 90.0])
    logits = torch.tensor(math.log(mean / theta))
    expected = scipy.stats.nbinom(theta, 1 / (1 + mean / theta)).logpmf(x)
    if theta == 1e9:  # SciPy's own rounding shows
        expected = scipy.stats.poisson(mean).logpmf(x)
    for dtype, slack in ((torch.float64, 1e-5), (torch.float32, 2e-3)):
        fn = NegativeBinomial(torch.tensor(theta).to(dtype), logits=logits.to(dtype))
        np.testing.assert_allclose(fn.log_prob(x.to(dtype)), expected, atol=slack, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
def test_a_discretized_logistic_keeps_its_precision_in_the_tails(scale):
    """A difference of two sigmoids in float32 is 0 there, and its logarithm minus infinity."""
    x, loc = torch.arange(256.0) / 255, torch.tensor(0.4)
    exact = DiscretizedLogistic(loc, torch.tensor(scale), 256).log_prob(x)
    single = DiscretizedLogistic(loc.float(), torch.tensor(scale).float(), 256).log_prob(x.float())
    assert exact.isfinite().all()
    assert float(exact.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(single, exact, rtol=2e-4, atol=1e-3)


def test_levels_are_bytes_divided_by_255():
    pixels = torch.arange(256, dtype=torch.uint8).float().div(255)
    for likelihood in (mi.CategoricalLikelihood(), mi.DiscretizedLogisticLikelihood()):
        outputs = torch.randn(likelihood.num_outputs)
        drawn = likelihood(outputs.float()).sample((1000,))
        assert set(drawn.tolist()) <= set(pixels.tolist())
        assert not likelihood.misfit(pixels)
        assert "6% of the values are none of the 256 levels" in likelihood.misfit(
            torch.cat([pixels[:15], pixels[:1] + 0.5 / 255])
        )


def test_values_between_levels_count_as_the_nearest():
    likelihood = mi.CategoricalLikelihood(5)
    fn = likelihood(torch.randn(5))
    near = torch.from_numpy(FEW) + torch.tensor([0.1, -0.1, 0.1, -0.1, -0.1])
    torch.testing.assert_close(fn.log_prob(near), fn.log_prob(torch.from_numpy(FEW)))


@pytest.mark.parametrize("zero_inflated", [False, True])
@pytest.mark.parametrize("kind", [mi.PoissonLikelihood, mi.NegativeBinomialLikelihood])
def test_counts_are_whole_numbers_from_0_up(kind, zero_inflated):
    likelihood = kind(zero_inflated=zero_inflated)
    likelihood.check(torch.tensor([0.0, 1e6]))
    likelihood.check(torch.tensor([0, 3]))
    with pytest.raises(DataError, match=f"2 values .* such as 0.5; {kind.__name__} scores counts"):
        likelihood.check(torch.tensor([1.0, 0.5, 2.25]))
    with pytest.raises(DataError, match=r"over \[-1, 2\], .* needs \[0, inf\]; give likelihood="):
        likelihood.check(torch.tensor([-1.0, 2.0]))


def test_an_outlier_costs_its_logarithm_under_students_t():
    t, normal = mi.StudentTLikelihood(3.0), mi.HeteroscedasticGaussianLikelihood()
    decoded = torch.zeros(2)
    near, far = torch.tensor(1e3), torch.tensor(1e6)
    cost = [float(fn(decoded).log_prob(near) - fn(decoded).log_prob(far)) for fn in (t, normal)]
    assert cost[0] == pytest.approx(4 * math.log(1e3), rel=1e-3)
    assert cost[1] > 1e11


@pytest.mark.parametrize("floor", [0.01, 0.5])
def test_the_scale_of_an_element_has_a_floor(floor):
    for kind in (mi.HeteroscedasticGaussianLikelihood, mi.StudentTLikelihood):
        fn = kind(least_scale=floor)(torch.tensor([0.0, -1e4]))
        assert float(fn.scale) == pytest.approx(floor)


def test_a_students_t_learns_its_degrees_of_freedom():
    fixed, learned = mi.StudentTLikelihood(4.0), mi.StudentTLikelihood(4.0, learn_df=True)
    assert [name for name, _ in fixed.named_parameters()] == []
    assert [name for name, _ in learned.named_parameters()] == ["df_unconstrained"]
    assert learned.df.item() == pytest.approx(4.0)
    rates = mi.VAE((2,), likelihood=learned).optim_args
    assert rates("vae_1.model.likelihood.df_unconstrained") == {"lr": 1e-2}
    assert dist.StudentT(learned.df, 0.0, 1.0).mean == 0.0


@pytest.mark.parametrize("kind", [mi.GaussianLikelihood, mi.StudentTLikelihood])
def test_real_data_of_another_scale_get_a_remark(kind):
    x = torch.randn(50, 3) * torch.tensor([1.0, 0.2, 0.0])
    likelihood = kind()
    assert not likelihood.misfit(x)
    assert "deviation of a column is 3" in likelihood.misfit(300 * x / x[:, 0].std(correction=0))
    assert "standardise the data" in likelihood.misfit(0.01 * x)
    assert "binary" in likelihood.misfit((x > 0).float())
    assert not likelihood.misfit(x[:1])
