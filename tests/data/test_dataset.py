"""Splitting, resizing, and the picture in a notebook."""

import base64
import io
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from pyro_mivae.data import Dataset, resize_images, split_indices
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


def shown_picture(data: Dataset) -> torch.Tensor:
    (png,) = re.findall(r"base64,(.*)\"", data._repr_html_())
    return pil_to_tensor(Image.open(io.BytesIO(base64.b64decode(png))))[0]


def test_notebook_shows_an_image_of_each_class():
    x, y = torch.tensor([0.0, 0.2, 0.4, 0.8])[:, None, None, None].expand(4, 1, 4, 4), [2, 2, 0, 1]
    data = Dataset("mine<", x, torch.tensor(y), x, torch.tensor(y), ("a", "b", "c"))
    assert "mine&lt;" in data._repr_html_()
    picture = shown_picture(data)
    assert picture.shape == (68, 200)  # three images of 4 x 4, 16 times as large, and gaps
    assert picture[34, [34, 100, 166]].tolist() == [102, 204, 0]
    assert shown_picture(replace(data, y_train=None)).shape == (68, 266)
    large = replace(data, x_train=x[..., :1, :1].expand(4, 1, 400, 400))
    assert shown_picture(large).shape == (104, 308)  # every fourth pixel
    far = replace(data, x_train=10 * x - 3)  # -3 to 5
    assert shown_picture(far)[34, [34, 100, 166]].tolist() == pytest.approx([127, 255, 0], abs=1)


def test_notebook_shows_text_of_a_table():
    data = Dataset("table", torch.zeros(3, 2), None, torch.zeros(1, 2), None)
    told = "Dataset(table: 3 training and 1 test data of shape (2,))"
    assert data._repr_html_() == f"<pre>{told}</pre>"
