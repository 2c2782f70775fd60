"""What every figure of the information report is measured from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.traces import Program

Figure = tuple[float, float]
Figures = Mapping[str, Figure | float]
UNDEFINED: Figure = (math.nan, math.nan)


@dataclass(frozen=True)
class Context:
    """A model/guide pair, its data, and how much of them each figure may take.

    A family of figures is a function of it, and of the `Draws` if it needs them, that returns
    `Figures`: pairs of a mean and its standard error, or plain numbers that have none.

    Attributes:
        model: The model.
        guide: The guide.
        x: The data, shape ``(n, ...)``; on any device.
        layout: Layout of the pair.
        device: Where the programs run.
        num_samples: Draws of each datum's code.
        iwae_samples: Importance samples per datum.
        iwae_items: How many data get importance samples.
        subset: How many data serve what costs more.
        generative_items: How many data are drawn from the model; 0 for none.
        generative_samples: Importance samples for each of these.
        ais_items: How many data are annealed; 0 for none.
        ais_temperatures: Temperatures of each annealing.
        codes_at_once: Decoded codes at once, over all configurations of the enumerated sites.
        seed: Of every choice at random.
        protocol: How the figures were measured; each family adds what it has to say.
        seconds: How long each family took on the clock.
    """

    model: Program
    guide: Program
    x: Tensor
    layout: Layout
    device: torch.device
    num_samples: int
    iwae_samples: int
    iwae_items: int
    subset: int
    generative_items: int
    generative_samples: int
    ais_items: int
    ais_temperatures: int
    codes_at_once: int
    seed: int
    protocol: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Number of data per run of the pair with its enumerated sites laid out."""
        return max(1, self.codes_at_once // self.layout.num_configurations)

    @cached_property
    def _order(self) -> Tensor:
        return torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.seed))

    @property
    def second_half(self) -> Tensor:
        """Which data are in the second of two random halves, shape ``(n,)``.

        So is half of what `choose` gives.
        """
        second = torch.zeros(len(self.x), dtype=torch.bool)
        second[self._order[1::2]] = True
        return second.to(self.device)

    def choose(self, size: int) -> Tensor:
        """Chooses data at random: the same, and the same ones first, however often it is asked."""
        return self._order[:size].sort().values

    def take(self, items: Tensor) -> Tensor:
        """Returns some of the data, on the device of the programs."""
        return self.x[items.to(self.x.device)].to(self.device)


def mean_of(rows: Tensor) -> Figure:
    """Returns the mean of independent rows and its standard error, NaN for a single row."""
    error = rows.std() / math.sqrt(len(rows)) if len(rows) > 1 else torch.tensor(torch.nan)
    return float(rows.mean()), float(error)


def means_of(rows: Tensor) -> list[Figure]:
    """Returns `mean_of` of each column of rows of shape ``(n, columns)``."""
    errors = rows.std(0) / math.sqrt(len(rows)) if len(rows) > 1 else rows[0] * torch.nan
    return list(zip(rows.mean(0).tolist(), errors.tolist()))
