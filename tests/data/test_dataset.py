"""Splitting and resizing."""

import pytest
import torch

from pyro_mivae.data import resize_images, split_indices
from pyro_mivae.errors import DataError


@pytest.mark.parametrize("count", [2, 3, 7, 1797])
def test_split_takes_each_image_once(count):
    train, test = split_indices(count)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(count))
    assert len(test) == max(1, round(0.2 * count))


def test_split_keeps_the_shares_of_labels():
    labels = torch.arange(3).repeat_interleave(torch.tensor([100, 50, 5]))
    train, test = split_indices(len(labels), labels)
    assert labels[test].bincount().tolist() == [20, 10, 1]
    assert labels[train].bincount().tolist() == [80, 40, 4]


def test_split_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = split_indices(50)
    torch.manual_seed(2)
    assert torch.equal(first[1], split_indices(50)[1])
    assert not torch.equal(first[1], split_indices(50, seed=1)[1])


def test_split_of_single_members_tests_on_one():
    train, test = split_indices(3, torch.tensor([0, 1, 2]))
    assert (len(train), len(test)) == (2, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_to_split(count):
    with pytest.raises(DataError, match=f"holds {count} image"):
        split_indices(count)


def test_resize_keeps_constant_images_and_the_range():
    images = torch.cat([torch.full((1, 3, 20, 20), 0.25), torch.rand(1, 3, 20, 20).round()])
    small = resize_images(images, (8, 12))
    assert small.shape == (2, 3, 8, 12)
    torch.testing.assert_close(small[0], torch.full((3, 8, 12), 0.25))
    assert small.min() >= 0
    assert small.max() <= 1
    assert resize_images(torch.ones(1, 1, 31, 31), (3, 5)).max() == 1  # 1 + 5e-7 unclamped


def test_resize_to_the_same_size_is_the_same_tensor():
    images = torch.rand(2, 1, 8, 8)
    assert resize_images(images, (8, 8)) is images
