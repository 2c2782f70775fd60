"""Evaluation that restores random generators, parameters and modes of modules afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_mivae.sites import fixed_seed

SALT = 1_640_531_527  # added to seeds: data that a user drew from the same one are not drawn again
Runnable = Callable[..., Any] | nn.Module


@contextmanager
def preserved_state(seed: int, *programs: Runnable, device: torch.device) -> Iterator[None]:
    """Evaluates without gradients, in evaluation mode, with a given seed.

    Afterwards it restores torch's generators of the CPU and the device, each module's mode, and
    Pyro's parameter store.
    """
    store = pyro.get_param_store()
    with (
        seeded(seed, device),
        store.scope(store.get_state()),
        torch.no_grad(),
        evaluation_mode(*programs),
    ):
        yield


def seeded(seed: int, device: torch.device) -> AbstractContextManager[None]:
    """Seeds torch's generators of the CPU and of a device, and restores them afterwards."""
    return fixed_seed(device, seed=seed + SALT)


@contextmanager
def evaluation_mode(*programs: Runnable) -> Iterator[None]:
    """Puts modules in evaluation mode, and restores their modes afterwards.

    Programs that are modules or methods of modules change at once. Any other module, such as one
    that a plain function calls, changes when it is called.
    """
    changed: list[nn.Module] = []

    def evaluate(module: nn.Module | None, *_: Any) -> None:
        if module is not None:
            changed.extend(part for part in module.modules() if part.training)
            module.eval()

    try:
        for program in programs:
            evaluate(_module_of(program))
        with register_module_forward_pre_hook(lambda m, _: evaluate(m) if m.training else None):
            yield
    finally:
        for module in changed:
            module.training = True


def device_of(x: Tensor, *programs: Runnable) -> torch.device:
    """Returns the device of the programs' parameters, or of the data where they have none."""
    for program in programs:
        module = _module_of(program)
        for tensor in () if module is None else (*module.parameters(), *module.buffers()):
            return tensor.device
    return x.device


def _module_of(program: Runnable) -> nn.Module | None:
    inner = unwrap(program)
    owner = getattr(inner, "__self__", inner)
    return owner if isinstance(owner, nn.Module) else None
