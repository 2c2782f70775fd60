"""InvariantInformation against sums by hand, and the transformations that it is given."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.networks import RandomAffine
from pyro_mivae.terms import InvariantInformation, Particle, RegularizedInformation
from pyro_mivae.traces import TracePair
from pyro_mivae.variants import CatVAE
from pyro_mivae.variants.warm_start import INVARIANCE, CategoryStart


def guide_of(logits, plate_size=None):
    def guide(x):
        with pyro.plate("data", plate_size or len(x), subsample=x if plate_size else None):
            pyro.sample(
                "c", dist.OneHotCategorical(logits=logits(x)), infer={"enumerate": "parallel"}
            )

    return guide


@pytest.fixture
def x():
    return torch.randn(7, 3, dtype=torch.float64)


@pytest.fixture
def weights():
    return torch.randn(3, 4, dtype=torch.float64, requires_grad=True)


def by_hand(q, r):
    """I(c; c') of the symmetric joint distribution, term by term."""
    joint = sum(torch.outer(a, b) + torch.outer(b, a) for a, b in zip(q, r)) / (2 * len(q))
    marginal = joint.sum(0)
    return sum(
        joint[i, j] * (joint[i, j] / marginal[i] / marginal[j]).log()
        for i in range(len(joint))
        for j in range(len(joint))
    )


def test_value_and_gradient_are_those_of_the_sum(x, weights):
    value = InvariantInformation(transform=lambda x: x.flip(-1)).per_datum(
        guide_of(lambda x: x @ weights), x
    )
    expected = by_hand((x @ weights).softmax(-1), (x.flip(-1) @ weights).softmax(-1))
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(v, weights)[0] for v in (value, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("logit", "information"), [(1e4, math.log(3)), (0.0, 0.0)])
def test_certain_categories_have_all_the_information_and_flat_ones_none(logit, information):
    """Certain ones have probabilities of 0 in them, whose gradient is finite."""
    scale = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    x = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    term = InvariantInformation(transform=lambda x: 2 * x)
    value = term.per_datum(guide_of(lambda x: scale * x), x)
    torch.testing.assert_close(value.detach(), value.new_tensor(information))
    assert torch.autograd.grad(value, scale)[0].isfinite()


def test_it_is_symmetric_in_a_transformation_that_is_its_own_inverse(x, weights):
    guide = guide_of(lambda x: x @ weights)
    term = InvariantInformation(transform=lambda x: -x)
    torch.testing.assert_close(term.per_datum(guide, x), term.per_datum(guide, -x))


def test_it_is_summed_over_the_data_that_the_batch_stands_for(x, weights):
    guide = guide_of(lambda x: x @ weights, plate_size=70)

    def model(x):
        with pyro.plate("data", 70, subsample=x):
            pyro.sample("c", dist.OneHotCategorical(logits=x.new_zeros(4)))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)

    term = InvariantInformation(transform=lambda x: -x)
    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)
    total = term(Particle(model, guide, (x,), {}, traces))
    torch.testing.assert_close(total, 70 * term.per_datum(guide, x))


def test_bad_arguments(x, weights):
    guide = guide_of(lambda x: x @ weights)
    with pytest.raises(OptionError, match=r"transform=3; allowed are functions"):
        InvariantInformation(transform=3)
    with pytest.raises(OptionError, match="weight=-1.0; allowed are .* from 0 up"):
        InvariantInformation(transform=torch.neg, weight=-1.0)
    with pytest.raises(ShapeError, match=r"returns shape \(7, 2\) for data of shape \(7, 3\)"):
        InvariantInformation(transform=lambda x: x[:, :2]).per_datum(guide, x)
    with pytest.raises(SiteError, match="InvariantInformation needs a category 'k' in the guide"):
        InvariantInformation("k", transform=torch.neg).per_datum(guide, x)


def test_a_start_takes_a_transformation_by_name_or_as_a_function():
    for given in ("affine", torch.neg):
        start = CategoryStart(transform=given)
        regularized, invariant = start.terms(["c"], 100)
        assert float(regularized.weight()) == 1.0
        assert float(invariant.weight()) == INVARIANCE
        fading = start.fading_terms(["c"], 10)
        assert [float(term.weight()) for term in fading] == [20.0, 20.0 * INVARIANCE]
    assert isinstance(CategoryStart(transform="affine").terms(["c"], 9)[1].transform, RandomAffine)
    with pytest.raises(OptionError, match="transform='afine'; allowed are affine"):
        CategoryStart(transform="afine")


@pytest.mark.parametrize("transform", [None, torch.neg])
def test_the_transformation_joins_after_the_start(monkeypatch, transform):
    calls = []

    def train(guide, x, terms, *, steps, starts=1, labels=None, others=()):
        calls.append(([type(term) for term in terms], steps, starts))

    monkeypatch.setattr(sys.modules[CategoryStart.__module__], "warm_start_categories", train)
    CategoryStart(80, transform=transform).run(None, (torch.rand(9, 2),), ["c"])
    plain = [RegularizedInformation]
    both = ([*plain, InvariantInformation], 20, 1)
    assert calls == [(plain, 80, 2), *([both] if transform else [])]


def test_a_training_with_a_transformation_reports_the_term():
    x = torch.rand(20, 1, 8, 8)
    vae = CatVAE((1, 8, 8), num_categories=3, warm_start=CategoryStart(2, transform="affine"))
    history = mi.fit(vae, x, epochs=2, batch_size=10, engine="staged")
    assert all(0 <= value <= math.log(3) for value in history["iic_c"])


def disc(shape, centre=(0.0, 0.0), radius=0.35):
    """A disc on black; places run from -1 to 1 along both axes."""
    height, width = shape
    down = (torch.arange(height) + 0.5) * 2 / height - 1
    right = (torch.arange(width) + 0.5) * 2 / width - 1
    far = (down[:, None] - centre[1]) ** 2 + ((right - centre[0]) * width / height) ** 2
    return (far < radius**2).double()[None, None]


def test_nothing_changes_without_amounts():
    x = torch.rand(3, 2, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(RandomAffine(0.0, 0.0, 0.0)(x), x)


@pytest.mark.parametrize("shape", [(40, 40), (40, 60)])
def test_a_disc_stays_a_disc_under_rotation(shape):
    x = disc(shape).repeat(8, 1, 1, 1)
    turned = RandomAffine(180.0, 0.0, 0.0)(x)
    assert (turned - x).abs().mean() < 0.01  # rounding at its border
    bar = torch.zeros(8, 1, 40, 40, dtype=torch.float64)
    bar[..., 18:22, 5:35] = 1
    assert (RandomAffine(180.0, 0.0, 0.0)(bar) - bar).abs().mean() > 0.05


def test_each_image_has_amounts_of_its_own_within_the_limits():
    x = disc((40, 40)).repeat(200, 1, 1, 1)
    places = torch.arange(40, dtype=x.dtype)
    moved = RandomAffine(0.0, 0.0, 0.1)(x).sum(1)
    across = (moved * places).sum((1, 2)) / moved.sum((1, 2)) - 19.5
    assert 3.5 < across.abs().max() <= 4.01  # a tenth of 40
    assert across.std() > 1.5
    areas = RandomAffine(0.0, 0.1, 0.0)(x).sum((1, 2, 3)) / x[0].sum()
    assert 0.79 < areas.min() < 0.85
    assert 1.15 < areas.max() < 1.23


def test_what_is_no_image_is_refused():
    with pytest.raises(ShapeError, match=r"not \(4, 8\)"):
        RandomAffine()(torch.rand(4, 8))
    with pytest.raises(OptionError, match="scale=1.0; allowed are"):
        RandomAffine(scale=1.0)
