r"""Annealing paths from guide, or prior, to posterior, and Hamiltonian Monte Carlo along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to

from pyro_mivae.compat import tree_map
from pyro_mivae.errors import SiteError
from pyro_mivae.evidence.staging import Function, Stager
from pyro_mivae.posterior.densities import (
    agrees,
    conditioned_trace,
    configurations,
    enumerated_trace,
    log_density,
    repeat,
)
from pyro_mivae.posterior.layout import ProbedPair, SiteLayout
from pyro_mivae.spherical import Directions
from pyro_mivae.traces import Program, trace_program

Start = Literal["guide", "prior"]
Values = Mapping[str, Tensor]

TRIED = 8  # rows on which a program is tried with enumerable sites laid out
KNOTS = 10  # temperatures of the pilot run, without 0
POWER = 3  # by which they crowd towards 0, where most changes
SETTLE, ADAPT = 10, 4  # transitions of the pilot run at temperature 0, and at each other one
PILOT = SETTLE + KNOTS * ADAPT
RATE = 0.5  # how far one transition moves the logarithm of a step size
FIRST_STEP = 1.0  # of the guide's spread; a large step shrinks faster than a small one grows
SHORTEST = 0.5  # of a step: paths of one length can come back to where they began
FLOOR = 0.1  # of the mean speed, which every temperature keeps
SPREADS = 8  # draws of each chain that give the coordinates their scale


class Point(NamedTuple):
    """The position of every chain, and the densities there; all float64."""

    place: Tensor  # unconstrained coordinates, (rows, dims)
    start: Tensor  # log-density of the sites at the start of the path, (rows,)
    gain: Tensor  # that of the end, log p(x, z), less the start's
    volume: Tensor  # log-determinant of the map from coordinates to sites
    slopes: tuple[Tensor, Tensor]  # gradients in place of start + volume, and of the end's

    def height(self, temperature: Tensor) -> Tensor:
        """Log-density of the coordinates on the path, shape ``(rows,)``."""
        return self.start + temperature * self.gain + self.volume

    def slope(self, temperature: Tensor) -> Tensor:
        """Gradient of `height` by the coordinates, shape ``(rows, dims)``."""
        first, last = self.slopes
        return torch.lerp(first, last, temperature.to(first.dtype))

    def where(self, moved: Tensor, other: Point) -> Point:
        """Replaces some rows by those of another point."""

        def choose(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(moved[:, None] if new.dim() > 1 else moved, new, old)

        return tree_map(choose, self, other)


class AnnealingPath:
    r"""The geometric path :math:`f_\beta = q^{1-\beta}\, p(x, \cdot)^\beta` for a few data.

    Enumerable sites are summed out at both ends, :math:`q(z \mid x) = \sum_c q(c, z \mid x)` and
    :math:`p(x, z) = \sum_c p(x, c, z)`. Other sites move in unconstrained coordinates u, where the
    densities have the factor :math:`|dz / du|`; directions have a length too, see `Directions`.
    """

    def __init__(
        self, pair: ProbedPair, x: Tensor, start: Start, fixed: Values | None = None
    ) -> None:
        self._x, self._fixed = x, dict(fixed or {})
        pair = replace(pair, layout=pair.layout.without(self._fixed))
        model, guide, layout = pair.model, pair.guide, pair.layout
        self.sites = [name for name in layout.latent if name not in layout.enumerated]
        if layout.deterministic and start == "guide":
            raise SiteError(
                f"sites {list(layout.deterministic)} of the guide are deterministic, so it has no "
                "density to anneal from; use start='prior'"
            )
        self._source = poutine.condition(guide if start == "guide" else model, data=self._fixed)
        prior = trace_program(model, (x,), {})
        self._supports = {name: _support(prior.nodes[name]) for name in self.sites}
        self._maps = {name: _map_onto(support) for name, support in self._supports.items()}
        values = {**self._draw(), **self._fixed}
        self._shapes = {n: self._maps[n].inv(values[n]).shape[1:] for n in self.sites}
        self._model_density = SummedDensity(pair, x, values)
        self._guide_density: Callable[[Values], Tensor] | None = None
        if start == "guide" and layout.is_known(*layout.drawn):
            self._guide_density = _known_density(self._source, x, layout)
        elif start == "guide":
            summed = SummedDensity(replace(pair, model=guide), x, values)
            self._guide_density = lambda values: summed(values)[0]
        self._run: Function = self._evaluate

    def draw(self) -> Tensor:
        """Draws from the start of the path, shape ``(rows, dims)``."""
        return self.coordinates(self._draw())

    def coordinates(self, values: Values) -> Tensor:
        """Turns values of the sites, ``(rows, *event)``, into coordinates, ``(rows, dims)``."""
        parts = [self._maps[n].inv(values[n]).reshape(len(self._x), -1) for n in self.sites]
        return torch.cat(parts, 1)

    def stage(self, stager: Stager, calls: int) -> None:
        """Records the densities as a graph if possible; ``calls`` says how many will follow."""
        self._run = stager.stage(self._evaluate, self.draw(), self.draw(), calls)

    def at(self, place: Tensor) -> Point:
        """Evaluates both ends of the path, with their gradients."""
        start, gain, volume, *slopes = self._run(place)
        return Point(place, start, gain, volume, (slopes[0], slopes[1]))

    def _evaluate(self, place: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            place = place.detach().requires_grad_()
            values, volume = self._values(place)
            prior, end = self._model_density(values)
            start = prior if self._guide_density is None else self._guide_density(values)
            (first,) = torch.autograd.grad((start + volume).sum(), place, retain_graph=True)
            (last,) = torch.autograd.grad((end + volume).sum(), place)
        return start.detach(), (end - start).detach(), volume.detach(), first, last

    def _draw(self) -> dict[str, Tensor]:
        trace = trace_program(self._source, (self._x,), {})
        values = {name: trace.nodes[name]["value"] for name in self.sites}
        for name, support in self._supports.items():
            if not support.check(values[name]).all():
                raise SiteError(
                    f"site {name!r}: the guide draws values outside the support of the model's "
                    f"{support}; give it a distribution on that support, or use start='prior'"
                )
        return values

    def _values(self, place: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        values = dict(self._fixed)
        volume = torch.zeros(len(place), dtype=torch.float64, device=place.device)
        sizes = [shape.numel() for shape in self._shapes.values()]
        for name, part in zip(self.sites, place.split(sizes, 1), strict=True):
            flat = part.reshape(len(place), *self._shapes[name])
            values[name] = self._maps[name](flat)
            slope = self._maps[name].log_abs_det_jacobian(flat, values[name])
            volume = volume + slope.reshape(len(place), -1).sum(1).double()
        return values, volume


class SummedDensity:
    """A model's density of given values, the enumerable sites summed out.

    They are laid out along separate dimensions if the program broadcasts the values against them,
    as tried on a few rows. Otherwise they are expanded row by row.
    """

    def __init__(self, pair: ProbedPair, x: Tensor, values: Values) -> None:
        self._program, self._x, self._layout = pair.model, x, pair.layout
        layout = pair.layout
        kept = {name: value[:1] for name, value in values.items() if name not in layout.latent}
        self._configurations = configurations(poutine.condition(pair.guide, data=kept), x, layout)
        some = slice(None, None, max(1, len(x) // TRIED))
        few = {name: value[some] for name, value in values.items()}
        self._laid = bool(layout.enumerated) and agrees(
            lambda: self._broadcast(x[some], few), lambda: self._written(x[some], few)
        )

    def __call__(self, values: Values) -> tuple[Tensor, Tensor]:
        """Scores values of the layout's sites, and the same with what is observed."""
        return (self._broadcast if self._laid else self._written)(self._x, values)

    def _broadcast(self, x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        trace = enumerated_trace(poutine.condition(self._program, data=dict(values)), x)
        return self._totals(trace, x, len(x))

    def _written(self, x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        count, n = self._layout.num_configurations, len(x)
        data = {name: repeat(value, count) for name, value in values.items()}
        data |= {name: v.repeat_interleave(n, 0) for name, v in self._configurations.items()}
        x = repeat(x, count)
        return self._totals(conditioned_trace(self._program, x, data), x, n)

    def _totals(self, trace: Any, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        code = log_density(trace, self._layout.latent, x)
        sites = trace.nodes.items()
        seen = [s for s, t in sites if t["type"] == "sample" and s not in self._layout.latent]
        return _sum_out(code, n), _sum_out(code + log_density(trace, seen, x), n)


def _known_density(guide: Program, x: Tensor, layout: SiteLayout) -> Callable[[Values], Tensor]:
    """Density of the drawn sites of a guide, if it is a finite sum: the guide runs once."""
    with torch.no_grad():
        trace = enumerated_trace(guide, x)
    fns = {name: trace.nodes[name]["fn"] for name in layout.drawn}
    summed = layout.enumerated if layout.branching.intersection(layout.drawn) else ()
    log_weights = log_density(trace, summed, x)

    def score(values: Values) -> Tensor:
        total = log_weights
        for name, fn in fns.items():
            total = total + fn.log_prob(values[name]).double()
        return _sum_out(total, len(x))

    return score


def _support(site: Mapping[str, Any]) -> Any:
    support = site["fn"].support
    if support.is_discrete:
        raise SiteError(
            f"site {site['name']!r} ({type(site['fn']).__name__}) is discrete, and its support is "
            "not finite; annealing needs continuous or enumerable sites"
        )
    try:
        _map_onto(support)
    except NotImplementedError:
        raise SiteError(
            f"annealing moves codes along real numbers, and site {site['name']!r} is on "
            f"{support}, which has no map from them; use the importance-weighted log_px of "
            "mi.information"
        ) from None
    return support


def _map_onto(support: Any) -> Any:
    """Returns the map from unconstrained coordinates."""
    return Directions() if support is constraints.sphere else biject_to(support)


def _sum_out(total: Tensor, n: int) -> Tensor:
    return total.reshape(-1, n).logsumexp(0)


def transition(
    path: AnnealingPath,
    point: Point,
    temperature: Tensor,
    step: Tensor,
    scale: Tensor,
    leapfrogs: int,
) -> tuple[Point, Tensor]:
    r"""Moves every chain by one step of Hamiltonian Monte Carlo, which preserves its density.

    References:
        Neal (2011), MCMC using Hamiltonian dynamics, section 3. https://arxiv.org/abs/1206.1901
    """
    stride = step * scale * torch.empty_like(step).uniform_(SHORTEST, 1)
    momentum = torch.randn_like(point.place)
    before = point.height(temperature) - 0.5 * momentum.square().sum(1)
    there = point
    momentum = momentum + 0.5 * stride * there.slope(temperature)
    for left in reversed(range(leapfrogs)):
        there = path.at(there.place + stride * momentum)
        momentum = momentum + (1.0 if left else 0.5) * stride * there.slope(temperature)
    after = there.height(temperature) - 0.5 * momentum.square().sum(1)
    chance = (after - before).exp().clamp(max=1.0).nan_to_num(0.0)
    return point.where(torch.rand_like(chance) < chance, there), chance


class Plan(NamedTuple):
    """Temperatures and step sizes of annealing, set before the run."""

    temperatures: Tensor  # from 0 to 1, (num_temperatures + 1,)
    knots: Tensor  # temperatures at which step sizes are known, ascending from 0 to 1
    log_steps: Tensor  # their logarithms for every chain, (knots, rows)
    scale: Tensor  # of each coordinate, (rows, dims)
    leapfrogs: int  # leapfrog steps of one transition

    def step(self, temperature: Tensor) -> Tensor:
        """Interpolates the step sizes, shape ``(rows, 1)``."""
        above = int(torch.searchsorted(self.knots, temperature).clamp(1, len(self.knots) - 1))
        low, high = self.knots[above - 1], self.knots[above]
        share = ((temperature - low) / (high - low)).to(self.log_steps.dtype)
        return torch.lerp(self.log_steps[above - 1], self.log_steps[above], share).exp()[:, None]


def make_plan(
    path: AnnealingPath,
    num_chains: int,
    num_temperatures: int,
    leapfrogs: int,
    target_acceptance: float,
) -> Plan:
    r"""Runs the path once to set step sizes and temperatures.

    The steps of each datum, shared by its chains, move towards an acceptance rate. Temperatures
    are spread so that :math:`\int \sqrt{\mathrm{Var}_\beta[\log p(x, z) - \log q(z)]}\,d\beta`
    grows by the same amount between any two, with the variance of the median datum.

    References:
        Gelman & Meng (1998), Simulating Normalizing Constants, section 4.2 (the spread of
        temperatures of least variance).
    """
    draws = torch.stack([path.draw().unflatten(0, (num_chains, -1)) for _ in range(SPREADS)])
    spread = draws.flatten(0, 1).std(0)  # (n, dims)
    scale = torch.where(spread > 0, spread, 1.0).repeat(num_chains, 1)
    knots = torch.linspace(0, 1, KNOTS + 1, dtype=torch.float64, device=scale.device) ** POWER
    log_step = torch.full((len(spread),), math.log(FIRST_STEP), device=scale.device)
    point = path.at(path.draw())
    log_steps, speeds = [], []
    for place, knot in enumerate(knots):
        gains, found = [], []
        for _ in range(ADAPT if place else SETTLE):
            step = log_step.exp().repeat(num_chains)[:, None].to(scale.dtype)
            point, chance = transition(path, point, knot, step, scale, leapfrogs)
            rate = chance.unflatten(0, (num_chains, -1)).mean(0)
            found.append(log_step)
            log_step = log_step + RATE * (rate - target_acceptance).to(log_step.dtype)
            gains.append(point.gain.unflatten(0, (num_chains, -1)))
        log_steps.append(torch.stack(found[-3:]).mean(0).repeat(num_chains))
        speeds.append(torch.cat(gains).std(0).nan_to_num(0.0, posinf=0.0).median())
    temperatures = _spread(knots, torch.stack(speeds), num_temperatures)
    return Plan(temperatures, knots, torch.stack(log_steps).to(scale.dtype), scale, leapfrogs)


def _spread(knots: Tensor, speeds: Tensor, count: int) -> Tensor:
    """Temperatures between which the integral of the speed grows evenly, ``(count + 1,)``."""
    floor = FLOOR * torch.trapezoid(speeds, knots)
    speeds = speeds + torch.where(floor > 0, floor, 1.0)
    length = torch.cat([knots[:1], torch.cumulative_trapezoid(speeds, knots)])
    wanted = length[-1] * torch.linspace(0, 1, count + 1, dtype=knots.dtype, device=knots.device)
    above = torch.searchsorted(length, wanted).clamp(1, len(knots) - 1)
    share = (wanted - length[above - 1]) / (length[above] - length[above - 1])
    temperatures = torch.lerp(knots[above - 1], knots[above], share)
    temperatures[0], temperatures[-1] = 0.0, 1.0
    return temperatures
