"""Agreement of categories: by their names alone, counted by hand, and between models."""

import math

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.metrics import agreement_of_models, category_agreement, most_probable


def test_names_are_of_no_account():
    categories = torch.randint(5, (200,))
    assert category_agreement(categories, torch.tensor([3, 0, 4, 1, 2])[categories]) == (1, 1, 1)


def test_counted_by_hand():
    first = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    second = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    found = category_agreement(first, second)
    # 0 -> 0 finds three, 1 -> 1 (or 2) two; the pairs that are together in both: 3 + 1 + 1.
    assert found.accuracy == 5 / 8
    expected = 12 * 7 / 28
    assert found.ari == pytest.approx((5 - expected) / ((12 + 7) / 2 - expected))
    joint = torch.tensor([[3, 1, 0], [0, 2, 2]]).double() / 8
    rows, columns = joint.sum(1), joint.sum(0)
    entropies = -(rows.xlogy(rows).sum() + columns.xlogy(columns).sum())
    information = joint.xlogy(joint / (rows[:, None] * columns)).sum()
    assert found.nmi == pytest.approx(float(2 * information / entropies))
    assert category_agreement(second, first) == pytest.approx(found)


def test_independent_categories_agree_by_chance():
    found = category_agreement(torch.arange(4000) % 4, torch.arange(4000) // 4 % 4)
    assert found == pytest.approx((1 / 4, 0, 0), abs=1e-3)


def cat(seed, classes=3):
    torch.manual_seed(seed)
    return mi.CatVAE((1, 8, 8), num_categories=classes, latent_dim=2 * classes)


def test_models_are_compared_pair_by_pair():
    x = torch.rand(1100, 1, 8, 8)  # more than a batch
    same, other = cat(0), cat(1)
    with torch.no_grad():
        for vae in (same, other):
            for parameter in vae.guide.parameters():
                parameter.mul_(3)
    categories = [vae.encode(x)["c"].argmax(-1) for vae in (same, other)]
    assert torch.equal(most_probable(same, x), categories[0])
    once = category_agreement(*categories)
    found = agreement_of_models([same, same, other], x)
    for name, value in once._asdict().items():
        mean, spread = found[f"category_agreement_{name}"]
        assert mean == pytest.approx((1 + 2 * value) / 3)
        assert spread == pytest.approx((1 - value) / math.sqrt(3))
    pair = agreement_of_models([same, other], x)
    assert pair["category_agreement_nmi"][0] == pytest.approx(once.nmi)
    assert math.isnan(pair["category_agreement_nmi"][1])
    wider = cat(0, classes=4)
    assert agreement_of_models([same, wider], x[:9])["category_agreement_nmi"][0] <= 1
    state = torch.get_rng_state()
    agreement_of_models([same, other], x[:9])
    assert torch.equal(torch.get_rng_state(), state)
    assert same.training


def test_bad_input_is_named():
    with pytest.raises(OptionError, match="vaes holds 1; give 2 or more"):
        agreement_of_models([cat(0)], torch.rand(3, 1, 8, 8))
    with pytest.raises(OptionError, match="VAE has no categories"):
        agreement_of_models([mi.VAE((1, 8, 8))] * 2, torch.rand(3, 1, 8, 8))
    with pytest.raises(ShapeError, match=r"second has shape \(4,\); .*n = 3"):
        category_agreement(torch.zeros(3).long(), torch.zeros(4).long())
