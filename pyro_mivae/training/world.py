"""The surroundings of a training: parameter store, random numbers and threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import nn

SMALL_STEP = 50_000_000  # parameters times images per step
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


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


@contextmanager
def suitable_threads(module: nn.Module, batch_size: int) -> Iterator[None]:
    """Computes small steps on one thread, and leaves the number of threads as it was.

    Threads that share a small step wait for each other most of the time. On a machine that is busy
    with something else, or a container with a share of its cores, they wait for a slice of time
    each: steps of a small network have been seen to take 200 times as long on two threads.
    """
    size = sum(parameter.numel() for parameter in module.parameters())
    convolves = any(isinstance(part, CONVOLUTIONS) for part in module.modules())
    before = torch.get_num_threads()
    if size * batch_size < SMALL_STEP and not convolves:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
