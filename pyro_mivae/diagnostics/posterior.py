"""The posterior densities that a guide gives to codes, whosever codes they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.distributions import Independent, Normal

from pyro_mivae.diagnostics.charts import support_of
from pyro_mivae.diagnostics.layout import Layout, leading
from pyro_mivae.traces import Program, has_mean, trace_program

BLOCK = 2**20  # numbers held at once; more would be slower on a CPU, whose cache they leave
FARTHEST = 3e5  # deviations from the centre up to which expanded squares are exact to 1e-4


class Posterior:
    r"""What the guide says about a few data: the density of any code under each posterior.

    Attributes:
        log_weights: Log-probability of each configuration of the enumerated sites, float64,
            shape ``(configurations, batch)``.
        fns: The distribution of every drawn site.
    """

    def __init__(self, guide: Program, x: Tensor, layout: Layout) -> None:
        program = EnumMessenger(first_available_dim=-2)(config_enumerate(guide))
        with pyro.validation_enabled(False):  # a code may be outside another datum's support
            trace = trace_program(program, (x,), {})
        self.size = len(x)
        self.layout = layout
        self.log_weights = torch.zeros(
            (layout.num_configurations, len(x)), dtype=torch.float64, device=x.device
        )
        for name in layout.enumerated:
            site = trace.nodes[name]
            density = site["fn"].log_prob(site["value"]).double()
            self.log_weights = self.log_weights + layout.flatten(density, len(x))
        self.fns = {name: trace.nodes[name]["fn"] for name in layout.drawn}
        self._normals = {name: _normals(fn, self) for name, fn in self.fns.items()}

    def configurations(self, name: str) -> int:
        """How many distributions a site has per datum: 1 if it depends on no enumerated site."""
        return 1 if leading(self.fns[name]) == 1 else self.layout.num_configurations

    def log_density(self, name: str, values: Tensor, configuration: int) -> Tensor:
        """Scores values of a drawn site, given a configuration of the enumerated ones."""
        normals = self._normals[name]
        index = configuration if self.configurations(name) > 1 else 0
        if normals is None or not normals.are_near(values):
            return self.log_densities(name, values)[index]
        return normals.features(values) @ normals.weights[index]

    def log_densities(self, name: str, values: Tensor) -> Tensor:
        """Scores values of a drawn site under every configuration."""
        normals = self._normals[name]
        if normals is not None and normals.are_near(values):
            return normals.features(values) @ normals.weights
        fn = self.fns[name]
        count = self.configurations(name)
        sizes = self.layout.sizes if count > 1 else ()
        pairs = values.reshape(len(values), *[1] * (len(sizes) + 1), *fn.event_shape)
        # Written out, as conditional flows do not broadcast their context.
        pairs = pairs.expand(len(values), *sizes, self.size, *fn.event_shape)
        density = log_density_anywhere(fn, pairs).double()
        expanded = density.expand((len(values), *sizes, self.size))
        return expanded.reshape(len(values), count, self.size).transpose(0, 1)

    def mixture(self, names: tuple[str, ...], values: Mapping[str, Tensor]) -> Tensor:
        """Scores values of drawn sites with the enumerated sites summed out."""
        total = torch.zeros((), dtype=torch.float64)
        for name in names:
            total = total + self.log_densities(name, values[name])
        if len(total) == 1:
            return total[0]
        return (total + self.log_weights[:, None]).logsumexp(0)


def conditioned_log_density(
    guide: Program, x: Tensor, values: Mapping[str, Tensor], names: tuple[str, ...]
) -> Tensor:
    """Scores whole codes by running the guide with its sites fixed, each code with its datum."""
    trace = trace_program(poutine.condition(guide, data=dict(values)), (x,), {})
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


@dataclass(frozen=True)
class _Normals:
    """Log-densities of independent normals as products of features of a value and weights.

    Attributes:
        centre: What values are taken from first, shape ``(dims,)``, as squares of large numbers
            would leave no digits for their differences.
        scale: What they are divided by, shape ``(dims,)``: the least deviation.
        weights: Coefficients of the square, the value and 1, float64, shape
            ``(configurations, 2 dims + 1, batch)``.
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor

    def are_near(self, values: Tensor) -> bool:
        """Tells whether the products keep enough digits."""
        return bool(self._standardised(values).abs().max() < FARTHEST)

    def features(self, values: Tensor) -> Tensor:
        """Returns the square, the value and 1, shape ``(n, 2 dims + 1)``."""
        flat = self._standardised(values)
        return torch.cat([flat.square(), flat, torch.ones_like(flat[:, :1])], -1)

    def _standardised(self, values: Tensor) -> Tensor:
        return (values.double().reshape(len(values), -1) - self.centre) / self.scale


def _normals(fn: Any, posterior: Posterior) -> _Normals | None:
    """Features of a site's density if it is that of independent normals, else None."""
    parameters = _normal_parameters(fn, posterior)
    if parameters is None:
        return None
    loc, scale = (p.double() for p in parameters)
    unit = scale.flatten(0, 1).amin(0)
    centre = loc.flatten(0, 1).mean(0)
    loc, scale = (loc - centre) / unit, scale / unit
    constant = -0.5 * (loc / scale).square() - (scale * unit).log() - 0.5 * math.log(2 * math.pi)
    coefficients = [-0.5 / scale.square(), loc / scale.square(), constant.sum(-1, keepdim=True)]
    return _Normals(centre, unit, torch.cat(coefficients, -1).transpose(1, 2))


def _normal_parameters(fn: Any, posterior: Posterior) -> tuple[Tensor, Tensor] | None:
    """Mean and scale of independent normals, shape ``(configurations, batch, dims)``, or None."""
    base = fn
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal):
        return None
    dims = math.prod(fn.event_shape)
    flat = [p.reshape(*fn.batch_shape, dims) for p in (base.loc, base.scale)]
    if leading(fn) == 1:
        loc, scale = (p.reshape(1, posterior.size, dims) for p in flat)
    else:
        loc, scale = (posterior.layout.flatten(p, posterior.size, (dims,)) for p in flat)
    return loc, scale


def log_density_anywhere(fn: Any, values: Tensor) -> Tensor:
    """Scores values that may be outside the support, where the log-density is minus infinity."""
    values = values.to(fn.mean.dtype) if has_mean(fn) else values
    density: Tensor = fn.log_prob(values)
    support = support_of(fn)
    return density if support is None else density.masked_fill(~support.check(values), -torch.inf)
