"""The training loop that goes with a hand-written loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def make_adam(vae: Any) -> torch.optim.Adam:
    """Makes a fused Adam with the variant's own learning rate for each part."""
    groups = [{"params": [p], **vae.optim_args(name)} for name, p in vae.named_parameters()]
    merged: dict[str, dict[str, Any]] = {}
    for group in groups:
        options = str({k: v for k, v in group.items() if k != "params"})
        merged.setdefault(options, {**group, "params": []})["params"] += group["params"]
    return torch.optim.Adam(list(merged.values()), fused=True)


def train(
    loss: Callable[[Tensor], Tensor], optimiser: torch.optim.Optimizer, x: Tensor, batch_size: int
) -> float:
    """Trains for one epoch on images that are on the device, and returns the mean loss."""
    total = torch.zeros((), device=x.device)
    batches = torch.randperm(len(x), device=x.device).split(batch_size)
    for index in batches:
        optimiser.zero_grad(set_to_none=True)
        value = loss(x[index])
        value.backward()
        optimiser.step()
        total += value.detach()
    return float(total) / len(batches)
