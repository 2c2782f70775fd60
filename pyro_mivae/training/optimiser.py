"""Fused Adam with learning rates per part, and their schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pyro_mivae.compat import Adam
from pyro_mivae.errors import OptionError
from pyro_mivae.training.options import TrainingOptions

STANDARD_LR = 1e-3


def make_optimiser(vae: Any, options: TrainingOptions) -> torch.optim.Adam:
    """Makes a fused Adam with a parameter group for each distinct set of options."""
    groups: dict[tuple[tuple[str, Any], ...], list[nn.Parameter]] = {}
    for name, parameter in vae.named_parameters():
        if parameter.requires_grad:
            own = {"lr": STANDARD_LR, **vae.optim_args(name)}
            own["lr"] *= options.lr / STANDARD_LR
            groups.setdefault(tuple(sorted(own.items())), []).append(parameter)
    if not groups:
        raise OptionError(
            f"every parameter of {type(vae).__name__} is frozen: there is nothing to train; call "
            "requires_grad_(True) on those to train"
        )
    return Adam(
        [
            {"params": parameters, **dict(key), "initial_lr": dict(key)["lr"]}
            for key, parameters in groups.items()
        ],
        weight_decay=options.weight_decay,
        decoupled_weight_decay=True,
        fused=True,
    )


def scheduled_lr(initial: float, schedule: str, total: int, step: int) -> float:
    """Returns the learning rate of a step.

    Example:
        >>> [round(scheduled_lr(1.0, "cosine", 4, step), 2) for step in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if schedule == "constant":
        return initial
    return initial * (0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0))))


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Makes learning rates tensors, and the optimiser capturable."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
        group["capturable"] = True


def portable_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns an optimiser's state in a form for any device and engine."""
    state = optimiser.state_dict()
    plain = [
        {**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]
    ]
    return {**state, "param_groups": plain}
