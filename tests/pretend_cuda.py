"""A pretended CUDA device: every operation runs on the CPU, every storage has a place.

Values are real. Operations that CUDA refuses raise: operands on two devices, generators of the
CPU for draws on the device, ``numpy()`` of a tensor on the device. Operations for which the host
waits are counted.

    with pretend_cuda() as cuda:
        vae.to("cuda")
        cuda.waits  # Counter of (operation, file:line)
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_mivae

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
PACKAGE = str(Path(pyro_mivae.__file__).parent)

LITERALS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)
INDEXING = (
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)
BETWEEN_DEVICES = (aten.copy_.default, aten.set_.source_Tensor, *INDEXING)
"""Operations whose result is on the device of the first operand."""

WAITING = (
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
)
"""Operations that return a number, or a shape that depends on values."""

FACTORIES = (
    "arange as_tensor asarray empty empty_like empty_strided eye full full_like linspace logspace "
    "normal ones ones_like rand rand_like randint randint_like randn randn_like randperm "
    "scalar_tensor tensor tril_indices triu_indices zeros zeros_like"
).split()
METHODS = "new new_empty new_empty_strided new_full new_ones new_tensor new_zeros".split()


class Refused(RuntimeError):
    """Raised where CUDA raises."""


class PretendedCuda(TorchDispatchMode):
    """Keeps the place of every storage, and follows it through operations.

    A place is ``"cpu"``, ``"cuda"``, or ``"either"``: autograd and graphs make tensors for which
    nobody named a device, which go with both.

    Attributes:
        waits: Number of times that the host waited, by operation and by line of the package.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._places: dict[int, tuple[StorageWeakRef, str]] = {}  # those that are not "cpu"
        self._wanted: list[str] = []  # the places that Python asks its factories for

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would cost each operation more than the rest of the pretence

    def place(self, tensor: Tensor) -> str:
        """Returns where a tensor is."""
        with torch._C.DisableTorchFunction():  # a tape must not see that memory is looked at
            return self._place(tensor)

    def put(self, tensor: Tensor, place: str) -> Tensor:
        """Says where a tensor is."""
        with torch._C.DisableTorchFunction():
            self._put(tensor, place)
        return tensor

    def _place(self, tensor: Tensor) -> str:
        found = self._places.get(tensor.untyped_storage()._cdata)
        return "cpu" if found is None else found[1]

    def _put(self, tensor: Tensor, place: str) -> None:
        storage = tensor.untyped_storage()
        if place == "cpu":
            self._places.pop(storage._cdata, None)
            return
        self._places[storage._cdata] = StorageWeakRef(storage), place
        if len(self._places) % 10_000 == 0:
            alive = {key: kept for key, kept in self._places.items() if not kept[0].expired()}
            self._places = alive

    def note_wait(self, operation: str) -> None:
        """Counts an operation for which the host waits."""
        self.waits[operation, where()] += 1

    @contextmanager
    def asked_for(self, place: str) -> Iterator[None]:
        """Puts new tensors at a place."""
        self._wanted.append(place)
        try:
            yield
        finally:
            self._wanted.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tensors_in(args)
        if kwargs:
            given += tensors_in(kwargs.values())
        known = [tensor.untyped_storage()._cdata for tensor in given]
        places = [self._places[key][1] if key in self._places else "cpu" for key in known]
        if "cuda" in places:
            self._check(func, args, kwargs, given, places)
        result = func(*args, **kwargs)
        place = self._place_of_result(func, places)
        for made in (result,) if isinstance(result, Tensor) else tensors_in((result,)):
            fresh = made.untyped_storage()._cdata not in known
            fresh = fresh and not any(made is tensor for tensor in given)  # set_ changes storages
            if fresh or (place == "cuda" and self._place(made) == "either"):
                self._put(made, place)
        return result

    def _place_of_result(self, func: Any, places: Sequence[str]) -> str:
        if func in BETWEEN_DEVICES and places[0] != "either":
            return places[0]
        if "cuda" in places:
            return "cuda"
        if places and func not in LITERALS:
            return "cpu" if "cpu" in places else "either"
        return self._wanted[-1] if self._wanted else "either"

    def _check(
        self, func: Any, args: Any, kwargs: Any, given: list[Tensor], places: list[str]
    ) -> None:
        """Refuses what CUDA refuses, and counts what waits. An operand is on the device."""
        if kwargs.get("generator") is not None:
            raise Refused(f"expected a 'cuda' generator, found 'cpu': {func} at {where()}")
        if func in WAITING:
            self.note_wait(str(func))
        if func in INDEXING:
            self._check_index(func, args, places)
        elif func is aten.copy_.default:
            waits = places[0] == "cpu" or not (len(args) > 2 and args[2])
            if "cpu" in places and waits:
                self.note_wait(f"copy_ from {places[1]} to {places[0]}")
        elif func not in BETWEEN_DEVICES:
            fused = func._schema.name.startswith("aten::_fused_")
            rate = kwargs.get("lr") if fused else None
            mixed = [
                tensor
                for tensor, place in zip(given, places, strict=True)
                if place == "cpu" and (fused or tensor.dim()) and tensor is not rate
            ]
            if mixed:
                shapes = ", ".join(str(tuple(tensor.shape)) for tensor in mixed)
                raise Refused(
                    "expected all tensors to be on the same device: those of shape "
                    f"{shapes} are on the CPU for {func} at {where()}"
                )

    def _check_index(self, func: Any, args: Any, places: list[str]) -> None:
        if places[0] == "cpu":
            raise Refused(f"indices of a tensor on the CPU are on the device: {func} at {where()}")
        indices = [index for index in args[1] if isinstance(index, Tensor)]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.note_wait("index by a mask")
        elif any(self._place(index) == "cpu" for index in indices):
            self.note_wait("index from the CPU")


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Returns the tensors among an operation's arguments or results, those in lists too."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors_in(value)
    return found


def where() -> str:
    """Returns the innermost line of the package that runs."""
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "outside"
    return f"{frame.f_code.co_filename.removeprefix(PACKAGE)[1:]}:{frame.f_lineno}"


def place_of(device: Any) -> str:
    """Returns the place that a device's name stands for; that of torch's meta device is the CPU.

    Raises:
        RuntimeError: If there is no such device.
    """
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda" and device.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return "cuda" if device.type == "cuda" else "cpu"


@contextmanager
def pretend_cuda() -> Iterator[PretendedCuda]:
    """Pretends that there is one CUDA device."""
    _device_constructors()  # torch remembers the functions that it finds at the first call
    mode = PretendedCuda()
    with ExitStack() as patches:
        for owner, names in ((torch, FACTORIES), (Tensor, METHODS)):
            for name in names:
                wrapped = _factory(mode, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, wrapped))
        for owner, replaced in (
            (Tensor, _methods(mode)),
            (torch.cuda, _cuda_module(mode)),
            (torch.nn.functional, {"one_hot": _one_hot(torch.nn.functional.one_hot)}),
            (torch._C, {"_group_tensors_by_device_and_dtype": _grouping(mode)}),
            (torch.optim.Optimizer, _health_checks()),
        ):
            for name, value in replaced.items():
                patches.enter_context(patch.object(owner, name, value))
        with mode:
            yield mode


def _factory(mode: PretendedCuda, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Puts what a function makes on the device that is asked for, or that of its first tensor."""

    def wrapped(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        like = args[0] if args and isinstance(args[0], Tensor) else None
        place = "cpu" if like is None else mode.place(like)
        if device is not None:
            place = place_of(device)
            if make.__name__ in ("as_tensor", "asarray") and like is not None:
                return make(like.to(device), *args[1:], **kwargs)
            kwargs["device"] = CPU if place == "cuda" else device
        if kwargs.get("generator") is not None and place == "cuda":
            raise Refused(f"expected a 'cuda' generator, found 'cpu', at {where()}")
        kwargs.pop("pin_memory", None)
        with mode.asked_for(place):
            result = make(*args, **kwargs)
        if place == "cuda" and like is None and make.__name__ in ("tensor", "as_tensor"):
            mode.note_wait("torch.tensor on the device")
        return result if "out" in kwargs else mode.put(result, place)

    return wrapped


def _methods(mode: PretendedCuda) -> dict[str, Any]:
    """Methods of tensors that tell, or change, where a tensor is, or leave torch."""
    real: dict[str, Any] = {
        name: getattr(Tensor, name) for name in ("to", "numpy", "__array__", "tolist")
    }
    real_device, deepcopy = Tensor.device.__get__, Tensor.__deepcopy__

    def device(tensor: Tensor) -> torch.device:
        found: torch.device = real_device(tensor)
        return CUDA if found.type == "cpu" and mode.place(tensor) == "cuda" else found

    def to(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        target, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if target is not None and target.type == "meta":
            return real["to"](tensor, *args, copy=copy, **kwargs)
        here = mode.place(tensor)
        there = here if target is None else place_of(target)
        options = {} if layout is None else {"memory_format": layout}
        moves = here != there
        if moves and here != "either" and not (non_blocking and there == "cuda"):
            mode.note_wait(f"to: {here} to {there}")
        moved = real["to"](tensor, dtype=dtype or tensor.dtype, copy=copy or moves, **options)
        return mode.put(moved, there)

    def leaves(name: str) -> Callable[..., Any]:
        def wrapped(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if mode.place(tensor) == "cuda":
                if name != "tolist":
                    raise Refused(f"{name} of a tensor on the device, at {where()}")
                mode.note_wait(name)
            return real[name](tensor, *args, **kwargs)

        return wrapped

    return {
        "device": property(device),
        "is_cuda": property(lambda tensor: device(tensor).type == "cuda"),
        "is_cpu": property(lambda tensor: device(tensor).type == "cpu"),
        "get_device": lambda tensor: 0 if device(tensor).type == "cuda" else -1,
        "to": to,
        "cuda": lambda tensor, *args, **kwargs: to(tensor, CUDA),
        "cpu": lambda tensor, *args, **kwargs: to(tensor, CPU),
        "pin_memory": lambda tensor, *args, **kwargs: tensor,
        "__deepcopy__": lambda tensor, memo: mode.put(deepcopy(tensor, memo), mode.place(tensor)),
        **{name: leaves(name) for name in ("numpy", "__array__", "tolist")},
    }


def _cuda_module(mode: PretendedCuda) -> dict[str, Any]:
    """Functions of ``torch.cuda``; the CPU's generator draws for the device too."""
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda *args: nullcontext(),
        "synchronize": lambda *args: mode.note_wait("synchronize"),
        "get_rng_state": lambda *args: torch.get_rng_state(),
        "set_rng_state": lambda *args: None,
        "manual_seed": lambda *args: None,
        "manual_seed_all": lambda *args: None,
        "mem_get_info": lambda *args: (139 << 30, 140 << 30),
        "is_current_stream_capturing": lambda: False,
        "_is_in_bad_fork": lambda: False,
    }


def _one_hot(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Looks at no index, as on CUDA."""

    def wrapped(index: Tensor, num_classes: int = -1) -> Tensor:
        if num_classes < 0:
            return real(index, num_classes)
        return (index.unsqueeze(-1) == torch.arange(num_classes, device=index.device)).long()

    return wrapped


def _grouping(mode: PretendedCuda) -> Callable[..., Any]:
    """Groups tensors for torch's optimisers by where they are."""
    real = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists: Any, with_indices: bool = False) -> Any:
        groups = real(lists, with_indices).items()
        return {
            (CUDA if mode.place(group[0][0][0]) == "cuda" else device, dtype): group
            for (device, dtype), group in groups
        }

    return grouped


def _health_checks() -> dict[str, Any]:
    """Checks of an optimiser that ask the driver whether a capture is under way."""
    names = ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check")
    return {name: lambda optimiser: None for name in names if hasattr(torch.optim.Optimizer, name)}
