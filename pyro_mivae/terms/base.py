"""Terms that an objective adds to the ELBO, estimated from runs of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack

from torch import Tensor, nn

from pyro_mivae.arguments import checked, function, shown, text
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.schedules import Schedule, Target, Weight
from pyro_mivae.schedules import weight as weights
from pyro_mivae.traces import Program, TracePair


@dataclass(frozen=True)
class Particle:
    """One run of a model/guide pair: its traces and its arguments, the data first.

    Labels are observed in the traces alone: the guide itself does not see them.
    """

    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    traces: TracePair
    labelled: tuple[Tensor, ...] | None = None  # data, labels, ..., see `LabelledCategory`


class TermOptions(TypedDict, total=False):
    """Options of every term."""

    weight: float | Schedule | Target


class InformationTerm(ABC):
    """A term that `MutualInformationELBO` adds to the ELBO and maximises.

    Args:
        sites: The part of the code that the term is about.
        weight: Its weight per datum: a number, a schedule of the training step, or a `Target`,
            which the term then reaches or exceeds, and at which a cost is held.

    Attributes:
        name: Name in the ledger, ``mi_<sites>_...`` for information in nats.
        formula: The term as `explain` writes it.
        needs_batch: True if the term compares data within a batch (needs two or more).
        is_cost: True if ledger and target hold minus the term, such as a cross-entropy.
        least_weight: The smallest allowed weight; 0 for a lower bound, which must not be
            minimised.

    Raises:
        OptionError: If no site is named, a site is named twice, or an option is out of range.

    Example:
        >>> class Norm(InformationTerm):
        ...     is_cost, formula = True, "E_q[|z|^2]"
        ...     def __init__(self, weight=1.0):
        ...         super().__init__("z", weight=weight)
        ...         self.name = "norm_z"
        ...     def __call__(self, particle):
        ...         return particle.traces.guide.nodes["z"]["value"].square().sum()
        >>> print(mi.explain(mi.MutualInformationELBO([Norm(0.1)])))
        J =  E_q[log p(x|code)]
           - 1 * KL of every site
           + 0.1 * E_q[|z|^2]
        maximised; nats per datum
    """

    name: str
    formula: str
    needs_batch: ClassVar[bool] = False
    is_cost: ClassVar[bool] = False
    least_weight: ClassVar[float | None] = None

    @checked(sites=text())
    def __init__(self, *sites: str, weight: float | Schedule | Target = 1.0) -> None:
        if not sites or len(set(sites)) < len(sites):
            raise OptionError(f"sites {sites}: name one or more latent sites, each once")
        self.sites = sites
        self.key = "_".join(sites)
        checked_weight = weights(least=self.least_weight)("weight", weight)
        self.weight = Weight(checked_weight, rises_below=not self.is_cost)

    @property
    def is_idle(self) -> bool:
        """True if the weight is the constant 0, so the term is left out."""
        return self.weight.is_zero

    @property
    def state(self) -> nn.Module:
        """Schedules and averages, which change with training and belong in a checkpoint."""
        return self.weight

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The term's own networks, trained with the pair, by name."""
        return {}

    @abstractmethod
    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the term."""

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Estimates the weighted term, with a gradient, and its entries in the ledger."""
        value = self(particle)
        return self.weight() * value, {self.name: -value if self.is_cost else value}

    def check_latent(self, traces: TracePair) -> None:
        """Raises a `SiteError` if a named site is not a latent site of the pair."""
        for name in self.sites:
            if name not in traces.latent:
                raise SiteError(
                    f"{type(self).__name__} names the site {name!r}; the latent sites are "
                    f"{traces.latent}"
                )


class Penalty(InformationTerm):
    """Subtracts a function of the run from the objective; the ledger holds the function itself.

    A function that computes another divergence replaces a site's KL divergence of weight 0:
    ``MutualInformationELBO([Penalty("z", function=mine)], {"z": 0})``.

    Args:
        sites: The sites that it is about, part of its name in the ledger.
        function: From a `Particle` to a scalar to minimise, summed over the batch.
        name: Its name in the ledger; ``penalty_<sites>`` if omitted.
        **term: The weight, see `InformationTerm`.

    Raises:
        SiteError: In a step, if a site is no latent site of the pair.
        ShapeError: In a step, if the function returns anything but a scalar tensor.

    Example:
        >>> def squared(particle):
        ...     return particle.traces.guide.nodes["z"]["value"].square().sum()
        >>> term = Penalty("z", function=squared, weight=0.1)
        >>> print(mi.explain(mi.MutualInformationELBO([term])))
        J =  E_q[log p(x|code)]
           - 1 * KL of every site
           + 0.1 * (-squared)
        maximised; nats per datum
    """

    is_cost = True

    @checked(function=function("function(particle)"), name=text())
    def __init__(
        self,
        *sites: str,
        function: Callable[[Particle], Tensor],
        name: str | None = None,
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(*sites, **term)
        self.function = function
        self.name = name or f"penalty_{self.key}"
        self.formula = f"(-{getattr(function, '__name__', self.name)})"

    def __call__(self, particle: Particle) -> Tensor:
        """Returns minus the function's value."""
        self.check_latent(particle.traces)
        cost = self.function(particle)
        if not isinstance(cost, Tensor) or cost.ndim:
            given = f"shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else shown(cost)
            raise ShapeError(
                f"the function of {self.name} returns {given}; return a tensor of shape (), the "
                "sum over the batch, with its gradient"
            )
        return -cost
