"""Binary pixels from grey ones, by named protocols."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, numbers, whole
from pyro_mivae.errors import DataError, OptionError
from pyro_mivae.inputs import clamp_rounding

PROTOCOLS = {
    "none": "pixels stay as they are",
    "threshold": "1 where x > 1/2, else 0",
    "fixed": "one Bernoulli draw by a fixed seed",
    "dynamic": "a new Bernoulli draw of each batch in training; otherwise one by a fixed seed",
}
"""Meaning of each protocol."""
TRAIN_SEED, TEST_SEED = 0, 1  # of fixed draws; apart, so that no noise is in both parts
_SEED = whole(least=0, most=2**32 - 1)


@checked(x=numbers(), protocol=choice(*PROTOCOLS), seed=_SEED)
def binarize(x: Any, protocol: str, *, seed: int | None = None) -> Tensor:
    """Makes pixels 0 or 1.

    Pixels that are 0 or 1 already stay as they are. Bernoulli draws take the grey value as the
    probability of 1. The fixed draw is our own, not the static MNIST of Larochelle.

    Args:
        x: Pixels in [0, 1], a tensor or an array of any shape.
        protocol: ``"none"``: returns ``x``. ``"threshold"``: 1 where x > 1/2. ``"fixed"``: a
            Bernoulli draw, the same in each call and on each device. ``"dynamic"``: a new
            Bernoulli draw in each call, from torch's random numbers.
        seed: Seed of the fixed draw, 0 if omitted. Other protocols take none.

    Returns:
        Zeros and ones in the shape and dtype of ``x``; float32 for integers and booleans.

    Raises:
        DataError: If a pixel is outside [0, 1].
        OptionError: If there is no such protocol, or it takes no seed.

    Example:
        >>> binarize(torch.tensor([0.0, 0.5, 0.6, 1.0]), "threshold")
        tensor([0., 0., 1., 1.])
    """
    if seed is not None and protocol != "fixed":
        raise OptionError(f"seed={seed} with protocol={protocol!r}; leave it out, or give 'fixed'")
    if protocol == "dynamic":
        return draw(probabilities(x, protocol))
    return settled_pixels(x, protocol, TRAIN_SEED if seed is None else seed)


def probabilities(x: Tensor, protocol: str) -> Tensor:
    """Returns pixels as floating-point numbers in [0, 1]; refuses others."""
    given, x = x.dtype, x if x.is_floating_point() else x.float()
    if x.numel():
        x = clamp_rounding(x, (0.0, 1.0), given)
        low, high = map(float, x.aminmax())
        if low < 0 or high > 1:
            raise DataError(
                f"the pixels range over [{low:.8g}, {high:.8g}], binarize={protocol!r} needs "
                "[0, 1]; rescale them (uint8 images: divide by 255), or give binarize='none'"
            )
    return x


def draw(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws pixels with these probabilities of 1, on their device."""
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    return (noise < x).to(x.dtype)


def training_pixels(x: Tensor, protocol: str) -> Tensor:
    """Returns training images as they are kept: grey for ``"dynamic"``, which draws each batch."""
    if protocol == "dynamic":
        return probabilities(x, protocol)
    return settled_pixels(x, protocol, TRAIN_SEED)


def settled_pixels(x: Tensor, protocol: str, seed: int = TEST_SEED) -> Tensor:
    """Returns images for evaluation; for ``"dynamic"`` they are one fixed draw.

    The draw is made on the CPU, so it is the same for every device.
    """
    if protocol == "none":
        return x
    x = probabilities(x, protocol)
    if protocol == "threshold":
        return (x > 0.5).to(x.dtype)
    return draw(x.cpu(), torch.Generator().manual_seed(seed)).to(x.device)
