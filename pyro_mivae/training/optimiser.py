"""The optimiser: fused Adam with learning rates per part, and their schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pyro_mivae.errors import OptionError

STANDARD_LR = 1e-3


def make_optimiser(vae: Any, lr: float) -> torch.optim.Adam:
    """Makes a fused Adam with a group of parameters for each distinct set of options."""
    groups: dict[tuple[tuple[str, Any], ...], list[nn.Parameter]] = {}
    for name, parameter in vae.named_parameters():
        if parameter.requires_grad:
            options = {"lr": STANDARD_LR, **vae.optim_args(name)}
            options["lr"] *= lr / STANDARD_LR
            groups.setdefault(tuple(sorted(options.items())), []).append(parameter)
    if not groups:
        raise OptionError(
            f"every parameter of {type(vae).__name__} is frozen, so that there is nothing to "
            "train; give those that are to be trained requires_grad_(True)"
        )
    return torch.optim.Adam(
        [
            {"params": parameters, **dict(key), "initial_lr": dict(key)["lr"]}
            for key, parameters in groups.items()
        ],
        fused=True,
    )


def schedule_factor(schedule: str, step: int, total: int) -> float:
    """Gives what all learning rates are multiplied by.

    Example:
        >>> [round(schedule_factor("cosine", step, 4), 2) for step in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))


def portable_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Gives an optimiser's state as it goes on any device, however steps are taken there."""
    state = optimiser.state_dict()
    plain = [
        {**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]
    ]
    return {**state, "param_groups": plain}


def set_learning_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets each group's learning rate to its initial one times a factor."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
