"""Stages a program: forward and backward become one graph of tensor operations, without Pyro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_mivae.engine.constants import hold_constants
from pyro_mivae.engine.nodes import changed
from pyro_mivae.engine.program import Program
from pyro_mivae.engine.reasons import first_cause
from pyro_mivae.engine.simplify import simplify
from pyro_mivae.errors import StagingError

aten = torch.ops.aten
TOLERANCE = 1e-3
"""How far a staged step may be from the eager one on the same noise, relative to its size."""


@dataclass(frozen=True)
class Staged:
    """One step of a program as a graph.

    Attributes:
        graph: Called with the parameters, the buffers and the data, in this order and one by
            one; gives the entries of the ledger as one vector, and the gradients that there are.
            Buffers are changed in place.
        entries: Names of the entries.
        used: Which parameters have a gradient.
    """

    graph: torch.fx.GraphModule
    entries: tuple[str, ...]
    used: tuple[int, ...]


def stage(program: Program, *args: Tensor, decompose: bool = False) -> Staged:
    """Runs a program once and writes down every tensor operation of its step.

    Whatever is no tensor is a constant of the graph: shapes, numbers, and what the program
    decided upon them. So a graph serves data of one shape, and a program whose structure does not
    depend on the values of tensors. Random numbers, buffers and settings are left as they were.

    Args:
        program: The program. What it reads from tensors that are neither parameters nor buffers
            is read from these very tensors later.
        *args: Data of the shape that the graph is for, in their type, on their device.
        decompose: Whether operations that change a buffer without saying so (batch norm) are
            taken apart, as compiling the graph needs; run as it is, the graph is
            faster with them whole.

    Returns:
        The graph.

    Raises:
        StagingError: If the program reads the value of a tensor, or cannot be written down for
            another reason; or if the graph does not do what the program does.
    """
    from torch._decomp import get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    state = program.state
    entries: list[str] = []
    used: list[int] = []

    def step(*tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
        data = tensors[len(state) :]
        with _Traceable():
            ledger, gradients = program.gradients(*data)
        entries[:] = ledger
        used[:] = [index for index, gradient in enumerate(gradients) if gradient is not None]
        return torch.stack(list(ledger.values())), _own(gradients, program.parameters, tensors)

    hidden = [aten.native_batch_norm, aten.cudnn_batch_norm] if decompose else []
    table: dict[Any, Callable[..., Any]] = get_decompositions(hidden)
    table[aten.multinomial.default] = _multinomial
    with program.trial(args[0].device), pyro.validation_enabled(False):
        settings = program.settings.read()
        try:
            # a tensor that is given twice, or is a buffer too, need not be so in other steps
            data = [arg.detach() for arg in args]
            graph = make_fx(step, decomposition_table=table)(*state, *data)
        except Exception as error:
            raise StagingError(_reason(error)) from error
        if changing := program.settings.changed(settings):
            raise StagingError(
                f"it changes a number of its own as it runs ({', '.join(changing)}); count in a "
                "buffer of a module"
            )
    _check_writes(graph.graph)
    hold_constants(graph, literals_alone=decompose)
    if not decompose:
        simplify(graph)
    staged = Staged(graph, tuple(entries), tuple(used))
    _verify(program, staged, args)
    return staged


def _own(
    gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], others: Sequence[Tensor]
) -> list[Tensor]:
    """Gives each gradient memory of its own, laid out as its parameter's.

    So it may be changed in place, and a fused optimiser, which reads memory from end to end,
    finds each number where it looks for it. Autograd's own accumulation does the same.
    """
    owned: list[Tensor] = []
    taken = {tensor.untyped_storage().data_ptr() for tensor in others}
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is None:
            continue
        memory = gradient.untyped_storage().data_ptr()
        if memory in taken or gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        taken.add(memory)
        owned.append(gradient)
    return owned


class _Traceable(TorchFunctionMode):
    """Replaces functions that look at values only to check them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(index: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise StagingError("one_hot without num_classes takes its shape from the data's values")
    return (index.unsqueeze(-1) == torch.arange(num_classes, device=index.device)).long()


def _multinomial(
    probs: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Draws as torch does, the same values from the same random numbers, without checks."""
    if num_samples != 1:
        return NotImplemented
    race = torch.empty_like(probs).exponential_(1.0, generator=generator)
    return (probs / race).argmax(-1, keepdim=True)


def _check_writes(graph: torch.fx.Graph) -> None:
    """Checks that only what the program declares is changed from step to step.

    Raises:
        StagingError: If a tensor is that is neither parameter nor buffer.
    """
    for node in graph.nodes:
        if any(isinstance(v, torch.fx.Node) and v.op == "get_attr" for v in changed(node)):
            raise StagingError(
                "it changes a tensor that belongs to no module it knows, as the statistics of a "
                "batch norm do; let model and guide be modules that hold all that they call"
            )


def _verify(program: Program, staged: Staged, args: tuple[Tensor, ...]) -> None:
    """Compares the graph with the program on data and noise that it was not written down with.

    Raises:
        StagingError: If they differ.
    """
    device, size = args[0].device, next((len(arg) for arg in args if arg.dim()), 0)
    half = torch.arange(size, device=device) // 2
    others = tuple(
        arg[half.to(arg.device)] if arg.shape[:1] == half.shape else arg for arg in args
    )
    with pyro.validation_enabled(False):
        try:
            ledger, gradients = _with_other_noise(program, device, others)
        except Exception:  # such data may be none that the program takes
            others = tuple(args)
            ledger, gradients = _with_other_noise(program, device, others)
    with program.trial(device), torch.no_grad():
        _draw_other_noise(device)
        values, found = staged.graph(*program.state, *others)
    told = "its structure is not the same in every step"
    if tuple(ledger) != staged.entries:
        raise StagingError(f"it notes {list(ledger)}, and {list(staged.entries)} before: {told}")
    for name, wanted, value in zip(ledger, ledger.values(), values, strict=True):
        if not torch.allclose(value, wanted.to(value), TOLERANCE, TOLERANCE, equal_nan=True):
            raise StagingError(
                f"{name} is {float(wanted):g}, and {float(value):g} by the graph: {told}"
            )
    exact = [gradient for gradient in gradients if gradient is not None]
    error, size = (
        torch.stack([tensor.norm() for tensor in tensors]).norm()
        for tensors in ([a - b for a, b in zip(exact, found, strict=True)], exact)
    )
    if error > 10 * TOLERANCE * size:
        raise StagingError(f"its gradient is another by the graph: {told}")


def _with_other_noise(
    program: Program, device: torch.device, args: Sequence[Tensor]
) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...]]:
    with program.trial(device):
        _draw_other_noise(device)
        return program.gradients(*args)


def _draw_other_noise(device: torch.device) -> None:
    torch.rand(1, device=device)


def _reason(error: BaseException) -> str:
    cause = first_cause(error)
    if "get value out of a tracing tensor" in cause:
        return "it reads the value of a tensor (.item(), bool(), int() or a loop over values)"
    return cause
