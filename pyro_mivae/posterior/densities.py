"""Densities of codes under the posteriors that a guide gives to data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.distributions import Normal

from pyro_mivae.posterior.layout import SiteLayout, factors, leading, support_of
from pyro_mivae.traces import Program, has_mean, trace_program

FARTHEST = 3e5  # deviations from the centre up to which expanded squares are exact to 1e-4

Values = Mapping[str, Tensor]


class Posterior:
    r"""Posteriors of a few data, which score any code.

    Attributes:
        log_weights: Log-probability of each configuration of the enumerated sites, float64,
            shape ``(configurations, batch)``.
        fns: The distribution of every drawn site.
    """

    def __init__(self, guide: Program, x: Tensor, layout: SiteLayout) -> None:
        with pyro.validation_enabled(False):  # a code may be outside another datum's support
            trace = enumerated_trace(guide, x)
        self.size = len(x)
        self.layout = layout
        self.log_weights = torch.zeros(
            (layout.num_configurations, len(x)), dtype=torch.float64, device=x.device
        )
        for name in layout.enumerated:
            density = log_density(trace, [name], x)
            self.log_weights = self.log_weights + layout.flatten(density, len(x))
        self.fns = {name: trace.nodes[name]["fn"] for name in layout.drawn}
        self._normals = {name: self._normal(fn) for name, fn in self.fns.items()}

    def configurations(self, name: str) -> int:
        """Number of distributions of a site per datum: 1 if it depends on no enumerated site."""
        return 1 if leading(self.fns[name]) == 1 else self.layout.num_configurations

    def log_density(self, name: str, values: Tensor, configuration: int | None = None) -> Tensor:
        """Scores values of a drawn site, ``(configurations, n, batch)``.

        Given a configuration of the enumerated sites, under that one alone: ``(n, batch)``.
        """
        normals, fn = self._normals[name], self.fns[name]
        count = self.configurations(name)
        which = ... if configuration is None else min(configuration, count - 1)
        if normals is not None and normals.are_near(values):
            return normals.features(values) @ normals.weights[which]
        sizes = self.layout.sizes if count > 1 else ()
        pairs = values.reshape(len(values), *[1] * (len(sizes) + 1), *fn.event_shape)
        # Written out, as conditional flows do not broadcast their context.
        pairs = pairs.expand(len(values), *sizes, self.size, *fn.event_shape)
        density = log_density_anywhere(fn, pairs).double()
        expanded = density.expand((len(values), *sizes, self.size))
        return expanded.reshape(len(values), count, self.size).transpose(0, 1)[which]

    def mixture(self, names: Iterable[str], values: Values) -> Tensor:
        """Scores values of drawn sites with the enumerated sites summed out."""
        total = torch.zeros((), dtype=torch.float64)
        for name in names:
            total = total + self.log_density(name, values[name])
        if len(total) == 1:
            return total[0]
        return (total + self.log_weights[:, None]).logsumexp(0)

    def _normal(self, fn: Any) -> _Normals | None:
        base = factors(fn)
        if not isinstance(base, Normal):
            return None
        dims = math.prod(fn.event_shape)
        flat = (p.reshape(*fn.batch_shape, dims) for p in (base.loc, base.scale))
        if leading(fn) == 1:
            return _Normals(*(p.reshape(1, self.size, dims) for p in flat))
        return _Normals(*(self.layout.flatten(p, self.size, (dims,)) for p in flat))


class _Normals:
    """Log-densities of independent normals as products of features of a value and weights.

    Values are centred first, as squares of large numbers would leave no digits for their
    differences. The weights are the coefficients of the square, the value and 1, float64, shape
    ``(configurations, 2 dims + 1, batch)``.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        loc, scale = loc.double(), scale.double()
        self._unit, self._centre = scale.flatten(0, 1).amin(0), loc.flatten(0, 1).mean(0)
        loc, scale = (loc - self._centre) / self._unit, scale / self._unit
        constant = -0.5 * (loc / scale).square() - (scale * self._unit).log()
        constant = (constant - 0.5 * math.log(2 * math.pi)).sum(-1, keepdim=True)
        coefficients = [-0.5 / scale.square(), loc / scale.square(), constant]
        self.weights = torch.cat(coefficients, -1).transpose(1, 2)

    def are_near(self, values: Tensor) -> bool:
        """True if the products keep enough digits."""
        return bool(self._standardised(values).abs().max() < FARTHEST)

    def features(self, values: Tensor) -> Tensor:
        """Returns the square, the value and 1, shape ``(n, 2 dims + 1)``."""
        flat = self._standardised(values)
        return torch.cat([flat.square(), flat, torch.ones_like(flat[:, :1])], -1)

    def _standardised(self, values: Tensor) -> Tensor:
        return (values.double().reshape(len(values), -1) - self._centre) / self._unit


def enumerated_trace(program: Program, x: Tensor) -> Any:
    """Traces a program with its enumerable sites laid out left of the data plate."""
    return trace_program(
        EnumMessenger(first_available_dim=-2)(config_enumerate(program)), (x,), {}
    )


def conditioned_trace(program: Program, x: Tensor, values: Values) -> Any:
    """Traces a program with some of its sites fixed."""
    return trace_program(poutine.condition(program, data=dict(values)), (x,), {})


def log_density(trace: Any, names: Iterable[str], x: Tensor) -> Tensor:
    """Adds up the log-densities of some sites of a trace of data x, float64, ``(..., n)``."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


def log_density_anywhere(fn: Any, values: Tensor) -> Tensor:
    """Scores values that may be outside the support, where the log-density is minus infinity."""
    values = values.to(fn.mean.dtype) if has_mean(fn) else values
    density: Tensor = fn.log_prob(values)
    support = support_of(fn)
    return density if support is None else density.masked_fill(~support.check(values), -torch.inf)


def configurations(guide: Program, x: Tensor, layout: SiteLayout) -> dict[str, Tensor]:
    """Returns the value of each enumerable site in every configuration."""
    nodes = enumerated_trace(guide, x[:1]).nodes
    return {
        name: layout.flatten(nodes[name]["value"], 1, tuple(nodes[name]["fn"].event_shape))[:, 0]
        for name in layout.enumerated
    }


def agrees(fast: Callable[[], Iterable[Tensor]], plain: Callable[[], Iterable[Tensor]]) -> bool:
    """True if a fast way to score gives the numbers of the plain one, without an error."""
    try:
        pairs = zip(plain(), fast(), strict=True)
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
    except (RuntimeError, ValueError, IndexError):
        return False


def repeat(value: Tensor, count: int) -> Tensor:
    """Repeats the rows of a tensor, the rows running fastest."""
    return value.repeat(count, *[1] * (value.dim() - 1))
