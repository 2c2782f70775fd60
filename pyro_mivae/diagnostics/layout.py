"""The structure of a model/guide pair: its sites and what each of them depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyro.infer import config_enumerate
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_mivae.traces import Program, TracePair


@dataclass(frozen=True)
class Layout:
    """Sites of a model/guide pair and what they depend on, as `probe` finds them.

    Attributes:
        latent: Every site of the code, in the guide's order.
        enumerated: Those whose support is summed out.
        deterministic: Those that are point masses.
        drawn: Those that are drawn and have a density.
        free: Those whose distribution in the guide depends on no drawn site.
        alone: Those whose distribution depends on no other site, in guide and model alike, and
            whose prior is the same for all data: their KL divergence bounds their information from
            above.
        branching: Those whose distribution in the guide depends on enumerated sites.
        sizes: Sizes of the enumerated dimensions, from left to right.
        conditional: Those whose prior depends on the data.
        unscored: Those whose densities are not known at given values, by the reason.
        meanless: Those whose distribution in the guide has no mean in closed form.
        supports: Support of each drawn site, None where it is not known.
    """

    latent: tuple[str, ...]
    enumerated: tuple[str, ...]
    deterministic: tuple[str, ...]
    drawn: tuple[str, ...]
    free: frozenset[str]
    alone: frozenset[str]
    branching: frozenset[str]
    sizes: tuple[int, ...]
    conditional: frozenset[str] = frozenset()
    unscored: Mapping[str, str] = field(default_factory=dict)
    meanless: frozenset[str] = frozenset()
    supports: Mapping[str, Constraint | None] = field(default_factory=dict)

    @property
    def num_configurations(self) -> int:
        """Number of joint values of the enumerated sites, 1 if there are none."""
        return math.prod(self.sizes)

    @property
    def why_unscored(self) -> str | None:
        """Reason for which whole codes cannot be scored; None if they can."""
        return "; ".join(dict.fromkeys(self.unscored.values())) or None

    def is_known(self, *names: str) -> bool:
        """Tells whether the density of these sites, given the datum alone, is a finite sum."""
        summed = self.enumerated if self.branching.intersection(names) else ()
        if any(name in self.unscored for name in names):
            return False
        return self.free.issuperset((*names, *summed))

    def flatten(self, value: Tensor, batch: int, event: tuple[int, ...] = ()) -> Tensor:
        """Lays the enumerated dimensions along one."""
        expanded = value.expand((*self.sizes, batch, *event))
        return expanded.reshape(self.num_configurations, batch, *event)


def run_pair(model: Program, guide: Program, x: Tensor) -> TracePair:
    """Runs the pair with every enumerable site of the guide laid out left of the data plate."""
    guide = config_enumerate(guide, default="parallel")
    return TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)


def observed_sites(pair: TracePair) -> list[str]:
    """Returns the observed sites of the model; what ``pyro.deterministic`` notes is none."""
    sites = pair.model.nodes
    return [name for name in pair.observed if not sites[name]["infer"].get("_deterministic")]


def leading(fn: Any) -> int:
    """Returns how many distributions there are per datum."""
    return math.prod(fn.batch_shape[:-1])
