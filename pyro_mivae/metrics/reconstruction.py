"""How much of the data a reconstruction holds."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_mivae.errors import ShapeError


def reconstruction_r2(x: Tensor, reconstruction: Tensor) -> float:
    r"""Returns the share of the data's variance that a reconstruction accounts for.

    .. math:: R^2 = 1 - \sum_n \|x_n - \hat x_n\|^2 \big/ \sum_n \|x_n - \bar x\|^2

    1 is perfect; 0 is what the mean of the data does by itself; worse than that is negative.

    Args:
        x: Data, shape ``(n, *data_shape)``.
        reconstruction: The same shape.

    Returns:
        R², at most 1; NaN where all data are alike.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> reconstruction_r2(x, x), reconstruction_r2(x, x.mean(0).expand(2, 1))
        (1.0, 0.0)
    """
    if x.shape != reconstruction.shape:
        raise ShapeError(
            f"data of shape {tuple(x.shape)} and reconstructions of shape "
            f"{tuple(reconstruction.shape)}; give one reconstruction per datum"
        )
    x, reconstruction = x.double(), reconstruction.double()
    variation = float((x - x.mean(0)).square().sum())
    if variation == 0:
        return math.nan
    return 1 - float((x - reconstruction).square().sum()) / variation
