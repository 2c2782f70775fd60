"""Share of the data that a reconstruction holds."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from pyro_mivae.arguments import checked, numbers
from pyro_mivae.errors import ShapeError

BATCH = 1024


@checked(x=numbers("n", "..."), reconstruction=numbers("n", "..."))
def reconstruction_r2(x: Tensor, reconstruction: Tensor) -> float:
    r"""Returns the share of the data's variance that a reconstruction accounts for.

    .. math:: R^2 = 1 - \sum_n \|x_n - \hat x_n\|^2 \big/ \sum_n \|x_n - \bar x\|^2

    Args:
        x: Data, shape ``(n, *data_shape)``.
        reconstruction: The same shape.

    Returns:
        At most 1; 0 for the mean of the data, negative for worse; NaN where all data are alike.

    Raises:
        ShapeError: If the shapes differ.
        DataError: If values are not finite.

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
    return explained(x.split(BATCH), reconstruction.split(BATCH), variation(x))


def variation(x: Tensor) -> float:
    """Squared distances of data from their mean, summed, a batch at a time."""
    mean = sum(part.double().sum(0) for part in x.split(BATCH)) / max(1, len(x))
    return sum(float((part.double() - mean).square().sum()) for part in x.split(BATCH))


def explained(x: Iterable[Tensor], reconstruction: Iterable[Tensor], variation: float) -> float:
    """Returns `reconstruction_r2` of data that come in batches."""
    pairs = zip(x, reconstruction, strict=True)
    error = sum(float((a.to(b.device).double() - b.double()).square().sum()) for a, b in pairs)
    return 1 - error / variation if variation else math.nan
