"""What importance sampling of generated data draws from, and what it weighs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from pyro_mivae.diagnostics.generated import Values
from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.traces import Program, trace_program


@dataclass(frozen=True)
class Terms:
    """Which sites are weighed.

    Attributes:
        layout: Layout of the pair.
        fixed: A drawn site that keeps its value, if any.
        observed: The site of the data; None to leave their likelihood out.
    """

    layout: Layout
    fixed: str | None
    observed: str | None

    @property
    def free(self) -> list[str]:
        """The sites that are integrated out by drawing them."""
        return [name for name in self.layout.drawn if name != self.fixed]

    def weigh(
        self, model: Program, x: Tensor, values: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Values]:
        """Runs the model with some values, the other sites drawn from the prior."""
        trace = trace_program(poutine.condition(model, data=dict(values)), (x,), {})
        prior = log_density(trace, self.free, x)
        others = [name for name in self.layout.latent if name not in self.free]
        if self.observed is not None:
            others.append(self.observed)
        drawn = {name: trace.nodes[name]["value"] for name in self.free}
        return log_density(trace, others, x) + prior, prior, drawn


class Proposal:
    """The guide's distribution of the free sites, given the others' values, for some data.

    Where no site depends on a drawn one, the guide runs once.
    """

    def __init__(
        self,
        guide: Program,
        x: Tensor,
        kept: Mapping[str, Tensor],
        free: list[str],
        layout: Layout,
    ) -> None:
        self._guide, self._x, self._kept, self._free = guide, x, kept, free
        self._fns = None
        if layout.free.issuperset(free):
            trace = trace_program(poutine.condition(guide, data=dict(kept)), (x,), {})
            self._fns = {name: trace.nodes[name]["fn"] for name in free}

    def draw(self, count: int) -> Values:
        """Draws the free sites, ``(count * n, *event)`` each, the data running fastest."""
        if self._fns is not None:
            drawn = {name: fn(torch.Size((count,))) for name, fn in self._fns.items()}
            return {name: value.flatten(0, 1) for name, value in drawn.items()}
        trace = self._run(count, {})
        return {name: trace.nodes[name]["value"] for name in self._free}

    def density(self, values: Values) -> Tensor:
        """Scores values as `draw` returns them, shape ``(count * n,)``."""
        n = len(self._x)
        count = len(values[self._free[0]]) // n
        if self._fns is None:
            return log_density(self._run(count, values), self._free, repeat(self._x, count))
        total: Any = 0.0
        for name, fn in self._fns.items():
            total = total + fn.log_prob(values[name].unflatten(0, (count, n))).double()
        return torch.as_tensor(total).flatten()

    def _run(self, count: int, values: Values) -> Any:
        kept = {name: repeat(value, count) for name, value in self._kept.items()}
        program = poutine.condition(self._guide, data={**kept, **values})
        return trace_program(program, (repeat(self._x, count),), {})


class Stratum:
    """Log-sums of weights over draws of one kind, shape ``(configurations, n)``.

    Attributes:
        everything: Over all draws.
        rest: Over all but the first.
    """

    def __init__(self, like: Tensor) -> None:
        self.everything = torch.full(like.shape, -torch.inf, dtype=torch.float64).to(like.device)
        self.rest = self.everything.clone()
        self._empty = True

    def add(self, weights: Tensor) -> None:
        """Takes in weights, shape ``(draws, configurations, n)``."""
        self.everything = torch.logaddexp(self.everything, weights.logsumexp(0))
        others = weights[1:] if self._empty else weights
        if len(others):
            self.rest = torch.logaddexp(self.rest, others.logsumexp(0))
        self._empty = False


def configurations(guide: Program, x: Tensor, layout: Layout) -> Values:
    """Returns the value of each enumerable site in every configuration."""
    program = EnumMessenger(first_available_dim=-2)(config_enumerate(guide))
    trace = trace_program(program, (x,), {})
    return {
        name: layout.flatten(
            trace.nodes[name]["value"], 1, tuple(trace.nodes[name]["fn"].event_shape)
        )[:, 0]
        for name in layout.enumerated
    }


def log_density(trace: Any, names: Iterable[str], x: Tensor) -> Tensor:
    """Adds up the log-densities of some sites of a trace of data x, float64, ``(n,)``."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


def repeat(value: Tensor, count: int) -> Tensor:
    """Repeats the rows of a tensor, the rows running fastest."""
    return value.repeat(count, *[1] * (value.dim() - 1))
