"""Whether a hand-written loss is the variant's own: the same number, and the same gradient."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import patch

import pyro
import torch
from torch import Tensor, nn

SEED = 0


def check_equal(vae: Any, handwritten: type[nn.Module], x: Tensor, rtol: float = 1e-9) -> float:
    """Compares losses per datum and gradients on the same noise, in double precision.

    Both draw from the same seed in the same order. Of a category torch and Pyro draw by different
    means, so Pyro's takes the place of torch's.

    Args:
        vae: The variant; a copy is compared.
        handwritten: The hand-written loss.
        x: A batch of images.
        rtol: The largest difference allowed, relative to the size of each gradient.

    Returns:
        The largest difference.

    Raises:
        AssertionError: If they differ by more than that, naming where.
    """
    ours = copy.deepcopy(vae).double().train()
    x = x.double()
    parameters = dict(ours.named_parameters())
    state = copy.deepcopy(ours.state_dict())  # running statistics, which a pass changes

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        pairs = zip(parameters.values(), found, strict=True)
        return [torch.zeros_like(p) if g is None else g for p, g in pairs]

    with torch.random.fork_rng(), pyro.get_param_store().scope():
        torch.manual_seed(SEED)
        objective = ours.objective().to(x.device)
        loss = objective.differentiable_loss(ours.model, ours.guide, x) / len(x)
        exact = [loss.detach(), *gradients(loss)]
        ours.load_state_dict(state)
        torch.manual_seed(SEED)
        with patch("torch.randint", _draw_category):
            loss = handwritten(ours)(x)
        found = [loss.detach(), *gradients(loss)]
    worst = 0.0
    size = max(a.abs().max() for a in exact[1:])
    for name, a, b in zip(["the loss", *parameters], exact, found, strict=True):
        # A bias before batch norm has a gradient of 0, but for rounding.
        error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-3 * size))
        if not error <= rtol:
            raise AssertionError(
                f"{vae.name}: {name} differs from the hand-written one by {error:.1e} of its size"
            )
        worst = max(worst, error)
    return worst


def _draw_category(high: int, size: tuple[int, ...], *, device: Any = None) -> Tensor:
    return torch.full((*size, high), 1 / high, dtype=torch.double, device=device).multinomial(1)[
        :, 0
    ]
