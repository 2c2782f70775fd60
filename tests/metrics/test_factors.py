"""Codes beside factors: cases that can be counted by hand, and what must not matter."""

import math

import pytest
import torch

from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.metrics import (
    completeness,
    dci_scores,
    disentanglement,
    factor_information,
    factor_vae_score,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from pyro_mivae.metrics.factors import expand

GRID = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(5)).repeat(10, 1)
BITS = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(20, 1)
LOG2 = math.log(2)


def dci(codes, factors, **options):
    return dci_scores(codes, factors, codes, factors, **options)


def scores(codes, factors, **options):
    return (
        mutual_information_gap(codes, factors, **options),
        modularity(codes, factors, **options),
        separated_attribute_predictability(codes, factors, **options),
        factor_vae_score(codes, factors, **options)[0],
        *dci(codes, factors, **options)[:3],
    )


BEST_SAP = 1 - (1 / 3 + 1 / 4 + 1 / 5) / 3


@pytest.mark.parametrize(
    "arrange",
    [
        lambda codes: codes,
        lambda codes: codes[:, [2, 0, 1]],
        lambda codes: -1e-3 * codes + 7,
        lambda codes: torch.tensor([3.0, 0.0, 4.0, 1.0, 2.0])[codes.long()],  # of no order
        lambda codes: torch.cat(
            [codes, torch.full((len(codes), 2), 0.3)], 1
        ),  # two dead dimensions
    ],
    ids=["as it is", "permuted", "scaled", "shuffled values", "dead dimensions"],
)
def test_a_perfect_code_scores_one(arrange):
    found = scores(arrange(GRID.double()), GRID)
    assert found == pytest.approx((1, 1, BEST_SAP, 1, 1, 1, 1))


def test_a_sum_and_a_difference_know_both_factors_alike():
    """Of two fair bits each of z = (v1 + v2, v1 - v2) tells log 2 / 2 nats about either."""
    v1, v2 = BITS.double().unbind(1)
    codes = torch.stack([v1 + v2, v1 - v2], 1)
    half = pytest.approx(LOG2 / 2 * torch.ones(2, 2).double())
    assert factor_information(codes, BITS) == half
    assert mutual_information_gap(codes, BITS) == pytest.approx(0, abs=1e-12)
    assert modularity(codes, BITS) == pytest.approx(0, abs=1e-12)
    assert separated_attribute_predictability(codes, BITS) == pytest.approx(0)
    assert factor_vae_score(codes, BITS)[0] < 0.6  # chance is 1/2
    found = dci(codes, BITS)
    assert found.informativeness == 1  # together they tell all
    assert found.disentanglement < 0.2


def test_half_a_code_that_is_mixed():
    """z = (v1, v1 + v2): the second tells log 2 / 2 about either bit."""
    v1, v2 = BITS.double().unbind(1)
    codes = torch.stack([v1, v1 + v2], 1)
    expected = torch.tensor([[LOG2, 0.0], [LOG2 / 2, LOG2 / 2]]).double()
    torch.testing.assert_close(factor_information(codes, BITS), expected)
    assert mutual_information_gap(codes, BITS) == pytest.approx(((1 - 0.5) + 0.5) / 2)
    assert modularity(codes, BITS) == pytest.approx((1 + 0) / 2)
    # One threshold on v1 + v2 finds 3/4 of either bit.
    expected = ((1 - 3 / 4) + (3 / 4 - 1 / 2)) / 2
    assert separated_attribute_predictability(codes, BITS) == pytest.approx(expected)


@pytest.mark.parametrize(("flipped", "modular"), [(24, 1.0), (26, math.nan)])
def test_a_dimension_knows_a_factor_if_chance_would_hardly_say_so(flipped, modular):
    """By chi squared of one degree of freedom: 80 data of two bits tell 0.0757 nats by chance."""
    code = torch.where(torch.arange(80) < flipped, 1 - BITS[:, 0], BITS[:, 0])[:, None].double()
    found = modularity(code, BITS)
    assert found == pytest.approx(modular, nan_ok=True)


def test_a_factor_in_two_dimensions_is_no_gap():
    codes = torch.cat([GRID, GRID[:, :1]], 1).double()
    gap = mutual_information_gap(codes, GRID)
    assert gap == pytest.approx(2 / 3)
    assert modularity(codes, GRID) == pytest.approx(1)
    expected = ((1 - 1) + (1 - 1 / 4) + (1 - 1 / 5)) / 3
    assert separated_attribute_predictability(codes, GRID) == pytest.approx(expected)


def test_dci_of_an_importance_that_is_known():
    importance = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    entropy = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert disentanglement(importance) == pytest.approx(0.75 * (1 - entropy) + 0.25)
    assert completeness(importance) == pytest.approx((1 + 0) / 2)
    assert math.isnan(disentanglement(importance[:, :1]))
    assert math.isnan(completeness(importance[:1]))
    wide = torch.tensor([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    assert disentanglement(wide) == pytest.approx((3 * 1 + 2 * 0.5) / 5)


def test_importance_is_that_of_the_dimension_in_use():
    noise = torch.randn(len(GRID), 2, dtype=torch.float64)
    codes = torch.cat([noise[:, :1], GRID[:, [1]], noise[:, 1:], GRID[:, [0, 2]]], 1)
    found = dci(codes, GRID).importance
    assert found.sum(0).tolist() == pytest.approx([1, 1, 1])
    assert found[[3, 1, 4], [0, 1, 2]].min() > 0.99


def test_noise_says_about_nothing():
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([torch.randint(k, (6000,), generator=generator) for k in (2, 3)], 1)
    codes = torch.randn(6000, 4, generator=generator)
    assert mutual_information_gap(codes, factors) < 2e-3
    assert separated_attribute_predictability(codes, factors) < 0.02
    share, error = factor_vae_score(codes, factors)
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 800))
    assert abs(share - 0.5) < 4 * error
    learn, score = slice(0, 3000), slice(3000, None)
    found = dci_scores(codes[learn], factors[learn], codes[score], factors[score])
    assert found.disentanglement < 0.02
    assert found.completeness < 0.02
    assert found.informativeness == pytest.approx((1 / 2 + 1 / 3) / 2, abs=0.03)
    # What is left is the bias of counting: (20 - 1)(K - 1) / 2n, for each dimension.
    bias = factor_information(codes, factors).mean(0)
    assert bias.tolist() == pytest.approx([19 / 12_000, 38 / 12_000], rel=0.5)


def test_factor_vae_sees_the_dimension_that_varies_least():
    """z1 = v1 + noise: it varies least where v1 is fixed, however loud z2 is."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(len(GRID), 2, generator=generator)
    codes = torch.stack([GRID[:, 0] + 0.3 * noise[:, 0], 1000 * (GRID[:, 1] + noise[:, 1])], 1)
    two = GRID[:, :2]
    assert factor_vae_score(codes, two)[0] > 0.95
    alone = factor_vae_score(codes[:, :1], two)
    assert abs(alone[0] - 0.5) < 4 * alone[1]  # one dimension can only ever name one factor


def test_a_category_counts_as_one_dimension_without_order():
    generator = torch.Generator().manual_seed(2)
    names = torch.randperm(40, generator=generator)
    factors = torch.stack([torch.arange(800) % 40, torch.arange(800) // 40 % 2], 1)
    codes = torch.stack([names[factors[:, 0]], factors[:, 1]], 1).double()
    plain, named = scores(codes, factors), scores(codes, factors, categorical=[0])
    assert plain[0] < 0.95  # 40 values fall into 20 bins
    best = 1 - (1 / 40 + 1 / 2) / 2
    assert named == pytest.approx((1, 1, best, 1, 1, 1, 1))


def test_a_category_is_written_out():
    features, groups = expand(torch.tensor([[2.0, 5.0], [0.0, 5.0], [2.0, 7.0]]), [0])
    assert features.tolist() == [[0, 1, 5], [1, 0, 5], [0, 1, 7]]
    assert groups.tolist() == [0, 0, 1]


def test_sap_of_a_category_is_that_of_its_best_names():
    category = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    factor = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])[:, None]
    # Named 0 and 1 they find all of value 0 and 5/6 of value 1; chance is 1/2.
    found = separated_attribute_predictability(category[:, None].double(), factor, categorical=[0])
    assert found == pytest.approx((1 + 5 / 6) / 2 - 1 / 2)


def test_sap_balances_the_values():
    """A threshold that finds all of a rare value is worth more than naming the frequent one."""
    factor = torch.tensor([0] * 96 + [1] * 4)[:, None]
    code = torch.cat([torch.zeros(86), torch.ones(14)])[:, None]  # 10 of value 0 above it
    found = separated_attribute_predictability(code, factor)
    assert found == pytest.approx((86 / 96 + 1) / 2 - 1 / 2)


def test_sap_cuts_no_more_often_than_a_factor_has_values():
    code = torch.arange(40) % 4
    factor = (code % 2)[:, None]  # three thresholds would tell it, one finds 1/2 and all
    found = separated_attribute_predictability(code[:, None].double(), factor)
    assert found == pytest.approx((1 / 2 + 1) / 2 - 1 / 2)


def test_factors_of_one_value_are_left_out():
    constant = torch.cat([GRID, torch.full((len(GRID), 1), 4)], 1)
    assert scores(GRID.double(), constant) == pytest.approx((1, 1, BEST_SAP, 1, 1, 1, 1))
    none = torch.zeros(len(GRID), 2, dtype=torch.long)
    assert all(map(math.isnan, scores(GRID.double(), none)))
    one = scores(GRID.double(), GRID[:, :1])
    assert math.isnan(one[1])  # modularity needs two factors
    assert math.isnan(one[4])
    assert one[0] == pytest.approx(1)


def test_dci_leaves_out_what_does_not_vary_where_it_is_scored():
    other = torch.cat([GRID, torch.arange(len(GRID))[:, None] % 3], 1)
    fixed = torch.cat([GRID, torch.zeros(len(GRID), 1, dtype=torch.long)], 1)
    found = dci_scores(GRID.double(), other, GRID.double(), fixed)
    wanted = dci_scores(GRID.double(), GRID, GRID.double(), GRID)
    assert found[:3] == wanted[:3]
    assert found.importance.shape == wanted.importance.shape


def test_codes_that_are_nothing():
    broken = GRID.double().index_fill(0, torch.tensor([3]), math.nan)
    assert all(map(math.isnan, scores(broken, GRID)))
    dead = torch.ones(len(GRID), 2)
    found = scores(dead, GRID)
    assert found[0] == 0
    assert found[2] == 0
    assert all(map(math.isnan, (found[1], found[3], found[4], found[5])))
    assert found[6] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3)
    empty = scores(dead[:, :0], GRID)
    assert (empty[0], empty[2]) == (0, 0)
    assert all(math.isnan(empty[k]) for k in (1, 3, 4, 5, 6))


def test_only_the_seed_decides():
    codes = GRID + torch.randn(len(GRID), 3)
    state = torch.get_rng_state()
    first = factor_vae_score(codes, GRID)
    assert torch.equal(torch.get_rng_state(), state)
    assert factor_vae_score(codes, GRID) == first
    assert {factor_vae_score(codes, GRID, seed=seed) for seed in range(4)} != {first}
    importances = [dci(codes, GRID, seed=seed).importance for seed in (0, 0, 1)]
    assert torch.equal(importances[0], importances[1])
    assert not torch.equal(importances[0], importances[2])


def test_columns_and_factors_that_there_are_not_are_named():
    with pytest.raises(
        OptionError, match=r"categorical\[0\]=9; allowed are whole numbers from 0 to 2"
    ):
        mutual_information_gap(categorical=(9,), factors=GRID, codes=GRID.double())
    with pytest.raises(DataError, match="factors has dtype torch.float64; allowed are integers"):
        modularity(GRID.double(), GRID.double())
    with pytest.raises(DataError, match="importance has negative values"):
        disentanglement(-torch.eye(3))


@pytest.mark.parametrize(
    ("codes", "factors"),
    [
        (torch.zeros(3), torch.zeros(3, 1).long()),
        (torch.zeros(3, 2), torch.zeros(3).long()),
        (torch.zeros(3, 2), torch.zeros(4, 1).long()),
        (torch.zeros(0, 2), torch.zeros(0, 1).long()),
    ],
)
def test_bad_shapes_are_named(codes, factors):
    metrics = (mutual_information_gap, modularity, separated_attribute_predictability)
    for metric in (*metrics, factor_vae_score, factor_information, dci):
        with pytest.raises(ShapeError, match=r" has shape .* allowed is \([nm], [dF]\)"):
            metric(codes, factors)
