"""Whatever else an objective is to keep small."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_mivae.arguments import checked, function, text
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms.base import InformationTerm, Particle


class Penalty(InformationTerm):
    """Subtracts a function of the run from the objective.

    With the weight of a site's KL divergence at 0, a function that computes a divergence of its
    own takes that one's place: ``MutualInformationELBO([Penalty("z", function=mine)], {"z": 0})``.

    Args:
        sites: The sites that it is about; its name in the ledger has them.
        function: From a `Particle` (arguments, and traces of guide and model) to a scalar, summed
            over the batch, that is to be kept small.
        weight: Its weight.
        name: What the ledger calls it: ``penalty_<sites>`` if omitted.
    """

    @checked(function=function("function(particle)"), name=text())
    def __init__(
        self,
        *sites: str,
        function: Callable[[Particle], Tensor],
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(*sites, weight=weight)
        self.function = function
        self._name = name or f"penalty_{'_'.join(sites)}"

    @property
    def name(self) -> str:
        """``penalty_<sites>``, or the name that was given."""
        return self._name

    @property
    def formula(self) -> str:
        """The function's name, as `explain` writes it."""
        return f"(-{getattr(self.function, '__name__', self._name)})"

    def __call__(self, particle: Particle) -> Tensor:
        """Returns what is subtracted, with its sign turned."""
        return -self.function(particle)
