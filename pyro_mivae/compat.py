"""Private names of torch and Pyro, each behind one small function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_unflatten as tree_unflatten

BatchNorm = batchnorm._BatchNorm
"""Batch norm of every dimension, which has no public name."""


def schema_of(target: Any) -> Any:
    """The schema of a dispatched operation, None for anything else: fx names no public class."""
    return target._schema if isinstance(target, torch._ops.OpOverload) else None


def decompositions(operations: Sequence[Any]) -> dict[Any, Callable[..., Any]]:
    """Decompositions for ``make_fx``, which documents no public table."""
    from torch._decomp import get_decompositions

    table: dict[Any, Callable[..., Any]] = get_decompositions(operations)
    return table


def copy_all(targets: Sequence[Tensor], values: Sequence[Tensor], **options: Any) -> None:
    """Copies many tensors in one launch, which no public function does."""
    torch._foreach_copy_(list(targets), list(values), **options)


def zero_all(tensors: Sequence[Tensor]) -> None:
    """Sets many tensors to zero in one launch, which no public function does."""
    torch._foreach_zero_(list(tensors))


def storage_id(tensor: Tensor) -> int:
    """Identity of a tensor's storage; ``data_ptr`` is 0 for every empty one."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


def version_of(tensor: Tensor) -> int:
    """Number of changes in place of a tensor, which autograd counts."""
    return tensor._version


def has_gradient_hooks(parameter: Tensor) -> bool:
    """True if a hook acts on a parameter's accumulated gradient; torch lists them nowhere else."""
    return bool(parameter._post_accumulate_grad_hooks)


def has_step_hooks(optimiser: torch.optim.Optimizer) -> bool:
    """True if hooks surround an optimiser's step; torch lists them nowhere else."""
    return bool(optimiser._optimizer_step_pre_hooks or optimiser._optimizer_step_post_hooks)


def is_erased(node: torch.fx.Node) -> bool:
    """True if a node is no longer in its graph: nodes that follow may go with one."""
    return bool(node._erased)


def end_capture_pool(device_index: int, pool: tuple[int, int]) -> None:
    """Ends a capture's claim on new memory, which torch leaves standing where a capture fails.

    While it stands no memory can be given back to the device.
    """
    with suppress(RuntimeError):  # there is none
        torch._C._cuda_endAllocateToPool(device_index, pool)


def members_of(module: nn.Module) -> list[Mapping[str, Any]]:
    """Live tables of a module's parameters, buffers and modules; TorchScript's are no dicts."""
    tables = (module._parameters, module._buffers, module._modules)
    return [table for table in tables if isinstance(table, dict)]


def stored_parameters() -> Mapping[str, Tensor]:
    """Unconstrained parameters of Pyro's store by name; its public access constrains each."""
    stored: Mapping[str, Tensor] = pyro.get_param_store()._params
    return stored


def mask_of(distribution: Any) -> Any:
    """Mask of a ``MaskedDistribution``, which keeps it to itself."""
    return distribution._mask


def name_module(module: Any, name: str) -> None:
    """Sets the name under which a PyroModule's parameters go into the store."""
    module._pyro_name = name


def name_of(module: Any) -> str:
    """Name under which a PyroModule's parameters go into the store."""
    return str(module._pyro_name)
