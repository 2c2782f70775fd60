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

from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.traces import Program, TracePair, is_deterministic, trace_program

BLOCK = 2**20  # numbers held at once; more would be slower on a CPU, whose cache they leave


@dataclass(frozen=True)
class Layout:
    """How the sites of a model/guide pair hang together.

    Attributes:
        latent: Every site of the code, in the guide's order.
        enumerated: Those whose support is summed out.
        deterministic: Those that are point masses.
        drawn: Those that are drawn and have a density.
        free: Those whose distribution in the guide depends on no drawn site.
        alone: Those whose distribution depends on no other site, in guide and model alike: their
            KL divergence bounds their information from above.
        branching: Those whose distribution in the guide depends on enumerated sites.
        sizes: Sizes of the enumerated dimensions, from left to right.
    """

    latent: tuple[str, ...]
    enumerated: tuple[str, ...]
    deterministic: tuple[str, ...]
    drawn: tuple[str, ...]
    free: frozenset[str]
    alone: frozenset[str]
    branching: frozenset[str]
    sizes: tuple[int, ...]

    @property
    def num_configurations(self) -> int:
        """Number of joint values of the enumerated sites, 1 if there are none."""
        return math.prod(self.sizes)

    def is_known(self, *names: str) -> bool:
        """Tells whether the density of these sites, given the datum alone, is a finite sum."""
        summed = self.enumerated if self.branching.intersection(names) else ()
        return self.free.issuperset((*names, *summed))

    @classmethod
    def probe(cls, model: Program, guide: Program, x: Tensor) -> Layout:
        """Runs the pair twice on a few data and sees what changes.

        Args:
            model: The model.
            guide: The guide.
            x: A few data, shape ``(batch, ...)``.

        Returns:
            The layout.

        Raises:
            SiteError: If the pair is not one of per-datum sites and observed data.
            ShapeError: If a site's batch shape is not that of one plate over the data.
        """
        with pyro.validation_enabled(False):  # shapes are checked below, with a remedy
            first, second = (run_pair(model, guide, x) for _ in range(2))
        if not first.observed:
            raise SiteError("the model observes nothing; give one of its sites obs=x")
        if not first.latent:
            raise SiteError("the guide samples no site; there is no code to report on")
        if first.auxiliary:
            raise SiteError(
                f"sites {first.auxiliary} of the guide are auxiliary; the density of the code "
                "would be an integral over them: give each site of the model its own density"
            )
        dims = {
            -first.guide.nodes[name]["infer"]["_enumerate_dim"]: name for name in first.enumerated
        }
        sizes = tuple(
            first.log_density(dims[dim]).shape[-dim] for dim in sorted(dims, reverse=True)
        )
        deterministic = tuple(n for n in first.latent if is_deterministic(first.guide.nodes[n]))
        layout = cls(
            latent=tuple(first.latent),
            enumerated=tuple(first.enumerated),
            deterministic=deterministic,
            drawn=tuple(
                n for n in first.latent if n not in deterministic and n not in first.enumerated
            ),
            free=frozenset(n for n in first.latent if _unmoved(first.guide, second.guide, n)),
            alone=frozenset(
                n
                for n in first.latent
                if all(
                    _unmoved(a, b, n) and _leading(a.nodes[n]["fn"]) == 1
                    for a, b in ((first.guide, second.guide), (first.model, second.model))
                )
            ),
            branching=frozenset(
                n for n in first.latent if _leading(first.guide.nodes[n]["fn"]) > 1
            ),
            sizes=sizes,
        )
        for name in first.latent:
            _check_plate(name, first.guide.nodes[name]["fn"], len(x), sizes)
        for name in first.observed:
            _check_plate(name, first.model.nodes[name]["fn"], len(x), sizes)
        return layout

    def flatten(self, value: Tensor, batch: int, event: tuple[int, ...] = ()) -> Tensor:
        """Lays the enumerated dimensions along one.

        Args:
            value: Broadcastable to ``(*sizes, batch, *event)``.
            batch: Number of data.
            event: Shape of one value.

        Returns:
            Shape ``(configurations, batch, *event)``.
        """
        expanded = value.expand((*self.sizes, batch, *event))
        return expanded.reshape(self.num_configurations, batch, *event)


def run_pair(model: Program, guide: Program, x: Tensor) -> TracePair:
    """Runs the pair with every enumerable site of the guide laid out left of the data plate."""
    guide = config_enumerate(guide, default="parallel")
    return TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)


class Posterior:
    r"""What the guide says about a few data: the density of any code under each posterior.

    Args:
        guide: The guide.
        x: The data, shape ``(batch, ...)``.
        layout: Layout of the pair.

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
        self._normals = {name: _features(fn, self) for name, fn in self.fns.items()}

    def configurations(self, name: str) -> int:
        """How many distributions a site has per datum: 1 if it depends on no enumerated site."""
        return 1 if _leading(self.fns[name]) == 1 else self.layout.num_configurations

    def log_density(self, name: str, values: Tensor, configuration: int) -> Tensor:
        """Scores values of a drawn site, given a configuration of the enumerated ones.

        Args:
            name: A free drawn site.
            values: Shape ``(n, *event)``.
            configuration: Index of the configuration.

        Returns:
            float64, shape ``(n, batch)``.
        """
        weights = self._normals[name]
        index = configuration if self.configurations(name) > 1 else 0
        if weights is None:
            return self.log_densities(name, values)[index]
        return _square_and_self(values) @ weights[index]

    def log_densities(self, name: str, values: Tensor) -> Tensor:
        """Scores values of a drawn site under every configuration.

        Args:
            name: A free drawn site.
            values: Shape ``(n, *event)``.

        Returns:
            float64, shape ``(configurations, n, batch)``; the first dimension is 1 where the
            site depends on no enumerated site.
        """
        weights = self._normals[name]
        if weights is not None:
            return _square_and_self(values) @ weights
        fn = self.fns[name]
        count = self.configurations(name)
        sizes = self.layout.sizes if count > 1 else ()
        pairs = values.reshape(len(values), *[1] * (len(sizes) + 1), *fn.event_shape)
        density = log_density_anywhere(fn, pairs).double()
        expanded = density.expand((len(values), *sizes, self.size))
        return expanded.reshape(len(values), count, self.size).transpose(0, 1)

    def mixture(self, names: tuple[str, ...], values: Mapping[str, Tensor]) -> Tensor:
        """Scores values of drawn sites with the enumerated sites summed out.

        Args:
            names: Free drawn sites.
            values: One value of each, shape ``(n, *event)``.

        Returns:
            float64, shape ``(n, batch)``.
        """
        total = torch.zeros((), dtype=torch.float64)
        for name in names:
            total = total + self.log_densities(name, values[name])
        if len(total) == 1:
            return total[0]
        return (total + self.log_weights[:, None]).logsumexp(0)


def conditioned_log_density(
    guide: Program, x: Tensor, values: Mapping[str, Tensor], names: tuple[str, ...]
) -> Tensor:
    """Scores whole codes by running the guide with its sites fixed, each code with its datum.

    Args:
        guide: The guide.
        x: Data, shape ``(n, ...)``.
        values: A value of every site, shape ``(n, *event)``; or ``(m, 1, *event)``, for guides
            that broadcast, to score m codes under each datum.
        names: The sites to score.

    Returns:
        float64, shape ``(n,)``, or ``(m, n)``.
    """
    trace = trace_program(poutine.condition(guide, data=dict(values)), (x,), {})
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


def _features(fn: Any, posterior: Posterior) -> Tensor | None:
    """Coefficients of a normal's log-density in the square, the value and 1, or None."""
    parameters = _normal_parameters(fn, posterior)
    if parameters is None:
        return None
    loc, scale = (p.double() for p in parameters)
    constant = -0.5 * (loc / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    coefficients = [-0.5 / scale.square(), loc / scale.square(), constant.sum(-1, keepdim=True)]
    return torch.cat(coefficients, -1).transpose(1, 2)  # (configurations, 2 dims + 1, batch)


def _square_and_self(values: Tensor) -> Tensor:
    flat = values.double().reshape(len(values), -1)
    return torch.cat([flat.square(), flat, torch.ones_like(flat[:, :1])], -1)


def _normal_parameters(fn: Any, posterior: Posterior) -> tuple[Tensor, Tensor] | None:
    """Mean and scale of independent normals, shape ``(configurations, batch, dims)``, or None."""
    base = fn
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal):
        return None
    dims = math.prod(fn.event_shape)
    flat = [p.reshape(*fn.batch_shape, dims) for p in (base.loc, base.scale)]
    if _leading(fn) == 1:
        loc, scale = (p.reshape(1, posterior.size, dims) for p in flat)
    else:
        loc, scale = (posterior.layout.flatten(p, posterior.size, (dims,)) for p in flat)
    return loc, scale


def log_density_anywhere(fn: Any, values: Tensor) -> Tensor:
    """Scores values that may be outside the support, where the log-density is minus infinity.

    Args:
        fn: The distribution, made without validation.
        values: Broadcastable to its shape.

    Returns:
        Shape of the values' batch.
    """
    values = values.to(_dtype_of(fn))
    density: Tensor = fn.log_prob(values)
    try:
        inside = fn.support.check(values)
    except NotImplementedError:
        return density
    return density.masked_fill(~inside, -torch.inf)


def _dtype_of(fn: Any) -> torch.dtype:
    mean: Tensor
    try:
        mean = fn.mean
    except NotImplementedError:
        mean = fn.sample()
    return mean.dtype


def _leading(fn: Any) -> int:
    """How many distributions there are per datum."""
    return math.prod(fn.batch_shape[:-1])


def _unmoved(first: Any, second: Any, name: str) -> bool:
    """Tells whether a site's distribution was the same in two traces with other draws."""
    a, b = first.nodes[name], second.nodes[name]
    if is_deterministic(a):
        return torch.allclose(a["value"], b["value"], rtol=1e-4, atol=1e-5)
    try:
        densities = [site["fn"].log_prob(a["value"]) for site in (a, b)]
    except ValueError:  # the other distribution has another support
        return False
    before, after = densities
    return torch.allclose(before, after, rtol=1e-4, atol=1e-4, equal_nan=True)


def _check_plate(name: str, fn: Any, batch: int, sizes: tuple[int, ...]) -> None:
    shape = tuple(fn.batch_shape)
    expected = (*sizes, batch)
    padded = (1,) * (len(expected) - len(shape)) + shape
    fits = len(padded) == len(expected) and all(
        got in (1, want) for got, want in zip(padded, expected)
    )
    if not fits or (shape[-1:] != (batch,)):
        raise ShapeError(
            f"site {name!r}: expected batch shape {(batch,)} from one plate over the data (and "
            f"{sizes} to its left for enumerated sites), got {shape}; sample it inside "
            "pyro.plate('data', len(x)), and move other dimensions into the event by .to_event()"
        )
