"""An unsupervised start of the categories, before the decoder is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import LARGEST_WEIGHT, number, whole
from pyro_mivae.engine import Engine, TrainStep, is_due
from pyro_mivae.options import check_fields, option
from pyro_mivae.schedules import Schedule, linear_warmup
from pyro_mivae.terms import RegularizedInformation


@dataclass(frozen=True)
class CategoryStart:
    """The start of a variant with categories: ``warm_start`` steps before training, or none.

    Its `RegularizedInformation` then stays in the objective with ``start_weight``, which falls to
    0 over the first 80 % of the training. The weights of the KL divergences and of an information
    term rise from 0 during the share ``warmup`` of the training.
    """

    warm_start: int = option(
        900, check=whole(least=0), help="steps of the categories' unsupervised start"
    )
    start_weight: float = option(
        20.0,
        check=number(least=0, most=LARGEST_WEIGHT),
        help="weight of the start's term in the objective, falling to 0",
    )
    warmup: float = option(
        0.5,
        check=number(least=0, most=1),
        help="share of the training in which the other weights rise from 0",
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def term(self, site: str, num_steps: int | None) -> tuple[RegularizedInformation, ...]:
        """Returns the start's term for the objective, if there is one."""
        steps = round(0.8 * (num_steps or 0))
        if not (steps and self.start_weight and self.warm_start):
            return ()
        falling = linear_warmup(steps, start=self.start_weight, end=0.0)
        return (RegularizedInformation(site, weight=falling),)

    def rising(self, weight: float | Schedule, num_steps: int | None) -> float | Schedule:
        """Returns a schedule that rises from 0 to a constant weight."""
        steps = round(self.warmup * (num_steps or 0))
        if callable(weight) or not (weight and steps):
            return weight
        return linear_warmup(steps, end=weight)


@torch.enable_grad()
def warm_start_categories(guide: nn.Module, x: Tensor, site: str = "c", *, steps: int) -> None:
    r"""Trains :math:`q(c \mid x)` alone, to maximise `RegularizedInformation`."""
    term = RegularizedInformation(site)

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        value = -term.per_datum(guide, batch)
        return value, {"loss": value.detach()}

    engine = Engine(TrainStep.of_modules(loss, guide), "auto", num_steps=steps)
    device = next(guide.parameters()).device
    optimiser = torch.optim.Adam(guide.parameters(), 1e-3, fused=True)
    for step in range(steps):
        index = torch.randint(len(x), (min(256, len(x)),), device=x.device)
        batch = x[index].to(device, non_blocking=True)
        engine.take(batch, number=step, compare=is_due(step))
        optimiser.step()
