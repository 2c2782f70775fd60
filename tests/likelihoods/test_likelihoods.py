"""Likelihoods: what they score, what they refuse."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError
from pyro_mivae.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DeltaLikelihood,
    GaussianLikelihood,
)

SHAPE = (2, 3)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def decoded():
    return torch.randn(5, *SHAPE, requires_grad=True)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("extra", [(), (4,)])
def test_shapes_and_gradients(name, extra):
    likelihood = LIKELIHOODS[name]()
    outputs = (likelihood.num_outputs,) if likelihood.num_outputs > 1 else ()
    decoded = torch.randn(*extra, 5, *SHAPE, *outputs, requires_grad=True)
    distribution = likelihood(decoded).to_event(2)
    assert distribution.batch_shape == (*extra, 5)
    assert distribution.mean.shape == (*extra, 5, *SHAPE)
    x = torch.rand(5, *SHAPE)
    density = distribution.log_prob(x.round() if likelihood.interval == (0, math.inf) else x)
    assert density.shape == (*extra, 5)
    (slope,) = torch.autograd.grad(density.sum() + 2 * distribution.mean.sum(), decoded)
    assert slope.isfinite().all()
    assert slope.all()


def test_bernoulli_scores_grey_by_cross_entropy(decoded):
    x = torch.rand(5, *SHAPE)
    p = decoded.sigmoid()
    expected = x * p.log() + (1 - x) * (1 - p).log()
    torch.testing.assert_close(BernoulliLikelihood()(decoded).log_prob(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_scores_as_pyros_whatever_the_logits(dtype):
    values = [-1e3, -90.0, -41.0, -20.0, 0.0, 20.0, 25.0, 39.0, 90.0, 1e3]
    logits = torch.tensor(values, dtype=dtype)[:, None].requires_grad_()
    x = torch.tensor([0.0, 0.3, 1.0], dtype=dtype)
    pyros = dist.Bernoulli(logits=logits, validate_args=False)
    ours, theirs = BernoulliLikelihood()(logits).log_prob(x), pyros.log_prob(x)
    rounding = {"rtol": 8 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    torch.testing.assert_close(ours, theirs, **rounding)
    slopes = [torch.autograd.grad(value.sum(), logits)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*slopes, **rounding)


def test_continuous_bernoulli_is_a_density(decoded):
    """It integrates to 1 over [0, 1], and so scores grey by more than the Bernoulli does."""
    grid = torch.linspace(0, 1, 2001)
    likelihood = ContinuousBernoulliLikelihood()(decoded[0, 0, 0].detach())
    total = torch.trapezoid(likelihood.log_prob(grid).exp(), grid)
    assert float(total) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("learn_scale", [False, True])
def test_gaussian(decoded, learn_scale):
    likelihood = GaussianLikelihood(0.5, learn_scale=learn_scale)
    x = torch.randn(5, *SHAPE)
    expected = -0.5 * ((x - decoded) / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(likelihood(decoded).log_prob(x), expected)
    assert [name for name, _ in likelihood.named_parameters()] == [
        "scale_unconstrained"
    ] * learn_scale
    other = GaussianLikelihood(2.0, learn_scale=learn_scale)
    other.load_state_dict(likelihood.state_dict())
    assert other.scale.item() == pytest.approx(0.5)


def test_delta_is_a_function_of_the_code(decoded):
    fn = DeltaLikelihood()(decoded)
    torch.testing.assert_close(fn.mean, decoded.sigmoid())
    assert torch.equal(fn.sample(), fn.mean)
    with pytest.raises(DataError, match=r"DeltaLikelihood needs \[0, 1\]"):
        DeltaLikelihood().check(torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_bad_scale(scale):
    with pytest.raises(OptionError, match=f"scale={scale}; allowed are finite numbers above 0"):
        GaussianLikelihood(scale)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(name, value):
    x = torch.tensor([0.0, value, 1.0])
    with pytest.raises(DataError, match="1 values that are NaN or infinite"):
        LIKELIHOODS[name]().check(x)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("x", [torch.tensor([0.0, 255.0]), torch.tensor([-0.01, 1.0])])
def test_refuses_what_is_outside_the_support(name, x):
    likelihood = LIKELIHOODS[name]()
    likelihood.check(x.clamp(0, 1))
    if likelihood.interval is None or (likelihood.interval[1] == math.inf and x.min() >= 0):
        likelihood.check(x)
    elif likelihood.interval == (0, math.inf):
        with pytest.raises(DataError, match=r"needs \[0, inf\]; give likelihood='gaussian'"):
            likelihood.check(x)
    else:
        with pytest.raises(DataError, match=r"needs \[0, 1\]; rescale them \(uint8"):
            likelihood.check(x)


def test_a_gaussian_by_name_learns_its_scale_and_does_not_collapse():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    x = torch.rand(64, 1, generator=torch.Generator().manual_seed(0)).round().expand(64, 4)
    x = (0.9 * x).reshape(64, 1, 2, 2)
    learned = mi.VAE((1, 2, 2), latent_dim=1, likelihood="gaussian")
    fixed = mi.VAE((1, 2, 2), latent_dim=1, likelihood=GaussianLikelihood())
    how = {"epochs": 60, "batch_size": 32, "lr": 6e-3}
    rates = [mi.fit(vae, x, **how)["rate"][-1] for vae in (learned, fixed)]
    assert learned.likelihood.scale < 0.5
    assert rates[0] > 0.5 > 0.05 > rates[1]
    few = {"iwae_samples": 2, "generative_items": 0}
    found = mi.evaluate(fixed, x, **few)
    assert found["fixed_scale"] == 1
    assert found["data_scale"] == pytest.approx(float(x.flatten(1).std(0, correction=0).norm()))
    (told,) = (d for d in found.diagnoses if d.kind == "collapsed")
    assert "fixed scale of 1 is the cause: the data spread by 0.896" in str(told)
    assert "fixed_scale" not in mi.evaluate(learned, x, **few)


def test_a_fixed_scale_is_named_where_it_is_the_cause_alone():
    collapsed = {"kl_z": 0.0, "mi_z_lower": 0.0, "mi_z_upper": 0.0}
    for figures, named in (
        ({"fixed_scale": 1.0, "data_scale": 0.8}, True),
        ({"fixed_scale": 0.1, "data_scale": 0.8}, False),
        ({}, False),
    ):
        (told,) = mi.diagnose(collapsed | figures)
        assert ("is the cause" in str(told)) == named
