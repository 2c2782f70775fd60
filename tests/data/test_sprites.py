"""Sprites: every image is what its factors say, and no two are alike."""

import math

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.data.sprites import CENTRES, FACTOR_NAMES, RADII, SHAPES, SIZE, draw_sprites


@pytest.fixture(scope="module")
def sprites():
    return draw_sprites()


def moments(images):
    """Mass of each image, and its centroid across and down, shape ``(n,)`` each."""
    pixels = images[:, 0].double()
    grid = torch.arange(SIZE) + 0.5
    mass = pixels.sum((1, 2))
    return mass, (pixels.sum(1) @ grid.double()) / mass, (pixels.sum(2) @ grid.double()) / mass


def test_every_combination_is_there_once_and_no_two_images_are_alike(sprites):
    assert sprites.images.shape == (18_000, 1, 32, 32)
    sizes = sprites.factors.max(0).values + 1
    assert sizes.tolist() == [3, 5, 12, 10, 10]
    assert len(sprites.factors.unique(dim=0)) == math.prod(sizes.tolist())
    assert torch.equal(sprites.labels, sprites.factors[:, 0])
    assert sprites.class_names == tuple(SHAPES)
    assert len((sprites.images * 255).round().byte().flatten(1).unique(dim=0)) == 18_000
    assert sprites.images.min() == 0
    assert sprites.images.max() == 1


def test_the_position_is_that_of_the_centroid(sprites):
    _, across, down = moments(sprites.images)
    centres = torch.linspace(*CENTRES, 10).double()
    assert (across - centres[sprites.factors[:, 3]]).abs().max() < 0.1
    assert (down - centres[sprites.factors[:, 4]]).abs().max() < 0.1


def test_the_area_is_that_of_the_shape_whatever_the_rotation(sprites):
    mass, *_ = moments(sprites.images)
    a, r, b = 1.07687, 0.92055, 0.52523  # a square's side, a disc's radius, a block's side
    areas = torch.tensor([a**2 * (1 + math.pi / 4), math.pi / 2 * r**2, 4 * b**2]).double()
    expected = (
        areas[sprites.factors[:, 0]] * torch.tensor(RADII).double()[sprites.factors[:, 1]] ** 2
    )
    assert ((mass - expected) / expected).abs().max() < 0.1
    for shape in range(3):
        largest = (sprites.factors[:, 0] == shape) & (sprites.factors[:, 1] == 4)
        assert float(mass[largest].mean() / expected[largest][0]) == pytest.approx(1, abs=0.01)


def test_a_sprite_lies_inside_its_circle(sprites):
    grid = torch.arange(SIZE) + 0.5
    centres = torch.linspace(*CENTRES, 10)
    across = grid - centres[sprites.factors[:, 3], None]  # (n, column)
    down = grid - centres[sprites.factors[:, 4], None]
    distance = torch.hypot(across[:, None, :], down[:, :, None])
    reach = (distance * (sprites.images[:, 0] > 0.5)).flatten(1).max(1).values
    radius = torch.tensor(RADII)[sprites.factors[:, 1]]
    assert (reach <= radius + 0.5).all()
    assert (reach >= radius - 1.8).all()


@pytest.mark.parametrize("shape", range(3))
def test_a_turn_of_three_steps_turns_the_image_by_a_quarter(sprites, shape):
    images = sprites.images.reshape(3, 5, 12, 10, 10, SIZE, SIZE)[shape]
    for start in range(12):
        # From the left below the centre to the right below it, and to the right above.
        first, turned = images[2, start, 3, 6], images[2, (start + 3) % 12, 6, 6]
        assert (first.rot90() - turned).abs().max() < 1e-4
        half = images[2, (start + 6) % 12, 6, 3]
        assert (first.rot90(2) - half).abs().max() < 1e-4


def test_no_turn_leaves_a_shape_as_it_is(sprites):
    images = sprites.images.reshape(15, 12, 10, 10, -1)[:, :, 5, 5]
    apart = torch.cdist(images, images) + 100 * torch.eye(12)
    size = images.norm(dim=-1).mean(1)
    assert (apart.flatten(1).min(1).values / size > 0.2).all()


def test_the_data_set_is_split_by_shape_with_its_factors():
    data = mi.load_dataset("sprites")
    assert data.factor_names == FACTOR_NAMES
    assert data.factors_train.shape == (14_400, 5)
    assert data.factors_test.shape == (3600, 5)
    assert torch.equal(data.factors_test[:, 0], data.y_test)
    assert data.y_test.bincount().tolist() == [1200, 1200, 1200]
    mass, across, down = moments(data.x_test)
    centres = torch.linspace(*CENTRES, 10).double()
    assert (across - centres[data.factors_test[:, 3]]).abs().max() < 0.1
    small = mi.load_dataset("sprites", image_size=16)
    assert small.data_shape == (1, 16, 16)
    assert torch.equal(small.factors_test, data.factors_test)
    assert mi.load_dataset("digits").factors_test is None
