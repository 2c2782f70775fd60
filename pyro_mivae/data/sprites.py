"""Small images of sprites with known factors, drawn on the fly.

Similar to dSprites (Matthey et al. 2017), with shapes without rotational symmetry: every angle
gives a different image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_mivae.data.dataset import RawImages

SIZE = 32
RADII = (4.0, 5.0, 6.0, 7.0, 8.0)  # of the circle about the centroid that holds the sprite, pixels
NUM_ROTATIONS = 12  # 30 degrees apart, over the whole circle
NUM_POSITIONS = 10
CENTRES = (8.5, 23.5)  # first and last position of the centroid: no sprite leaves the image
FACTOR_NAMES = ("shape", "scale", "rotation", "position_x", "position_y")


def draw_sprites() -> RawImages:
    """Draws every combination of the factors once: 18,000 images of 32×32 pixels.

    Grey sprites on black: the brightness of a pixel is the share that the sprite covers. The
    factors, in the order of `FACTOR_NAMES`: 3 shapes (heart, half disc, L), 5 sizes, 12 rotations
    (30 degrees apart, against the clock), 10 × 10 positions of the centroid, to the right and
    down. The shape is the label.
    """
    turns = torch.arange(NUM_ROTATIONS) * (2 * math.pi / NUM_ROTATIONS)
    centres = torch.linspace(*CENTRES, NUM_POSITIONS)
    parts = [_draw(shape, r, turns, centres) for shape in SHAPES.values() for r in RADII]
    sizes = (len(SHAPES), len(RADII), NUM_ROTATIONS, NUM_POSITIONS, NUM_POSITIONS)
    factors = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    return RawImages(
        "sprites",
        torch.cat(parts)[:, None],
        factors[:, 0].clone(),
        tuple(SHAPES),
        factors=factors,
        factor_names=FACTOR_NAMES,
    )


def _draw(
    shape: Callable[[Tensor, Tensor], Tensor], radius: float, turns: Tensor, centres: Tensor
) -> Tensor:
    """Images ``(turns * centres * centres, SIZE, SIZE)`` of a shape and size, by turn, x, y."""
    pixels = torch.arange(SIZE) + 0.5
    offset = (pixels - centres[:, None]) / radius  # (centres, SIZE)
    cos, sin = turns.cos()[:, None, None, None, None], turns.sin()[:, None, None, None, None]
    across, down = offset[:, None, None, :], offset[:, :, None]  # over (x, y, row, column)
    u, v = cos * across - sin * down, sin * across + cos * down
    cover = (0.5 - radius * shape(u, v)).clamp(0.0, 1.0)
    return cover.reshape(-1, SIZE, SIZE)


# Distances to the edge, negative inside, in units of the radius. Each shape has its centroid at
# the origin and its furthest point 1 away.


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its corner, with half a disc on each of its upper sides."""
    side = 1.07687
    centroid = 0.65663 * side
    a, b = (u - v) / math.sqrt(2) + centroid, (-u - v) / math.sqrt(2) + centroid
    square = torch.maximum((a - side / 2).abs(), (b - side / 2).abs()) - side / 2
    discs = [torch.hypot(a - p, b - q) - side / 2 for p, q in ((side / 2, side), (side, side / 2))]
    return torch.minimum(square, torch.minimum(*discs))


def _half_disc(u: Tensor, v: Tensor) -> Tensor:
    """The upper half of a disc."""
    disc = 0.92055
    below = 4 / (3 * math.pi) * disc
    height = below - v
    return torch.maximum(torch.hypot(u, height) - disc, -height)


def _ell(u: Tensor, v: Tensor) -> Tensor:
    """A column of three blocks, and a fourth to the right of the lowest."""
    block = 0.52523
    x, y = u / block + 0.75, -v / block + 1.25
    bar = torch.maximum((x - 0.5).abs() - 0.5, (y - 1.5).abs() - 1.5)
    foot = torch.maximum((x - 1.0).abs() - 1.0, (y - 0.5).abs() - 0.5)
    return block * torch.minimum(bar, foot)


SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "heart": _heart,
    "half-disc": _half_disc,
    "ell": _ell,
}
"""Each shape's signed distance to its edge by name, a function of right and down."""
