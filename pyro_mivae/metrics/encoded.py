"""A variant, data that it was not trained on, and their codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_mivae.traces import trace_program
from pyro_mivae.variants import Variant

ENCODE_BATCH = 1024

Codes = dict[str, Tensor]


class EncodedData:
    """A variant, data, and their codes, which alone are kept; make it under `preserved_state`.

    Attributes:
        codes: What `Variant.encode` returns of the data, by site, shape ``(n, size)``.
        category: The site of the category and the number of categories.
        groups: All sites under an empty name, and where there are several each by its own.
    """

    def __init__(self, vae: Variant, x: Tensor, seed: int) -> None:
        self.vae, self.x, self.seed = vae, x, seed
        self.category = str(vae.category), int(vae.num_categories or 0)
        self.codes = self.encode(x)
        sites = list(self.codes)
        self.groups = {"": sites} | {site: [site] for site in sites if len(sites) > 1}

    @property
    def found(self) -> Tensor:
        """The most probable category of each datum, shape ``(n,)``."""
        return self.codes[self.category[0]].argmax(-1)

    def encode(self, x: Tensor, rows: Tensor | None = None) -> Codes:
        """Returns posterior means, of a category its probabilities."""
        return _join([self.vae.encode(part) for part in batches(x, rows)])

    def draw(self, x: Tensor, rows: Tensor | None = None) -> Codes:
        """Returns one draw of the guide for each datum; a category is one-hot."""
        parts = []
        for part in batches(x, rows):
            nodes = trace_program(self.vae.guide, (part.to(self.vae.device),), {}).nodes
            values = {site: nodes[site]["value"] for site in self.codes}
            site, count = self.category
            if site in values and values[site].dim() == 1:
                values[site] = one_hot(values[site].long(), count).to(self.vae.dtype)
            parts.append(values)
        return _join(parts)


def batches(x: Tensor, rows: Tensor | None = None) -> Iterator[Tensor]:
    """Splits data into batches, without a copy of all of them."""
    if rows is None:
        yield from x.split(ENCODE_BATCH)
    else:
        yield from (x[part] for part in rows.to(x.device).split(ENCODE_BATCH))


def _join(parts: Sequence[Codes]) -> Codes:
    return {site: torch.cat([part[site] for part in parts]).flatten(1) for site in parts[0]}
