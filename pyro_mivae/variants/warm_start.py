"""An unsupervised start for categories, before any decoder is there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_mivae.engine import Engine, TrainStep, is_due
from pyro_mivae.terms import RegularizedInformation


@torch.enable_grad()
def warm_start_categories(
    guide: nn.Module,
    x: Tensor,
    site: str = "c",
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
) -> None:
    r"""Trains :math:`q(c \mid x)` alone, to maximise `RegularizedInformation`.

    No decoder and no label takes part.
    """
    term = RegularizedInformation(site)

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        value = -term.per_datum(guide, batch)
        return value, {"loss": value.detach()}

    engine = Engine(TrainStep.of_modules(loss, guide), "auto", num_steps=steps)
    device = next(guide.parameters()).device
    optimiser = torch.optim.Adam(guide.parameters(), lr, fused=True)
    for number in range(steps):
        index = torch.randint(len(x), (min(batch_size, len(x)),), device=x.device)
        batch = x[index].to(device, non_blocking=True)
        engine.take(batch, number=number, compare=is_due(number))
        optimiser.step()
