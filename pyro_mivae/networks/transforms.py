"""Random transformations of images that do not change what they show."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from pyro_mivae.arguments import checked, number
from pyro_mivae.errors import ShapeError


class RandomAffine(nn.Module):
    """Rotates, scales and shifts each image by its own random amounts.

    torchvision's transform of the same name draws one set of amounts for the whole batch, and
    reads them on the host, so its step cannot be traced.

    Args:
        degrees: Largest rotation to either side, in degrees.
        scale: Largest relative change of size.
        shift: Largest shift along each axis, as a share of the image.

    Example:
        >>> images = torch.rand(5, 1, 8, 8)
        >>> RandomAffine()(images).shape
        torch.Size([5, 1, 8, 8])
    """

    @checked(
        degrees=number(least=0, most=180),
        scale=number(least=0, below=1),
        shift=number(least=0, most=1),
    )
    def __init__(self, degrees: float = 10.0, scale: float = 0.1, shift: float = 0.1) -> None:
        super().__init__()
        self.degrees, self.scale, self.shift = degrees, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Transforms images ``(batch, channels, height, width)``; pixels from outside are 0."""
        if x.dim() != 4:
            raise ShapeError(
                f"RandomAffine takes images of shape (batch, channels, height, width), not "
                f"{tuple(x.shape)}"
            )
        n, _, height, width = x.shape
        turn, size, right, down = (
            2 * torch.rand(4, n, dtype=x.dtype, device=x.device) - 1
        ).unbind()
        angle, size = turn * math.radians(self.degrees), 1 + size * self.scale
        cos, sin, aspect = angle.cos() / size, angle.sin() / size, height / width
        rows = [
            cos,
            -sin * aspect,
            2 * right * self.shift,
            sin / aspect,
            cos,
            2 * down * self.shift,
        ]
        grid = affine_grid(torch.stack(rows, -1).view(n, 2, 3), list(x.shape), align_corners=False)
        return grid_sample(x, grid, align_corners=False)


TRANSFORMS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {"affine": RandomAffine}
"""Transformations by name."""
