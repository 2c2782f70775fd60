"""Options, data and averages for every figure of the information report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.arguments import whole
from pyro_mivae.figures import LOWER, UPPER, key
from pyro_mivae.options import check_fields, made_of, option
from pyro_mivae.posterior.layout import ProbedPair

OWN_ANNEALED = "log p(x) of the model's own data, annealed"  # a step of the progress
OPEN = 0.5  # nats between bounds of an information from which they count as open
DRAWS = whole(least=1, most=10**7)  # limit of the run time

Figure = tuple[float, float]
"""A mean and its standard error."""
Figures = Mapping[str, Figure | float]
UNDEFINED: Figure = (math.nan, math.nan)


@dataclass(frozen=True)
class InformationOptions:
    """Options of `information`, also of `evaluate` and the command line.

    ``pyro-mivae evaluate --help`` prints the help of each field.
    """

    num_samples: int | None = option(
        None,
        check=DRAWS,
        help=(
            "draws of each image's code, for distortion and KL; by default 1 to 10, for 5,000 "
            "codes in all, and at least 2 if a site depends on a drawn one or has no known mean"
        ),
    )
    iwae_samples: int = option(64, check=DRAWS, help="importance samples of each image")
    iwae_items: int = option(
        1000, check=whole(least=1), help="number of images with importance samples"
    )
    subset: int = option(
        2000,
        check=whole(least=1),
        help=(
            "images for single dimensions and total correlation (fewer for many dimensions), "
            "for sites whose density is a mixture, and for sites that depend on drawn ones; at "
            "most 300 images serve for the information in a flow"
        ),
    )
    generative_items: int = option(
        500, check=whole(least=0, most=10**7), help="images to draw from the model; 0 for none"
    )
    generative_samples: int = option(
        200,
        check=DRAWS,
        help=(
            "importance samples of each of these: half of them for all joint values of the "
            "categories, at least 4 each, and the rest for the most probable one"
        ),
    )
    ais_items: int = option(
        0,
        check=whole(least=0),
        help="number of images to anneal, and of drawn images",
        flag="--ais",
    )
    ais_temperatures: int = option(200, check=DRAWS, help="temperatures of each annealing")
    refine_items: int = option(
        0,
        check=whole(least=0),
        help="number of images whose posterior is refined, for the amortisation gap",
        flag="--refine",
    )
    batch_size: int = option(1024, check=whole(least=1), help="decoded codes at once")

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> InformationOptions:
        """Makes the options from keywords; an unknown one is an `OptionError`."""
        return made_of(cls, options, "information")


@dataclass(frozen=True)
class Context:
    """A model/guide pair, its data, and the number of data for each figure.

    A family of figures is a function of a `Context` and its `Draws` that returns `Figures`: pairs
    of a mean and its standard error, or plain numbers.
    """

    pair: ProbedPair
    x: Tensor  # the data, (n, ...), on any device
    options: InformationOptions
    seed: int
    protocol: dict[str, Any]  # to which each family adds its part
    seconds: dict[str, float]  # of each family on the clock

    @cached_property
    def _order(self) -> Tensor:
        return torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.seed))

    @property
    def second_half(self) -> Tensor:
        """True for data in the second of two random halves; it halves each `choose` too."""
        second = torch.zeros(len(self.x), dtype=torch.bool)
        second[self._order[1::2]] = True
        return second.to(self.pair.device)

    def choose(self, size: int) -> Tensor:
        """Chooses random data in a fixed order: a larger choice contains a smaller one."""
        return self._order[:size].sort().values

    def take(self, items: Tensor) -> Tensor:
        """Returns some of the data, on the device of the programs."""
        return self.x[items.to(self.x.device)].to(self.pair.device)


def mean_of(rows: Tensor) -> Figure:
    """Returns the mean of independent rows and its standard error, NaN for a single row."""
    error = rows.std() / math.sqrt(len(rows)) if len(rows) > 1 else torch.tensor(torch.nan)
    return float(rows.mean()), float(error)


def means_of(rows: Tensor) -> list[Figure]:
    """Returns `mean_of` of each column of rows of shape ``(n, columns)``."""
    errors = rows.std(0) / math.sqrt(len(rows)) if len(rows) > 1 else rows[0] * torch.nan
    return list(zip(rows.mean(0).tolist(), errors.tolist()))


def in_order(lower: Figure, upper: Figure, ceilings: list[Figure]) -> tuple[Figure, Figure, float]:
    """Orders bounds of an information, at least 0; also returns 1.0 if they are far apart."""
    defined = [figure for figure in (*ceilings, upper) if not math.isnan(figure[0])]
    if defined:
        upper = min(defined)
    gap = upper[0] - lower[0]
    saturated = math.nan if math.isnan(gap) else float(gap > OPEN)
    upper = (max(upper[0], 0.0), upper[1])  # the order of the arguments keeps NaN
    return (min(max(lower[0], 0.0), upper[0]), lower[1]), upper, saturated


def ends(
    name: str, lower: Figure, upper: Figure, site: str = "", index: int | None = None
) -> dict[str, Figure]:
    """Names both bounds of a figure."""
    return {
        key(name, site, LOWER, index=index): lower,
        key(name, site, UPPER, index=index): upper,
    }
