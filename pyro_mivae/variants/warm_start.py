"""An unsupervised start for categories, before any decoder is there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_mivae.information.regularized import RegularizedInformation


@torch.enable_grad()
def warm_start_categories(
    guide: nn.Module,
    x: Tensor,
    site: str = "c",
    *,
    steps: int,
    restarts: int = 1,
    batch_size: int = 256,
    lr: float = 1e-3,
) -> None:
    r"""Trains :math:`q(c \mid x)` alone, to maximise `RegularizedInformation`.

    Of several starts the one is kept that ends with the best value of what it maximises; no label
    takes part. The first goes from the guide's present weights, the others from new ones.

    Args:
        guide: A guide whose site is a category given the data.
        x: Data, shape ``(n, *data_shape)``.
        site: The category.
        steps: Number of training steps of each start.
        restarts: Number of starts.
        batch_size: Data per step, drawn with replacement.
        lr: Learning rate of Adam.
    """
    term = RegularizedInformation(site)
    best: tuple[float, dict[str, Tensor]] | None = None
    for start in range(restarts):
        if start:
            guide.apply(_redraw)
        value = _maximise(term, guide, x, steps, batch_size, lr)
        if best is None or value > best[0]:
            best = value, {name: t.clone() for name, t in guide.state_dict().items()}
    if best is not None and restarts > 1:
        guide.load_state_dict(best[1])


def _redraw(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()


def _maximise(
    term: RegularizedInformation,
    guide: nn.Module,
    x: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
) -> float:
    """Trains one start and returns its mean value over the last tenth of the steps."""
    optimiser = torch.optim.Adam(guide.parameters(), lr)
    final = torch.zeros((), device=x.device)
    averaged = max(1, steps // 10)
    for step in range(steps):
        batch = x[torch.randint(len(x), (min(batch_size, len(x)),), device=x.device)]
        value = term.per_datum(guide, batch)
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
        if step >= steps - averaged:
            final += value.detach() / averaged
    return float(final)
