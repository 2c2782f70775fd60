r"""The densities that annealing runs between, in unconstrained coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.diagnostics.proposals import configurations, repeat
from pyro_mivae.errors import SiteError
from pyro_mivae.traces import Program, trace_program

Start = Literal["guide", "prior"]

TRIED = 8  # rows on which a program is tried with enumerable sites laid out


@dataclass(frozen=True)
class Point:
    """A place of every chain, and the densities there; all float64.

    Attributes:
        place: Unconstrained coordinates, shape ``(rows, dims)``.
        start: Log-density of the sites at the start of the path, shape ``(rows,)``.
        gain: That of the end, :math:`log p(x, z)`, less ``start``.
        volume: Log-determinant of the map from coordinates to sites.
        slopes: Gradients in ``place`` of ``start + volume`` and of the end's, ``(rows, dims)``.
    """

    place: Tensor
    start: Tensor
    gain: Tensor
    volume: Tensor
    slopes: tuple[Tensor, Tensor]

    def height(self, temperature: Tensor) -> Tensor:
        """Log-density of the coordinates on the path, shape ``(rows,)``."""
        return self.start + temperature * self.gain + self.volume

    def slope(self, temperature: Tensor) -> Tensor:
        """Its gradient, shape ``(rows, dims)``."""
        first, last = self.slopes
        return torch.lerp(first, last, temperature.to(first.dtype))

    def where(self, moved: Tensor, other: Point) -> Point:
        """Takes another point in some rows."""
        column = moved[:, None]
        return Point(
            torch.where(column, other.place, self.place),
            torch.where(moved, other.start, self.start),
            torch.where(moved, other.gain, self.gain),
            torch.where(moved, other.volume, self.volume),
            (
                torch.where(column, other.slopes[0], self.slopes[0]),
                torch.where(column, other.slopes[1], self.slopes[1]),
            ),
        )


class Target:
    r"""The geometric path :math:`f_\beta = q^{1-\beta}\, p(x, \cdot)^\beta` for a few data.

    Enumerable sites are summed out at both ends, :math:`q(z \mid x) = \sum_c q(c, z \mid x)` and
    :math:`p(x, z) = \sum_c p(x, c, z)`. Other sites move in unconstrained coordinates u, where the
    densities have the factor :math:`|dz / du|`.

    Attributes:
        sites: Those that move.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Tensor,
        layout: Layout,
        start: Start,
        fixed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._x = x
        self._fixed = dict(fixed or {})
        layout = _without(layout, self._fixed)
        self.sites = [name for name in layout.latent if name not in layout.enumerated]
        if layout.deterministic and start == "guide":
            raise SiteError(
                f"sites {list(layout.deterministic)} of the guide are deterministic, so that it "
                "has no density to anneal from; use start='prior'"
            )
        self._source = poutine.condition(guide if start == "guide" else model, data=self._fixed)
        prior = trace_program(model, (x,), {})
        self._supports = {name: _support(prior.nodes[name]) for name in self.sites}
        self._maps = {name: biject_to(support) for name, support in self._supports.items()}
        values = {**self._draw(), **self._fixed}
        self._shapes = {n: self._maps[n].inv(values[n]).shape[1:] for n in self.sites}
        self._model_density = Conditioned(model, guide, x, layout, values)
        self._guide_density: _Known | Conditioned | None = None
        if start == "guide" and layout.is_known(*layout.drawn):
            self._guide_density = _Known(self._source, x, layout)
        elif start == "guide":
            self._guide_density = Conditioned(guide, guide, x, layout, values)

    def draw(self) -> Tensor:
        """Draws from the start of the path, shape ``(rows, dims)``."""
        return self.coordinates(self._draw())

    def coordinates(self, values: Mapping[str, Tensor]) -> Tensor:
        """Turns values of the sites, ``(rows, *event)``, into coordinates, ``(rows, dims)``."""
        parts = [self._maps[n].inv(values[n]).reshape(len(self._x), -1) for n in self.sites]
        return torch.cat(parts, 1)

    def _draw(self) -> dict[str, Tensor]:
        trace = trace_program(self._source, (self._x,), {})
        values = {name: trace.nodes[name]["value"] for name in self.sites}
        self._check(values)
        return values

    def at(self, place: Tensor) -> Point:
        """Evaluates both ends of the path, with their gradients."""
        with torch.enable_grad():
            place = place.detach().requires_grad_()
            values, volume = self._values(place)
            prior, end = self._model_density(values)
            start = prior if self._guide_density is None else self._guide_density(values)[0]
            (first,) = torch.autograd.grad((start + volume).sum(), place, retain_graph=True)
            (last,) = torch.autograd.grad((end + volume).sum(), place)
        parts = (start.detach(), (end - start).detach(), volume.detach())
        return Point(place.detach(), *parts, (first, last))

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

    def _check(self, values: Mapping[str, Tensor]) -> None:
        for name in self.sites:
            if not self._supports[name].check(values[name]).all():
                raise SiteError(
                    f"site {name!r}: the guide draws values outside the support of the model's "
                    f"{self._supports[name]}; give it a distribution on that support, or use "
                    "start='prior'"
                )


class _Known:
    """A guide whose distribution of the drawn sites is a finite sum: it runs once."""

    def __init__(self, guide: Program, x: Tensor, layout: Layout) -> None:
        program = EnumMessenger(first_available_dim=-2)(config_enumerate(guide))
        trace = trace_program(program, (x,), {})
        self._fns = {name: trace.nodes[name]["fn"] for name in layout.drawn}
        summed = layout.enumerated if layout.branching.intersection(layout.drawn) else ()
        self._log_weights = _total(trace, summed)

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        total = self._log_weights
        for name, fn in self._fns.items():
            total = total + fn.log_prob(values[name]).double()
        density = _sum_out(total, len(next(iter(values.values()))))
        return density, density


class Conditioned:
    """A program's density of given values, the enumerable sites summed out.

    They are laid out along dimensions of their own where the program broadcasts the values against
    them, which is tried on a few rows; else they are written out, row by row.
    """

    def __init__(
        self,
        program: Program,
        guide: Program,
        x: Tensor,
        layout: Layout,
        values: dict[str, Tensor],
    ) -> None:
        self._program, self._x, self._layout = program, x, layout
        kept = {name: value[:1] for name, value in values.items() if name not in layout.latent}
        self._configurations = configurations(poutine.condition(guide, data=kept), x[:1], layout)
        some = slice(None, None, max(1, len(x) // TRIED))
        few = {name: value[some] for name, value in values.items()}
        self._laid = bool(layout.enumerated)
        if self._laid:
            rows = self._written(x[some], few)
            try:
                laid = self._broadcast(x[some], few)
            except (RuntimeError, ValueError, IndexError):
                self._laid = False
            else:
                self._laid = all(map(_near, laid, rows))

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores values of the layout's sites, and the same with what is observed."""
        return (self._broadcast if self._laid else self._written)(self._x, values)

    def _broadcast(self, x: Tensor, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        program = config_enumerate(poutine.condition(self._program, data=dict(values)))
        trace = trace_program(EnumMessenger(first_available_dim=-2)(program), (x,), {})
        code = _total(trace, self._layout.latent)
        return _sum_out(code, len(x)), _sum_out(code + self._seen(trace), len(x))

    def _written(self, x: Tensor, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        count, n = self._layout.num_configurations, len(x)
        data = {name: repeat(value, count) for name, value in values.items()}
        data |= {name: v.repeat_interleave(n, 0) for name, v in self._configurations.items()}
        program = poutine.condition(self._program, data=data)
        trace = trace_program(program, (repeat(x, count),), {})
        code = _total(trace, self._layout.latent)
        seen = code + self._seen(trace)
        return _sum_out(code.reshape(count, n), n), _sum_out(seen.reshape(count, n), n)

    def _seen(self, trace: Any) -> Tensor:
        sites = trace.nodes.items()
        names = [n for n, s in sites if s["type"] == "sample" and n not in self._layout.latent]
        return _total(trace, names)


def _support(site: Mapping[str, Any]) -> Any:
    support = site["fn"].support
    if support.is_discrete:
        raise SiteError(
            f"site {site['name']!r} ({type(site['fn']).__name__}) is discrete, and its support is "
            "not finite; annealing needs continuous or enumerable sites"
        )
    return support


def _without(layout: Layout, names: Iterable[str]) -> Layout:
    """A layout whose sites of these names are given."""
    sizes = zip(reversed(layout.enumerated), layout.sizes, strict=True)

    def rest(sites: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in sites if name not in names)

    return replace(
        layout,
        latent=rest(layout.latent),
        enumerated=rest(layout.enumerated),
        drawn=rest(layout.drawn),
        deterministic=rest(layout.deterministic),
        sizes=tuple(size for name, size in sizes if name not in names),
    )


def _near(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=1e-4)


def _total(trace: Any, names: Iterable[str]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


def _sum_out(total: Tensor, n: int) -> Tensor:
    return total.expand(*total.shape[:-1], n).reshape(-1, n).logsumexp(0)
