"""The caller's parameter store and random numbers, kept out of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch


@contextmanager
def own_world(device: torch.device) -> Iterator[None]:
    """Keeps the caller's parameter store and random numbers out of training, and as they were.

    In a store of its own no other model's parameters can take the place of those of the same name.

    Args:
        device: The device that is trained on.
    """
    with (
        torch.random.fork_rng(devices=cuda_devices(device)),
        pyro.get_param_store().scope(),
    ):
        yield


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Returns the device if it is one of CUDA's, as ``torch.random.fork_rng`` takes it.

    Args:
        device: The device.
    """
    return [device] if device.type == "cuda" else []
