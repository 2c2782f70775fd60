"""What an objective adds to the ELBO, estimated from the program itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pyro_mivae.arguments import checked, number_or_schedule, text
from pyro_mivae.errors import OptionError
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
        pairs_data: Whether it sets each datum beside the codes of others, so that the size of the
            batch decides what it can say. A batch of one is an error then.
    """

    pairs_data: ClassVar[bool] = False

    @checked(sites=text(), weight=number_or_schedule())
    def __init__(self, *sites: str, weight: float | Schedule = 1.0) -> None:
        if not sites or len(set(sites)) < len(sites):
            raise OptionError(f"sites {sites}: name one or more latent sites, each once")
        self.sites = sites
        self.weight = Weight(weight)

    @property
    def is_idle(self) -> bool:
        """Whether it takes no part at all: its weight is the constant 0."""
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
        """Name in the ledger, ``mi_<sites>_...`` for what is in nats."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """The term as `explain` writes it."""

    @abstractmethod
    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the term."""

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives what an objective adds, and what it writes down.

        Args:
            particle: One run of the model/guide pair.

        Returns:
            The weighted term, differentiable, and the entries of the ledger: its value under its
            name, and further figures.
        """
        value = self(particle)
        return self.weight() * value, {self.name: value}
