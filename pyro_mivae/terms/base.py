"""Terms that an objective adds to the ELBO, estimated from the program itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pyro_mivae.arguments import checked, function, number_or_schedule, text
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.schedules import Schedule, Weight
from pyro_mivae.traces import Program, TracePair


@dataclass(frozen=True)
class Particle:
    """One run of a model/guide pair, as an information term sees it.

    Attributes:
        model: The model.
        guide: The guide.
        args: Arguments of both; the first is the observed data.
        kwargs: Keyword arguments of both.
        traces: Traces of the guide and of the model replayed against it.
    """

    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    traces: TracePair


class InformationTerm(ABC):
    """A term that `MutualInformationELBO` adds to the ELBO, to be maximised.

    Args:
        sites: The part of the code that the term is about.
        weight: Its weight per datum, a number or a schedule of the training step.

    Attributes:
        needs_batch: True if the term compares data within a batch (needs two or more).
    """

    needs_batch: ClassVar[bool] = False

    @checked(sites=text(), weight=number_or_schedule())
    def __init__(self, *sites: str, weight: float | Schedule = 1.0) -> None:
        if not sites or len(set(sites)) < len(sites):
            raise OptionError(f"sites {sites}: name one or more latent sites, each once")
        self.sites = sites
        self.key = "_".join(sites)
        self.weight = Weight(weight)

    @property
    def is_idle(self) -> bool:
        """True if it takes no part at all: its weight is the constant 0."""
        return self.weight.is_zero

    @property
    def state(self) -> nn.Module:
        """Tensors that move with training and that a checkpoint keeps: schedules, averages."""
        return self.weight

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks of its own that are trained with the pair, by name."""
        return {}

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the ledger, ``mi_<sites>_...`` for information in nats."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """The term as `explain` writes it."""

    @abstractmethod
    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the term."""

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Estimates the weighted term, and its entries in the ledger.

        Args:
            particle: One run of the model/guide pair.

        Returns:
            The weighted term, differentiable, and its value under its name, with further figures.
        """
        value = self(particle)
        return self.weight() * value, {self.name: value}

    def check_latent(self, traces: TracePair) -> None:
        """Raises a `SiteError` if a named site is no latent site of the pair."""
        for name in self.sites:
            if name not in traces.latent:
                raise SiteError(
                    f"{type(self).__name__} names the site {name!r}; the latent sites are "
                    f"{traces.latent}"
                )


class Penalty(InformationTerm):
    """Subtracts a function of the run from the objective.

    With the weight of a site's KL divergence at 0, a function that computes a divergence of its
    own takes that one's place: ``MutualInformationELBO([Penalty("z", function=mine)], {"z": 0})``.

    Args:
        sites: The sites that it is about; its name in the ledger has them.
        function: From a `Particle` (arguments, and traces of guide and model) to a scalar to be
            kept small, summed over the batch.
        weight: Its weight.
        name: Its name in the ledger; ``penalty_<sites>`` if omitted.
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
        self._name = name or f"penalty_{self.key}"

    @property
    def name(self) -> str:
        """``penalty_<sites>``, or the name that was given."""
        return self._name

    @property
    def formula(self) -> str:
        """The function's name."""
        return f"(-{getattr(self.function, '__name__', self._name)})"

    def __call__(self, particle: Particle) -> Tensor:
        """Returns minus the function's value."""
        return -self.function(particle)
