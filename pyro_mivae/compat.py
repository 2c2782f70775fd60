"""Private names of torch and Pyro, each behind one small function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from inspect import unwrap
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_unflatten as tree_unflatten


class DispatchMode(TorchDispatchMode):
    """A mode that does not import torch's compiler, see `Adam`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Adam(torch.optim.Adam):
    """Adam without the decorators that import torch's compiler, which takes seconds."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)


BatchNorm = batchnorm._BatchNorm  # batch norm of every dimension, which has no public name


def schema_of(target: Any) -> Any:
    """The schema of a dispatched operation, or None: fx has no public class for it."""
    return target._schema if isinstance(target, torch._ops.OpOverload) else None


def decompositions(operations: Sequence[Any]) -> dict[Any, Callable[..., Any]]:
    """Decompositions for ``make_fx``; torch documents no public table of them."""
    from torch._decomp import get_decompositions

    table: dict[Any, Callable[..., Any]] = get_decompositions(operations)
    return table


def copy_all(targets: Sequence[Tensor], values: Sequence[Tensor], **options: Any) -> None:
    """Copies many tensors in one launch; no public function does."""
    torch._foreach_copy_(list(targets), list(values), **options)


def zero_all(tensors: Sequence[Tensor]) -> None:
    """Sets many tensors to zero in one launch; no public function does."""
    torch._foreach_zero_(list(tensors))


def storage_id(tensor: Tensor) -> int:
    """Identity of a tensor's storage; ``data_ptr`` is 0 for every empty one."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


def version_of(tensor: Tensor) -> int:
    """Number of in-place changes of a tensor, as autograd counts them."""
    return tensor._version


def has_gradient_hooks(parameter: Tensor) -> bool:
    """True if a hook acts on a parameter's accumulated gradient; torch has no public list."""
    return bool(parameter._post_accumulate_grad_hooks)


def has_step_hooks(optimiser: torch.optim.Optimizer) -> bool:
    """True if an optimiser's step has hooks; torch has no public list."""
    return bool(optimiser._optimizer_step_pre_hooks or optimiser._optimizer_step_post_hooks)


def is_erased(node: torch.fx.Node) -> bool:
    """True if a node is no longer in its graph: erasing a node may erase others."""
    return bool(node._erased)


def end_capture_pool(device_index: int, pool: tuple[int, int]) -> None:
    """Ends a capture's claim on new memory, which torch keeps after a failed capture.

    With that claim no memory can be returned to the device.
    """
    with suppress(RuntimeError):  # there is none
        torch._C._cuda_endAllocateToPool(device_index, pool)


def members_of(module: nn.Module) -> list[Mapping[str, Any]]:
    """A module's own dicts of parameters, buffers and modules; none if TorchScript keeps them."""
    tables = (module._parameters, module._buffers, module._modules)
    return [table for table in tables if isinstance(table, dict)]


def stored_parameters() -> Mapping[str, Tensor]:
    """Unconstrained parameters of Pyro's store by name; public access gives constrained ones."""
    stored: Mapping[str, Tensor] = pyro.get_param_store()._params
    return stored


def mask_of(distribution: Any) -> Any:
    """Mask of a ``MaskedDistribution``, a private attribute."""
    return distribution._mask


def with_logits(fn: Any, logits: Tensor) -> Any:
    """Copies a categorical distribution with other log-probabilities, which sum to 1 already."""
    copied = fn.expand(fn.batch_shape)
    base = getattr(copied, "_categorical", copied)
    base.logits = logits
    vars(base).pop("probs", None)
    return copied


def validates_distributions() -> bool:
    """True if torch checks the arguments of distributions by default."""
    return torch.distributions.Distribution._validate_args


def name_module(module: Any, name: str) -> None:
    """Sets the name under which a PyroModule's parameters go into the store."""
    module._pyro_name = name


def name_of(module: Any) -> str:
    """Name under which a PyroModule's parameters go into the store."""
    return str(module._pyro_name)


@contextmanager
def enumeration_kept() -> Iterator[None]:
    """Restores the dimensions that Pyro gave to enumerated sites, after a nested run."""
    from pyro.poutine.runtime import _ENUM_ALLOCATOR

    state = dict(vars(_ENUM_ALLOCATOR))
    try:
        yield
    finally:
        vars(_ENUM_ALLOCATOR).update(state)


def is_collective(target: Any) -> bool:
    """True if an operation exchanges tensors with other processes."""
    return getattr(target, "namespace", "") == "_c10d_functional"


def all_reduce(value: Tensor) -> Tensor:
    """Sum of a tensor over the process group, as an operation that a graph can hold."""
    operations, group = torch.ops._c10d_functional, torch.distributed.group.WORLD
    assert group is not None
    summed = operations.all_reduce(value.contiguous(), "sum", group.group_name)
    reduced: Tensor = operations.wait_tensor(summed)
    return reduced
