"""Single coordinates of a site: their densities under each posterior, whatever its family."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from pyro_mivae.diagnostics.aggregate import Contrast, blocks, posteriors
from pyro_mivae.diagnostics.draws import Codes, factors
from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.diagnostics.posterior import Posterior, log_density_anywhere
from pyro_mivae.traces import Program

SMALLER = 2  # times less at once than else: every number is gone over several times
PRUNED = 1e-9  # components of a one-dimensional mixture below this weight are left out
NEAR = 1e4  # deviations that codes span up to which single precision tells neighbours apart


def marginals(fn: Distribution) -> Distribution | None:
    """Returns the distribution of each coordinate, be they independent or not, as `factors`."""
    if isinstance(fn, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(fn.mean, fn.variance.sqrt(), validate_args=False)
    return factors(fn)


def contrast_coordinates(
    guide: Program,
    x: Tensor,
    codes: Codes,
    layout: Layout,
    names: Iterable[str],
    *,
    batch_size: int,
    device: torch.device,
) -> dict[str, Contrast]:
    """Contrasts every coordinate of drawn sites with the data, on its own."""
    rows = torch.arange(len(x), device=device)
    values = {name: codes.values[name].reshape(len(x), -1) for name in names}
    centres = {name: value.double().mean(0) for name, value in values.items()}
    results = {name: Contrast(rows, len(x), value.shape[1:]) for name, value in values.items()}
    for start, posterior in posteriors(guide, x, layout, batch_size, device):
        mine = slice(start, start + posterior.size)
        for name, result in results.items():
            density = _Coordinates(posterior, name, values[name], centres[name])
            result.own[mine] = density.own(values[name][mine])
            owner = density.datum + start
            for part in blocks(len(x), SMALLER * density.width):
                table = density(values[name][part])  # (dims, part, components)
                row, component = (rows[part, None] == owner).nonzero(as_tuple=True)
                table[:, row, component] = -torch.inf
                result.absorb(part, _logsumexp(table).t().double())
    return results


class _Coordinates:
    """Log-densities of coordinates under a few data's posteriors, configurations apart.

    Attributes:
        datum: Whose each component is, counted within the posterior, shape ``(components,)``.
        width: How many numbers each row of values makes.
    """

    def __init__(self, posterior: Posterior, name: str, values: Tensor, centre: Tensor) -> None:
        fn = posterior.fns[name]
        each = marginals(fn)
        if each is None:
            raise TypeError(f"site {name!r}: the density of its coordinates is not known")
        self._each, self._layout = each, posterior.layout
        self._event, self._batch = tuple(fn.event_shape), posterior.size
        self._dims = math.prod(self._event)
        self._branches = posterior.configurations(name) > 1
        self._log_weights = posterior.log_weights
        if not self._branches:  # no enumerated site matters here
            self._log_weights = self._log_weights.logsumexp(0, keepdim=True)
        self._kept = self._log_weights > math.log(PRUNED)
        self.datum = self._kept.nonzero()[:, 1]
        self.width = self._kept.numel() * self._dims
        self._normal: tuple[Tensor, Tensor, Tensor] | None = None
        if isinstance(each, Normal):
            loc, scale = (self._flat(p)[0, self._kept].double() for p in (each.loc, each.scale))
            constant = self._log_weights[self._kept, None] - scale.log()
            constant -= 0.5 * math.log(2 * math.pi)
            # An error in a far code's density counts for nothing.
            self._centre, self._unit = centre, scale.amin(0)
            span = ((values.double() - centre) / self._unit).abs().max()
            self._type = torch.float32 if span < NEAR else torch.float64
            parameters = ((loc - centre) / self._unit, 0.5**0.5 * self._unit / scale, constant)
            loc, shrink, constant = (p.t().to(self._type).unsqueeze(1) for p in parameters)
            self._normal = (loc.contiguous(), shrink.contiguous(), constant.contiguous())

    def __call__(self, values: Tensor) -> Tensor:
        """Scores rows of values, ``(n, dims)``, under every component: ``(dims, n, components)``.

        The weights of the enumerated sites' configurations are counted in.
        """
        if self._normal is not None:
            loc, shrink, constant = self._normal  # (dims, 1, components)
            places = ((values.double() - self._centre) / self._unit).t().to(self._type)
            squares = (places.unsqueeze(2) - loc).mul_(shrink).square_()
            return torch.sub(constant, squares, out=squares)
        lead = len(self._layout.sizes) if self._branches else 0
        pairs = values.reshape(len(values), *[1] * (lead + 1), *self._event)
        density = self._flat(log_density_anywhere(self._each, pairs))
        density = density[:, self._kept] + self._log_weights[self._kept, None]
        return density.permute(2, 0, 1).contiguous()

    def own(self, values: Tensor) -> Tensor:
        """Scores each datum's own values, ``(batch, dims)``, with the enumerated sites summed out.

        Returns float64 of the same shape.
        """
        values = values.reshape(self._batch, *self._event)
        density = self._flat(log_density_anywhere(self._each, values))[0]
        return (density.double() + self._log_weights[:, :, None]).logsumexp(0)

    def _flat(self, value: Tensor) -> Tensor:
        """Shape ``(n, configurations, batch, dims)``, with n = 1 if the value has no rows."""
        sizes = self._layout.sizes if self._branches else ()
        shape = (*sizes, self._batch, *self._event)
        rows = len(value) if value.dim() > len(shape) else 1
        return value.expand(rows, *shape).reshape(rows, -1, self._batch, self._dims)


def _logsumexp(table: Tensor) -> Tensor:
    """Sums over the last dimension in place: much faster than torch's, which makes copies."""
    limits = torch.finfo(table.dtype)  # never infinity less infinity
    top = table.amax(-1, keepdim=True).clamp(limits.min, limits.max)
    total: Tensor = table.sub_(top).exp_().sum(-1)
    return total.log_().add_(top[..., 0])
