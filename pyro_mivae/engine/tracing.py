"""Traced steps: one run of a program becomes a graph of tensor operations, without Pyro."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_mivae.compat import decompositions, has_gradient_hooks
from pyro_mivae.engine.constant_folding import hold_constants, spell_out
from pyro_mivae.engine.fusion import fuse_rounding
from pyro_mivae.engine.guards import Guards
from pyro_mivae.engine.simplify import simplify
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.tape import Tape
from pyro_mivae.errors import StagingError

aten = torch.ops.aten
Loss = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class TracedStep:
    """One step of a program as a graph.

    Attributes:
        graph: Called with the data and the inputs; returns the entries of the ledger as one
            vector, then a gradient for each leaf.
        inputs: Every other tensor that the step reads: parameters, buffers, and what the program
            found elsewhere.
        leaves: Inputs that the gradient is taken by.
        entries: Names of the ledger's entries.
        written: Inputs that the step changes in place.
        changes_data: Whether it changes its data in place too.
    """

    graph: GraphModule
    inputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]
    entries: tuple[str, ...]
    written: tuple[Tensor, ...]
    changes_data: bool

    def __call__(self, *data: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluates the step; inputs that it writes to are changed."""
        with torch.no_grad():
            values, *gradients = self.graph(*data, *self.inputs)
        return values, gradients

    def changed(self, *data: Tensor) -> list[Tensor]:
        """Returns every tensor that a step on some data changes in place."""
        return [*self.written, *(data if self.changes_data else ())]

    def rebound(self, tensors: Mapping[Tensor, Tensor]) -> TracedStep:
        """Returns the same step of another model."""
        inputs, leaves, written = (
            tuple(tensors.get(tensor, tensor) for tensor in group)
            for group in (self.inputs, self.leaves, self.written)
        )
        return replace(self, inputs=inputs, leaves=leaves, written=written)

    def decomposed(self, *data: Tensor) -> GraphModule:
        """Returns a graph for a compiler, with every change in place in plain sight."""
        from torch.fx.experimental.proxy_tensor import make_fx

        table = decompositions([aten.native_batch_norm, aten.cudnn_batch_norm])
        run = deepcopy(self.graph)
        spell_out(run)
        run.recompile()
        with preserved(self.changed(*data), data[0].device), torch.no_grad():
            return make_fx(run, decomposition_table=table)(*data, *self.inputs)


@dataclass(frozen=True)
class TracedRun:
    """One real run of a program, and the graph that it became.

    Attributes:
        ledger: Entries of the ledger, without a gradient.
        gradients: The gradient by each leaf that has one.
        traced: The graph; None if the run cannot be one.
        reason: Why it cannot.
    """

    ledger: dict[str, Tensor]
    gradients: dict[Tensor, Tensor]
    traced: TracedStep | None
    reason: str = ""


def trace_run(
    loss: Loss, data: Sequence[Tensor], guards: Guards, leaves: Sequence[Tensor] | None = None
) -> TracedRun:
    """Runs a program once, with its gradient, and writes down every tensor operation.

    Numbers that Python holds become constants of the graph: shapes, settings, and what the
    program decided upon them. Nothing is undone: random numbers, buffers and the program's own
    objects are as one run leaves them.
    """
    tape = Tape(data)
    watch, randomness = guards.begin(), _foreign_randomness()
    with pyro.validation_enabled(False), tape.running():
        value, entries = loss(*tape.data)
        ledger = {name: entry.detach() for name, entry in entries.items()}
        wanted = _leaves(value) if leaves is None else list(leaves)
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if value.requires_grad and wanted:
            found = torch.autograd.grad(value, wanted, allow_unused=True)
        pairs = [(p, g) for p, g in zip(wanted, found, strict=True) if g is not None]
        values = torch.stack(list(ledger.values()))
        owned = _own(pairs, [*tape.data, *tape.externals])
    gradients = {p: g for (p, _), g in zip(pairs, owned, strict=True)}
    if reason := guards.unsafe(watch, tape.externals):
        tape.refuse(reason)
    if any(_state_of(generator) != state for generator, state in randomness):
        tape.refuse("it draws random numbers of Python or NumPy, and not of torch")
    if any(map(has_gradient_hooks, wanted)):
        tape.refuse("a parameter has a hook that acts on its accumulated gradient")
    try:
        graph = tape.graph([values, *owned])
    except StagingError as error:
        return TracedRun(ledger, gradients, None, str(error))
    hold_constants(graph)
    simplify(graph)
    if values.device.type != "cpu":  # where a launch costs more than the operation
        fuse_rounding(graph)
    graph.recompile()
    traced = TracedStep(
        graph,
        tuple(tape.externals),
        tuple(gradients),
        tuple(ledger),
        tuple(tape.written()),
        tape.changes_data(),
    )
    return TracedRun(ledger, gradients, traced)


def _own(gradients: Sequence[tuple[Tensor, Tensor]], others: Sequence[Tensor]) -> list[Tensor]:
    """Gives each gradient memory of its own, laid out as its parameter's.

    It may then be changed in place, and a fused optimiser, which reads memory from end to end,
    finds each number at its place. Autograd's own accumulation does the same.
    """
    owned: list[Tensor] = []
    taken = {tensor.data_ptr() for tensor in others}
    for parameter, gradient in gradients:
        memory = gradient.data_ptr()
        if memory in taken or gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        taken.add(memory)
        owned.append(gradient)
    return owned


def _leaves(value: Tensor) -> list[Tensor]:
    """Every leaf tensor that a value can be differentiated by."""
    found: dict[Tensor, None] = {}
    seen: set[Any] = {None}
    ahead: list[Any] = [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # it accumulates the gradient of a leaf
            found[node.variable] = None
        ahead += [earlier for earlier, _ in node.next_functions]
    return list(found)


def _foreign_randomness() -> list[tuple[Any, str]]:
    """Every generator of Python's and NumPy's that there is, and its state."""
    kinds = (random.Random, np.random.Generator, np.random.RandomState)
    found = [thing for thing in gc.get_objects() if type(thing) in kinds]
    return [(generator, _state_of(generator)) for generator in found]


def _state_of(generator: Any) -> str:
    if isinstance(generator, random.Random):
        return str(generator.getstate())
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    return str(generator.get_state())
