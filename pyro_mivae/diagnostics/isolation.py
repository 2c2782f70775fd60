"""Running a model and a guide without a trace: random numbers, parameters and modes stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn


@contextmanager
def isolated(
    seed: int, *programs: Callable[..., Any] | nn.Module, device: torch.device
) -> Iterator[None]:
    """Evaluates under a seed of its own and leaves everything as it was.

    Inside, gradients are off, modules are in evaluation mode, and torch's generators of the CPU
    and of the device start at the seed. Afterwards the generators, each module's mode and Pyro's
    parameter store are what they were before.

    Args:
        seed: Seed of torch's global generators.
        *programs: Modules, or methods of modules. A plain function's modules cannot be found;
            their mode is left alone.
        device: Where the programs run.

    Yields:
        Nothing.
    """
    modules = [m for program in programs if (m := _module_of(program)) is not None]
    modes = {module: module.training for root in modules for module in root.modules()}
    on_cuda = device.type == "cuda"
    store = pyro.get_param_store()
    with (
        torch.random.fork_rng(devices=[device] if on_cuda else []),
        store.scope(store.get_state()),
        torch.no_grad(),
    ):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        for root in modules:
            root.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def device_of(x: Tensor, *programs: Callable[..., Any] | nn.Module) -> torch.device:
    """Returns the device of the programs' parameters, or of the data where they have none."""
    for program in programs:
        module = _module_of(program)
        if module is not None:
            for tensor in (*module.parameters(), *module.buffers()):
                return tensor.device
    return x.device


def _module_of(program: Callable[..., Any] | nn.Module) -> nn.Module | None:
    owner = getattr(program, "__self__", program)
    return owner if isinstance(owner, nn.Module) else None
