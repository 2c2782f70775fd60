"""A variant with data and their codes, and the share of variance that codes reconstruct."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, numbers
from pyro_mivae.errors import ShapeError
from pyro_mivae.variants import Variant
from pyro_mivae.variants.encoding import drawn_codes, encoded

ENCODE_BATCH = 1024

Codes = dict[str, Tensor]


class EncodedData:
    """A variant, data, and their codes; make it inside `preserved_state`.

    Attributes:
        args: The data, and their condition if there is one.
        codes: Result of `Variant.encode` by site, shape ``(n, size)``.
        category: The first categorical site, and its number of categories.
        categories: Number of categories of each categorical site.
        groups: All sites under an empty name; if there are several, also each under its name.
    """

    def __init__(self, vae: Variant, args: Sequence[Tensor], seed: int) -> None:
        self.vae, self.args, self.x, self.seed = vae, args, args[0], seed
        self.category = str(vae.category), int(vae.num_categories or 0)
        self.categories = vae.categories
        self.codes = self.encode(args)
        sites = list(self.codes)
        self.groups = {"": sites} | {site: [site] for site in sites if len(sites) > 1}

    @property
    def found(self) -> Tensor:
        """The most probable category of each datum, shape ``(n,)``."""
        return self.codes[self.category[0]].argmax(-1)

    def encode(self, args: Sequence[Tensor], rows: Tensor | None = None) -> Codes:
        """Returns posterior means, for a category its probabilities; accepts decoded means too."""
        return _join([encoded(self.vae, part) for part in batches(args, rows)])

    def draw(self, args: Sequence[Tensor], rows: Tensor | None = None) -> Codes:
        """Returns one draw of the guide for each datum; a category is one-hot."""
        device = self.vae.device
        parts = ([part.to(device) for part in some] for some in batches(args, rows))
        return _join([drawn_codes(self.vae, part, self.vae.guide) for part in parts])

    def conditions(self, count: int) -> list[Tensor]:
        """Returns conditions for ``count`` generated data: those of the data in turn, if any."""
        return [u[torch.arange(count, device=u.device) % len(u)] for u in self.args[1:]]


def batches(args: Sequence[Tensor], rows: Tensor | None = None) -> Iterator[list[Tensor]]:
    """Splits data and their condition into batches, without a copy of all of them."""
    if rows is None:
        yield from map(list, zip(*(part.split(ENCODE_BATCH) for part in args), strict=True))
    else:
        for some in rows.split(ENCODE_BATCH):
            yield [part[some.to(part.device)] for part in args]


def _join(parts: Sequence[Codes]) -> Codes:
    return {site: torch.cat([part[site] for part in parts]).flatten(1) for site in parts[0]}


def side_by_side(codes: Codes, categories: Collection[str]) -> tuple[Tensor, list[int]]:
    """Concatenates all sites, with a category as one column; also returns their places."""
    parts, categorical, width = [], [], 0
    for site, code in codes.items():
        if site in categories:
            categorical.append(width)
            code = code.argmax(1, keepdim=True).to(code)
        parts.append(code)
        width += code.shape[1]
    return torch.cat(parts, 1), categorical


@checked(x=numbers("n", "..."), reconstruction=numbers("n", "..."))
def reconstruction_r2(x: Tensor, reconstruction: Tensor) -> float:
    r"""Returns the share of the data's variance that a reconstruction explains.

    .. math:: R^2 = 1 - \sum_n \|x_n - \hat x_n\|^2 \big/ \sum_n \|x_n - \bar x\|^2

    Args:
        x: Data, shape ``(n, *data_shape)``.
        reconstruction: The same shape.

    Returns:
        At most 1; 0 for the mean of the data, negative if worse; NaN if all data are equal.

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
    return explained(x.split(ENCODE_BATCH), reconstruction.split(ENCODE_BATCH), variation(x))


def variation(x: Tensor) -> float:
    """Sum of squared distances of data from their mean, computed in batches."""
    mean = sum(part.double().sum(0) for part in x.split(ENCODE_BATCH)) / max(1, len(x))
    return sum(float((part.double() - mean).square().sum()) for part in x.split(ENCODE_BATCH))


def explained(x: Iterable[Tensor], reconstruction: Iterable[Tensor], variation: float) -> float:
    """Returns `reconstruction_r2` of data given in batches."""
    pairs = zip(x, reconstruction, strict=True)
    error = sum(float((a.to(b.device).double() - b.double()).square().sum()) for a, b in pairs)
    return 1 - error / variation if variation else math.nan
