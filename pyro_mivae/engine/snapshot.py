"""Tensors and random numbers that are restored after a trial."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
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
        self._noise = noise_state(device)

    def now(self) -> Snapshot:
        """Returns a new snapshot of the same tensors."""
        return Snapshot(self.tensors, self.device)

    @torch.no_grad()
    def restore(self) -> None:
        """Restores everything in place."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._noise[0])
        for state in self._noise[1:]:
            torch.cuda.set_rng_state(state, self.device)
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


def noise_state(device: torch.device) -> tuple[Tensor, ...]:
    """Returns the state of torch's generators, the CPU's and a CUDA device's."""
    state = torch.get_rng_state()
    return (state, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (state,)
