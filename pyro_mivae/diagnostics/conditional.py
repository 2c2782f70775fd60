"""Figures of a conditional model p(x | u): means over its conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.diagnostics.context import OPEN, InformationOptions
from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.figures import ERROR, interval
from pyro_mivae.inputs import as_condition, as_tensor
from pyro_mivae.models import GenerativeModel, data_for, dtype_of
from pyro_mivae.posterior.preserved_state import device_of
from pyro_mivae.traces import Program

MOST_CONDITIONS = 200
UNGROUPED = (
    "not defined: it compares data of the same condition, and takes two or more of each of at "
    f"most {MOST_CONDITIONS} conditions"
)


def with_condition(model: Program, guide: Program, x: Any, given: Any) -> tuple[Tensor, Tensor]:
    """Returns data and their condition as a pair takes them, on the device of its parameters."""
    x = data_for(model, guide, x)
    if x.dim() < 1 or not len(x):
        raise DataError(f"x has shape {tuple(x.shape)}; allowed is (n, ...), n of 1 or more")
    if isinstance(model, GenerativeModel):
        own = as_condition(given, model.given_shape, len(x))
        u = torch.zeros(0) if own is None else own.to(x.dtype)
    else:
        u = as_tensor(given, "given")
        u = u.to(dtype_of(model, guide) or u.dtype) if u.is_floating_point() else u
    if u.shape[:1] != x.shape[:1]:
        raise ShapeError(
            f"given has shape {tuple(u.shape)} for {len(x)} data; give one condition for each"
        )
    device = device_of(x, model, guide)
    return x.to(device), u.to(device)


def groups_of(u: Tensor) -> list[Tensor] | None:
    """Returns the rows of each condition; None unless each holds two data or more."""
    own = u.reshape(len(u), -1)
    values, index, counts = torch.unique(own, dim=0, return_inverse=True, return_counts=True)
    if len(values) > MOST_CONDITIONS or int(counts.min()) < 2:
        return None
    return [(index == number).nonzero()[:, 0] for number in range(len(values))]


def at(program: Program, condition: Tensor) -> Program:
    """Returns a program of the data alone, for data of one condition."""
    return _reading(program, lambda x: (x, condition.expand(len(x), *condition.shape)))


def _reading(program: Program, split: Callable[[Tensor], Iterable[Tensor]]) -> Program:
    """Returns a program of one tensor, split into arguments; a `RefinedGuide` stays one."""

    def run(rows: Tensor) -> Any:
        return program(*split(rows))

    own: Any = program
    if hasattr(own, "local_parameters"):
        vars(run)["local_parameters"] = lambda rows: own.local_parameters(*split(rows))
        vars(run)["sample_from"] = own.sample_from
    return run


class SideBySide:
    """Data and their condition in the rows of one tensor, for figures that read single data.

    Double precision holds the numbers of data and conditions exactly.
    """

    def __init__(self, x: Tensor, u: Tensor) -> None:
        parts = [part.reshape(len(part), -1).double() for part in (x, u)]
        self.rows, self._widths = torch.cat(parts, 1), [part.shape[1] for part in parts]
        self._kinds = [(part.shape[1:], part.dtype) for part in (x, u)]

    def bind(self, program: Program) -> Program:
        """Returns the program as one of these rows."""
        return _reading(program, self._split)

    def _split(self, rows: Tensor) -> Iterable[Tensor]:
        parts = zip(rows.split(self._widths, 1), self._kinds, strict=True)
        return (part.reshape(-1, *shape).to(dtype) for part, (shape, dtype) in parts)


def shared_out(how: InformationOptions, share: float) -> InformationOptions:
    """Returns options for one condition, with its share of each number of data."""
    names = ("iwae_items", "generative_items", "ais_items", "refine_items")
    return replace(how, **{name: math.ceil(share * getattr(how, name)) for name in names})


def pooled(reports: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Averages figures over conditions, weighted by their data; errors are for fixed shares."""
    weights = [count / sum(counts) for count in counts]
    figures: dict[str, float] = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        each = [w * report.get(name, math.nan) for w, report in zip(weights, reports, strict=True)]
        figures[name] = math.hypot(*each) if name.endswith(ERROR) else math.fsum(each)
    low, high = interval(figures, "mi")
    open_ = math.nan if math.isnan(high - low) else float(high - low > OPEN)
    return figures | {"saturated": open_}


def protocol_of(protocols: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> dict[str, Any]:
    """Joins protocols: numbers of data are added, everything else is that of the first."""
    joined: dict[str, Any] = {}
    for protocol in protocols:
        for name, value in protocol.items():
            added = name.endswith("items") and name in joined
            joined[name] = joined[name] + value if added else joined.get(name, value)
    least, most = min(counts), max(counts)
    joined["given"] = (
        f"means over {len(counts)} conditions of {least} to {most} data, weighted by their data; "
        "standard errors are for these shares"
    )
    return joined
