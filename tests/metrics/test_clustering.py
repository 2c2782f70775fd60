"""Clustering metrics on cases that can be counted by hand."""

import itertools
import math

import pytest
import torch

from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.metrics import (
    adjusted_rand_index,
    categories_used,
    cluster_accuracy,
    contingency,
    generation_accuracy,
    generation_consistency,
    match_labels,
    normalised_mutual_information,
    occupancy,
)

METRICS = (cluster_accuracy, normalised_mutual_information, adjusted_rand_index)


def test_counts():
    table = contingency(torch.tensor([0, 2, 2, 0]), torch.tensor([1, 0, 0, 0]))
    assert table.tolist() == [[1, 1], [0, 0], [2, 0]]


@pytest.mark.parametrize("metric", METRICS)
def test_renamed_labels_are_a_perfect_clustering(metric):
    labels = torch.arange(50) % 7
    names = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    assert metric(names[labels], labels) == pytest.approx(1.0)


def test_accuracy_is_the_best_of_all_namings():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        categories = torch.randint(4, (30,), generator=generator)
        labels = torch.randint(4, (30,), generator=generator)
        best = max(
            float((torch.tensor(names)[categories] == labels).double().mean())
            for names in itertools.permutations(range(4))
        )
        assert cluster_accuracy(categories, labels) == pytest.approx(best)


def test_accuracy_with_more_categories_than_labels_and_the_other_way():
    halves = torch.arange(8) // 2  # each label split in two
    labels = torch.arange(8) // 4
    assert cluster_accuracy(halves, labels) == 0.5
    assert cluster_accuracy(labels, halves) == 0.5
    assert cluster_accuracy(torch.zeros(8, dtype=torch.long), halves) == 0.25


def test_nmi_is_the_quotient_of_its_definition():
    categories, labels = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    joint = contingency(categories, labels).double() / 6
    c, y = joint.sum(1), joint.sum(0)
    information = joint.xlogy(joint / (c[:, None] * y)).sum()
    entropies = -(c.xlogy(c).sum() + y.xlogy(y).sum())
    expected = float(2 * information / entropies)
    assert normalised_mutual_information(categories, labels) == pytest.approx(expected)


def test_ari_is_that_of_the_pairs():
    categories, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    # Pairs together in both: 1; in the categories: 2; in the labels: 1; of 6 pairs.
    expected = (1 - 2 * 1 / 6) / ((2 + 1) / 2 - 2 * 1 / 6)
    assert adjusted_rand_index(categories, labels) == pytest.approx(expected)


def test_independent_categories_agree_by_chance():
    categories, labels = torch.arange(4000) % 4, torch.arange(4000) // 4 % 5
    assert normalised_mutual_information(categories, labels) == pytest.approx(0, abs=1e-6)
    assert abs(adjusted_rand_index(categories, labels)) < 0.01


def test_occupancy_and_the_threshold_of_use():
    categories = torch.tensor([0] * 993 + [1] * 5 + [2] * 2)
    assert occupancy(categories, 4).tolist() == pytest.approx([0.993, 0.005, 0.002, 0.0])
    assert categories_used(categories, 4) == 2  # 5 of 1,000 are enough, 2 are not


JUDGED = torch.tensor([[1, 1, 1, 1], [0, 2, 2, 3], [0, 1, 2, 3]])


def test_generation_consistency_counts_live_categories():
    consistency, error = generation_consistency(JUDGED, torch.tensor([True, True, False]))
    assert consistency == 0.75
    assert error == pytest.approx((0.5 * 0.5 / 4) ** 0.5 / 2)
    assert generation_consistency(JUDGED, torch.ones(3).bool())[0] == pytest.approx(7 / 12)
    assert math.isnan(generation_consistency(JUDGED, torch.zeros(3).bool())[0])


def test_generation_accuracy_is_of_the_label_that_a_category_stands_for():
    names, live = torch.tensor([1, 2, 0]), torch.tensor([True, True, False])
    assert generation_accuracy(JUDGED, names, live, 2)[0] == 0.75
    assert generation_accuracy(JUDGED, names, live, 4)[0] == 1.5 / 4  # two labels are missed
    assert generation_accuracy(JUDGED, names, torch.ones(3).bool(), 2)[0] == 1.75 / 3
    ones, own = torch.ones(10, 5).long(), torch.arange(10)
    assert generation_accuracy(ones, own, torch.ones(10).bool(), 10)[0] == 0.1
    for args in ((names, torch.zeros(3).bool(), 4), (names, live, 1)):
        assert all(math.isnan(value) for value in generation_accuracy(JUDGED, *args))


def test_labels_are_matched_one_to_one_and_the_surplus_by_majority():
    categories = torch.tensor([0] * 5 + [1] * 5 + [2] * 3 + [3] * 2)
    labels = torch.tensor([4, 4, 4, 4, 7, 4, 4, 4, 7, 7, 4, 4, 7, 7, 7])
    brute = max(
        (
            sum(int(((categories == a) & (labels == 4)).sum()) for a in [i])
            + int(((categories == j) & (labels == 7)).sum()),
            i,
            j,
        )
        for i in range(4)
        for j in range(4)
        if i != j
    )
    matched = match_labels(categories, labels, 5)
    assert matched[brute[1]] == 4
    assert matched[brute[2]] == 7
    assert matched[2] == 4  # left over: its most frequent label
    assert match_labels(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist() == [0, 1]


def test_one_label_and_one_category_tell_nothing():
    one, two = torch.zeros(4).long(), torch.tensor([0, 0, 1, 1])
    for metric in (normalised_mutual_information, adjusted_rand_index):
        assert math.isnan(metric(one, one))
        assert metric(one, two) == metric(two, one) == 0


def test_values_that_are_no_categories_are_named():
    with pytest.raises(DataError, match="labels has dtype torch.float32; allowed are integers"):
        cluster_accuracy(torch.zeros(4).long(), torch.rand(4))
    with pytest.raises(DataError, match="values from -1 to -1"):
        cluster_accuracy(torch.zeros(4).long(), -torch.ones(4).long())
    with pytest.raises(DataError, match="1000000 labels given; allowed are 100000000 pairs"):
        contingency(torch.tensor([999]), torch.tensor([999_999]))
    with pytest.raises(ShapeError, match="category 3 found, and num_categories=2"):
        occupancy(torch.tensor([0, 3]), 2)


@pytest.mark.parametrize("metric", [*METRICS, contingency])
def test_bad_shapes_are_named(metric):
    for categories, labels in (
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3), torch.zeros(4)),
        (torch.zeros(0), torch.zeros(0)),
    ):
        with pytest.raises(ShapeError, match=r"allowed is \(n,\)"):
            metric(categories.long(), labels.long())
    judged, three, four = torch.zeros(3, 4).long(), torch.zeros(3).long(), torch.zeros(4).long()
    with pytest.raises(ShapeError, match=r"live has shape \(4,\); .*categories = 3"):
        generation_accuracy(judged, three, four, 2)
    with pytest.raises(ShapeError, match=r"names has shape \(4,\); .*categories = 3"):
        generation_accuracy(judged, four, three, 2)
