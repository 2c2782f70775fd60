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
    """
    with (
        torch.random.fork_rng(devices=cuda_devices(device)),
        pyro.get_param_store().scope(),
    ):
        yield


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Returns the CUDA devices that a seed may change, as ``torch.random.fork_rng`` takes them."""
    if torch.cuda.is_initialized():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device] if device.type == "cuda" else []
