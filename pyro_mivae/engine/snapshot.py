"""Tensors and random numbers that are restored after a trial."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


class Snapshot:
    """Copies of tensors and random numbers."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.tensors, self.device = list(tensors), device
        self.values = [tensor.detach().clone() for tensor in tensors]
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._noise = rng_state(device)

    def now(self) -> Snapshot:
        """Returns a new snapshot of the same tensors."""
        return Snapshot(self.tensors, self.device)

    @torch.no_grad()
    def restore(self) -> None:
        """Restores everything in place."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        set_rng_state(self._noise, self.device)
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.detach().copy_(value)


@contextmanager
def preserved(tensors: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Restores random numbers and tensors afterwards."""
    before = Snapshot(tensors, device)
    try:
        yield
    finally:
        before.restore()


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Returns the state of torch's global random numbers, and of the device's."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Sets torch's global random numbers, and the device's if they are of its kind."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
