r"""The aggregate posterior :math:`q(z) = \frac1N \sum_j q(z \mid x_j)` at the data's own codes.

Sums over all pairs of a code and a datum, in blocks, in memory that does not grow with the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.posterior.densities import (
    Codes,
    Posterior,
    agrees,
    conditioned_trace,
    log_density,
    repeat,
    rows_of,
)
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.progress import telling
from pyro_mivae.traces import Program

BLOCK = 2**20  # numbers held at once; more would be slower on a CPU, whose cache they leave
REPEATED_ITEMS = 300  # a guide that cannot broadcast runs once per pair
TRIED = 8  # data, and as many codes, on which broadcasting is tried


class AggregatePosterior:
    r"""Each code's log-density under its own datum and, on average, under the data.

    Attributes:
        own: :math:`\log q(z_i \mid x_i)`, float64, shape ``(rows, *dims)``.
    """

    def __init__(
        self,
        rows: Tensor,
        count: int,
        dims: tuple[int, ...] = (),
        second: Tensor | None = None,
    ) -> None:
        self.rows, self.count, self.second = rows, count, second
        shape = (len(rows), *dims)
        self.own = torch.full(shape, -torch.inf, dtype=torch.float64, device=rows.device)
        self._sums = self.own.repeat(1 if second is None else 2, *[1] * len(shape))

    def add(self, part: slice, start: int, log_densities: Tensor) -> None:
        """Adds the densities of some codes under some data."""
        column = self.rows[part] - start
        mine = ((column >= 0) & (column < log_densities.shape[1])).nonzero()[:, 0]
        self.own[part][mine] = log_densities[mine, column[mine]]
        log_densities[mine, column[mine]] = -torch.inf
        halves: list[Any] = [slice(None)]
        if self.second is not None:
            second = self.second[start : start + log_densities.shape[1]]
            halves = [~second, second]
        for half, columns in enumerate(halves):
            self.absorb(part, log_densities[:, columns].logsumexp(1), half)

    def absorb(self, part: slice, others: Tensor, half: int = 0) -> None:
        """Adds the sum of some codes' densities under data other than their own."""
        self._sums[half, part] = torch.logaddexp(self._sums[half, part], others)

    @property
    def others(self) -> Tensor:
        """Log of the mean density under the other data: errs low in expectation."""
        if self.count < 2:
            return torch.full_like(self.own, torch.nan)
        return self._sums.logsumexp(0) - math.log(self.count - 1)

    def others_by_half(self) -> tuple[Tensor, Tensor]:
        """Returns `others` of the code's own half of the data, and of the other half."""
        second = torch.as_tensor(self.second)
        sizes = torch.stack([(~second).sum(), second.sum()])
        own = second.long()
        columns = torch.arange(self.count, device=own.device)
        same = self._sums[own, columns] - (sizes[own] - 1).log()
        return same, self._sums[1 - own, columns] - sizes[1 - own].log()

    @property
    def everyone(self) -> Tensor:
        """Log of the mean density under all data, its own too: errs high in expectation."""
        return torch.logaddexp(self._sums.logsumexp(0), self.own) - math.log(self.count)

    @property
    def lower(self) -> Tensor:
        """Rows whose mean bounds the information from below, see `infonce_bound`."""
        return self.own - self.everyone

    @property
    def upper(self) -> Tensor:
        """Rows whose mean bounds the information from above, see `leave_one_out_bound`."""
        return self.own - self.others


def aggregate(
    pair: ProbedPair,
    x: Tensor,
    codes: Codes,
    targets: Iterable[tuple[tuple[str, ...] | None, Tensor]],
    second: Tensor | None = None,
) -> list[AggregatePosterior]:
    """Aggregates posteriors at some codes for each target, in one pass over the data.

    A target is a list of sites (None for the whole code) and the rows of its codes.
    """
    wanted = [
        (names, AggregatePosterior(rows, len(x), second=None if place else second))
        for place, (names, rows) in enumerate(targets)
    ]
    for start, posterior in posteriors(pair, x):
        columns = slice(start, start + posterior.size)
        for names, result in wanted:
            sites = pair.layout.drawn if names is None else names
            widths = (posterior.numbers(site, in_one=names is None) for site in sites)
            depth = max(widths, default=1)
            for part in blocks(len(result.rows), depth * posterior.size):
                some = rows_of(codes, result.rows[part])
                if names is not None:
                    density = posterior.mixture(names, some.values)
                else:
                    density = _joint(posterior, some)
                    _separate(density, some, rows_of(codes, columns))
                result.add(part, start, density)
    return [result for _, result in wanted]


def aggregate_conditioned(
    pair: ProbedPair, x: Tensor, codes: Codes, second: Tensor | None = None
) -> AggregatePosterior:
    """Aggregates posteriors at whole codes by running the guide conditioned on each code.

    It is for guides whose sites depend on drawn ones. Codes are broadcast against data if the
    guide allows it, as checked on a few pairs. Otherwise every pair is a separate run, and only
    the first 300 data are used.
    """
    guide, names = pair.guide, pair.layout.enumerated + pair.layout.drawn
    rows = torch.arange(len(x), device=x.device)
    few = rows[:: max(1, len(rows) // TRIED)]
    tried = (guide, x[few], rows_of(codes, few), names)
    broadcasts = agrees(lambda: [_score_broadcast(*tried)], lambda: [_score_repeated(*tried)])
    if not broadcasts:
        rows = rows[:REPEATED_ITEMS]
        x, codes = x[rows], rows_of(codes, rows)
    result = AggregatePosterior(rows, len(rows), second=None if second is None else second[rows])
    score = _score_broadcast if broadcasts else _score_repeated
    columns = min(len(rows), 256)
    for start in range(0, len(rows), columns):
        data = slice(start, start + columns)
        for part in blocks(len(rows), 16 * columns):
            some = rows_of(codes, part)
            density = score(guide, x[data], some, names)
            _separate(density, some, rows_of(codes, data))
            result.add(part, start, density)
    return result


def posteriors(pair: ProbedPair, x: Tensor) -> Iterator[tuple[int, Posterior]]:
    """Yields the index of a batch's first datum and the batch's posteriors."""
    size = pair.data_at_once
    for start in telling("information", range(0, len(x), size)):
        yield start, Posterior(pair.guide, x[start : start + size].to(pair.device), pair.layout)


def blocks(count: int, width: int) -> Iterator[slice]:
    """Yields slices of rows; each slice holds at most a block of numbers."""
    step = max(1, BLOCK // width)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _joint(posterior: Posterior, codes: Codes) -> Tensor:
    """Scores whole codes, shape ``(n, batch)``."""
    configuration = codes.configuration
    density = posterior.log_weights.new_empty(len(configuration), posterior.size)
    for k in configuration.unique().tolist():  # the guide is run once for all of them
        rows = (configuration == k).nonzero()[:, 0]
        total = posterior.log_weights[k].expand(len(rows), -1)
        for name in posterior.layout.drawn:
            total = total + posterior.log_density(name, codes.values[name][rows], k)
        density[rows] = total
    return density


def _separate(density: Tensor, codes: Codes, data: Codes) -> None:
    """Sets the density of codes to 0 under data with different deterministic sites."""
    if codes.group is not None and data.group is not None:
        density.masked_fill_(codes.group[:, None] != data.group[None], -torch.inf)


def _score_broadcast(guide: Program, x: Tensor, codes: Codes, names: tuple[str, ...]) -> Tensor:
    values = {name: value.unsqueeze(1) for name, value in codes.values.items()}
    density = log_density(conditioned_trace(guide, x, values), names, x)
    return density.expand(len(codes.configuration), len(x)).clone()


def _score_repeated(guide: Program, x: Tensor, codes: Codes, names: tuple[str, ...]) -> Tensor:
    n, m = len(codes.configuration), len(x)
    values = {name: value.repeat_interleave(m, 0) for name, value in codes.values.items()}
    x = repeat(x, n)
    return log_density(conditioned_trace(guide, x, values), names, x).reshape(n, m)
