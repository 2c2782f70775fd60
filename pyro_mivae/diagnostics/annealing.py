r"""Chains from the guide, or the prior, to the posterior and back, and their weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_mivae.diagnostics.generated import Generated, Values
from pyro_mivae.diagnostics.hmc import Plan, make_plan, transition
from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.diagnostics.proposals import repeat
from pyro_mivae.diagnostics.target import Conditioned, Start, Target
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.traces import Program

ACCEPTED = (0.4, 0.9)  # share of proposals outside of which the estimate is called in question
PARTS = 10  # of the path, for each of which the acceptance is shown

Callback = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """How to anneal; see `annealed_log_likelihood`."""

    start: Start = "guide"
    num_temperatures: int = 500
    num_chains: int = 4
    leapfrog_steps: int = 5
    target_acceptance: float = 0.8
    batch_size: int = 1024

    @property
    def data_at_once(self) -> int:
        """Number of data whose chains run at once."""
        return max(1, self.batch_size // self.num_chains)


class Run:
    """Anneals some data after others, and counts what was accepted."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        layout: Layout,
        options: Options,
        items: int,
        runs: int,
        callback: Callback | None,
    ) -> None:
        self._model, self._guide, self._layout = model, guide, layout
        self._options = options
        self._callback = callback
        chunks = math.ceil(items / options.data_at_once)
        self._done, self._total = 0, chunks * options.num_temperatures * runs
        self._accepted = torch.zeros(PARTS, dtype=torch.float64)
        self._proposed = torch.zeros(PARTS, dtype=torch.float64)

    @property
    def acceptance(self) -> float:
        """Share of all proposals that were accepted."""
        return float(self._accepted.sum() / self._proposed.sum())

    @property
    def acceptance_by_part(self) -> tuple[float, ...]:
        """The same for each part of the path."""
        return tuple((self._accepted / self._proposed).tolist())

    def warn(self) -> None:
        """Warns where the chains hardly moved, or moved in steps that were too small."""
        low, high = ACCEPTED
        if self.acceptance < low or self.acceptance > high:
            warnings.warn(
                f"{self.acceptance:.0%} of the proposals were accepted, where {low:.0%} to "
                f"{high:.0%} are good: the bound may be loose; change leapfrog_steps or "
                "target_acceptance, or give more num_temperatures",
                PyroMivaeWarning,
                stacklevel=3,
            )

    def sandwich(self, data: Generated, fixed: Iterable[str] = ()) -> tuple[Tensor, Tensor]:
        """Bounds log p(x) of generated data from both sides, float64, shape ``(n,)`` each."""
        size = self._options.data_at_once
        starts = range(0, len(data.x), size)
        chunks = [data.take(slice(start, start + size)) for start in starts]
        bounds = [self.bound(chunk.x, chunk.code, fixed) for chunk in chunks]
        return torch.cat([low for low, _ in bounds]), torch.cat([high for _, high in bounds])

    def bound(
        self, x: Tensor, code: Values | None = None, fixed: Iterable[str] = ()
    ) -> tuple[Tensor, Tensor]:
        """Bounds log p(x) from below and, where the code of each datum is given, from above."""
        if set(self._layout.latent) == set(self._layout.enumerated):
            exact = Conditioned(self._model, self._guide, x, self._layout, {})({})[1]
            return exact, exact
        options = self._options
        rows = repeat(x, options.num_chains)
        own = {name: repeat(value, options.num_chains) for name, value in (code or {}).items()}
        kept = {name: own[name] for name in fixed}
        target = Target(self._model, self._guide, rows, self._layout, options.start, kept)
        plan = make_plan(
            target,
            options.num_chains,
            options.num_temperatures,
            options.leapfrog_steps,
            options.target_acceptance,
        )
        lower = self._anneal(target, plan, target.draw(), False)
        if code is None:
            return lower, lower
        return lower, -self._anneal(target, plan, target.coordinates(own), True)

    def _anneal(self, target: Target, plan: Plan, place: Tensor, backwards: bool) -> Tensor:
        """Log of the mean weight of each datum's chains; backwards, of their inverse weights."""
        temperatures, count = plan.temperatures, len(plan.temperatures) - 1
        if backwards:
            temperatures = temperatures.flip(0)
        point = target.at(place)
        log_weight = torch.zeros_like(point.gain)
        for i in range(1, count + 1):
            log_weight += (temperatures[i] - temperatures[i - 1]) * point.gain
            if i < count:
                now = temperatures[i]
                step = plan.step(now)
                point, chance = transition(target, point, now, step, plan.scale, plan.leapfrogs)
                part = PARTS * (i - 1) // (count - 1)
                part = PARTS - 1 - part if backwards else part
                self._accepted[part] += float(chance.sum())
                self._proposed[part] += len(chance)
            self._done += 1
            if self._callback is not None:
                self._callback(self._done, self._total)
        chains = log_weight.unflatten(0, (self._options.num_chains, -1))
        return chains.logsumexp(0) - math.log(len(chains))
