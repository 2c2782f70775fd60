"""The judge and the probes on data whose difficulty is known."""

import math

import pytest
import torch

from pyro_mivae.errors import ShapeError
from pyro_mivae.metrics import Classifier, fit_classifier, linear_probe, mlp_probe


def blobs(n, seed, *, ring=False):
    """Three classes; as a ring about a core they need more than a line."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    noise = torch.randn(n, 2, generator=generator)
    if ring:
        angle = 2 * math.pi * torch.rand(n, generator=generator)
        centres = 4 * labels[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    else:
        centres = 100 * torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])[labels]
        noise = 100 * noise
    return centres + noise / 2, labels


def test_a_line_finds_blobs_of_any_scale_but_not_rings():
    train, test = blobs(300, 0), blobs(300, 1)
    assert linear_probe(*train, *test) > 0.98
    assert mlp_probe(*train, *test) > 0.98
    train, test = blobs(300, 0, ring=True), blobs(300, 1, ring=True)
    assert linear_probe(*train, *test) < 0.7
    assert mlp_probe(*train, *test) > 0.95


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_the_scale_of_a_coordinate_is_of_no_account(probe):
    labels = torch.arange(300) % 2
    train, test = (torch.randn(300, 4) for _ in range(2))
    for codes in (train, test):
        codes[:, 0] = 1e-4 * (labels + 0.1 * codes[:, 0])
    assert probe(train, labels, test, labels) > 0.98


def test_coordinates_are_centred_and_of_unit_variance():
    features = 5 + 3 * torch.randn(50, 2)
    for per_feature in (True, False):
        classifier = Classifier(features, 2, per_feature=per_feature)
        classifier.layers = torch.nn.Identity()
        seen = classifier(features)
        dims = (0,) if per_feature else (0, 1)
        variance, mean = torch.var_mean(seen, dims, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance))


def test_noise_is_read_at_chance():
    labels = torch.arange(400) % 2
    train, test = torch.randn(400, 3), torch.randn(400, 3)
    for probe in (linear_probe, mlp_probe):
        assert abs(probe(train, labels, test, labels) - 0.5) < 0.12


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_what_cannot_be_learned_is_nan(probe):
    codes, labels = torch.randn(6, 2), torch.arange(6) % 2
    assert math.isnan(probe(codes, torch.zeros(6, dtype=torch.long), codes, labels))
    assert math.isnan(probe(codes.fill_(torch.nan), labels, codes, labels))
    assert math.isnan(probe(codes[:0], labels[:0], codes, labels))


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_a_class_that_was_not_learned_counts_as_wrong(probe):
    codes = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    labels = torch.tensor([0, 1, 0, 1])
    assert probe(codes, labels, codes, torch.tensor([0, 1, 2, 2])) == 0.5


def test_a_constant_coordinate_does_no_harm():
    train, labels = blobs(60, 0)
    train = torch.cat([train, torch.ones(60, 1)], 1)
    assert mlp_probe(train, labels, train, labels) > 0.9
    assert linear_probe(train, labels, train, labels) > 0.9


def test_the_seed_decides_and_torch_is_left_alone():
    features, labels = blobs(60, 0)
    state = torch.get_rng_state()
    first = fit_classifier(features, labels, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.is_grad_enabled()
    again, other = (fit_classifier(features, labels, 3, seed=s) for s in (0, 1))
    assert torch.equal(first(features), again(features))
    assert not torch.equal(first(features), other(features))
    assert not first.training


def test_images_are_flattened():
    images = torch.rand(40, 1, 3, 3)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    judge = fit_classifier(images, labels, 2, per_feature=False)
    assert judge(images).shape == (40, 2)
    assert judge.loc.dim() == 0
    assert judge.accuracy(images, labels) > 0.9


def test_bad_labels_are_named():
    with pytest.raises(ShapeError, match=r"labels has shape \(3,\); .*n = 4"):
        fit_classifier(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long), 2)
