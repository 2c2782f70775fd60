"""The choice of the categories that are decoded."""

import math

import pytest
import torch

from pyro_mivae.elbo import choose_categories

from .by_hand import chances, pieces

SHAPE, BATCH, K, DIM = (6,), 4, 5, 10
TOLERANCE = {"rtol": 0, "atol": 1e-10}
BUDGETS = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2)]


pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(("exact", "draws"), BUDGETS)
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 4.0])
def test_each_is_chosen_as_often_as_said(exact, draws, sharpness):
    probs = (sharpness * torch.randn(K, 3)).softmax(0)
    expected = torch.stack([chances(p, exact, draws) for p in probs.unbind(-1)], -1)
    often = torch.zeros_like(probs)
    for uniform, length in zip(*pieces(probs, exact, draws)):
        uniforms = uniform.expand(3)
        chosen, log_inclusion = choose_categories(probs.log(), uniforms, exact=exact, draws=draws)
        assert chosen.shape == log_inclusion.shape == (exact + draws, 3)
        assert all(len(set(column.tolist())) == exact + draws for column in chosen.unbind(-1))
        often.scatter_add_(0, chosen, length.expand_as(chosen))
        inclusion = expected.gather(0, chosen)
        torch.testing.assert_close(log_inclusion.exp(), inclusion, **TOLERANCE)
        weights = probs.gather(0, chosen) / inclusion
        torch.testing.assert_close(weights.sum(0), torch.ones(3), **TOLERANCE)
    torch.testing.assert_close(often, expected, **TOLERANCE)


@pytest.mark.parametrize(
    "logits",
    [
        [0.0, -800.0, -900.0, -1000.0, -2000.0],  # one that is certain, others below the smallest
        [0.0, 0.0, -math.inf, -math.inf, -math.inf],
        [0.0, -math.inf, -math.inf, -math.inf, -math.inf],
        [0.0] * 5,
    ],
)
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize(("exact", "draws"), BUDGETS)
def test_extreme_probabilities(logits, uniform, exact, draws):
    log_probs = torch.tensor(logits, dtype=torch.float32).log_softmax(0)
    chosen, log_inclusion = choose_categories(
        log_probs, torch.tensor(uniform, dtype=torch.float32), exact=exact, draws=draws
    )
    assert chosen.dtype == torch.int64
    assert len(chosen) == exact + draws
    assert chosen.min() >= 0
    assert chosen.max() < K
    assert log_inclusion.isfinite().all()
    weights = (log_probs[chosen] - log_inclusion).exp()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float32))


@pytest.mark.parametrize(("exact", "draws"), [(0, 5), (2, 3), (1, 9), (7, 1)])
def test_all_where_there_are_no_more(exact, draws):
    log_probs = torch.randn(K, 3).log_softmax(0)
    chosen, log_inclusion = choose_categories(log_probs, torch.rand(3), exact=exact, draws=draws)
    assert (chosen.sort(0).values == torch.arange(K)[:, None]).all()
    assert (log_inclusion == 0).all()
