"""Traced steps: one run of a program becomes a graph of tensor operations, without Pyro."""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pyro_mivae.compat import decompositions, has_gradient_hooks
from pyro_mivae.engine.constant_folding import hold_constants, spell_out
from pyro_mivae.engine.fallback import first_cause
from pyro_mivae.engine.fusion import fuse_rounding
from pyro_mivae.engine.guards import Guards
from pyro_mivae.engine.rewriting import simplify
from pyro_mivae.engine.snapshot import Snapshot, preserved
from pyro_mivae.engine.tape import Tape
from pyro_mivae.errors import StagingError

aten = torch.ops.aten
Loss = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]
"""Function from data to a scalar and the ledger: 0-dimensional tensors without gradient."""


@dataclass
class TrainStep:
    """A loss with its parameters and buffers."""

    loss: Loss
    parameters: Sequence[Tensor]  # leaves that the gradient is taken by
    buffers: Sequence[Tensor]  # read, and maybe changed in place
    modules: Sequence[nn.Module]
    name: tuple[str, str] = ("training step", "step")  # in warnings, with the unit of numbers
    guards: Guards = field(init=False)
    entries: tuple[str, ...] = field(init=False, default=())  # of the last step's ledger

    def __post_init__(self) -> None:
        self.guards = Guards(*self.modules)

    @classmethod
    def of_modules(cls, loss: Loss, *modules: nn.Module) -> TrainStep:
        """Makes a step that trains all parameters of some modules, except frozen ones."""
        parameters = unique(p for module in modules for p in module.parameters())
        buffers = unique(b for module in modules for b in module.buffers())
        return cls(
            loss,
            [p for p in parameters if p.requires_grad],
            [p for p in parameters if not p.requires_grad] + buffers,
            [part for module in modules for part in module.modules()],
        )

    @property
    def state(self) -> list[Tensor]:
        """All parameters, then all buffers."""
        return [*self.parameters, *self.buffers]

    def state_of_python(self) -> tuple[Any, ...]:
        """Returns the state that a graph depends on: trained parameters and Python's values."""
        trained = tuple(parameter.requires_grad for parameter in self.parameters)
        return trained, self.guards.read()

    def __call__(self, *args: Tensor) -> Tensor:
        """Runs the program, sets the parameters' gradients, and returns the ledger."""
        for parameter in self.parameters:
            parameter.grad = None
        loss, ledger = self.loss(*args)
        if self.parameters:
            loss.backward()
        self.entries = tuple(ledger)
        return torch.stack(list(ledger.values()))


@dataclass(frozen=True)
class TracedStep:
    """One step of a program as a graph."""

    graph: GraphModule  # from data and inputs to the ledger, one vector, and a gradient per leaf
    inputs: tuple[Tensor, ...]  # parameters, buffers, and other tensors that the program read
    leaves: tuple[Tensor, ...]
    entries: tuple[str, ...]
    written: tuple[Tensor, ...]  # inputs that are changed in place
    changes_data: bool

    @torch.no_grad()
    def __call__(self, *data: Tensor, run: Any = None) -> tuple[Tensor, list[Tensor]]:
        """Evaluates the step, compiled if given; changes inputs that it writes to."""
        graph = self.graph if run is None else run  # a compiled one has no truth value
        values, *gradients = graph(*data, *self.inputs)
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
        """Returns a graph for a compiler, with explicit in-place changes."""
        from torch.fx.experimental.proxy_tensor import make_fx

        table = decompositions([aten.native_batch_norm, aten.cudnn_batch_norm])
        run = deepcopy(self.graph)
        spell_out(run)
        run.recompile()
        with preserved(self.changed(*data), data[0].device), torch.no_grad():
            return make_fx(run, decomposition_table=table)(*data, *self.inputs)


@dataclass(frozen=True)
class TracedRun:
    """One real run of a program, and its graph."""

    ledger: dict[str, Tensor]
    gradients: dict[Tensor, Tensor]
    traced: TracedStep | None
    reason: str = ""  # reason that there is no graph


def trace_run(
    loss: Loss,
    data: Sequence[Tensor],
    guards: Guards,
    leaves: Sequence[Tensor] | None = None,
    buffers: Sequence[Tensor] = (),
) -> TracedRun:
    """Runs a program once, with its gradient, and records every tensor operation.

    Python's numbers become constants of the graph: shapes, settings, and decisions based on them.
    Random numbers, buffers and the program's objects are as after one run. If it fails, random
    numbers and buffers are restored.
    """
    before = Snapshot(buffers, data[0].device)
    try:
        return _trace_run(loss, data, guards, leaves)
    except Exception as error:  # the program itself may have no trouble
        before.restore()
        raise StagingError(first_cause(error)) from error


def _trace_run(
    loss: Loss, data: Sequence[Tensor], guards: Guards, leaves: Sequence[Tensor] | None
) -> TracedRun:
    tape = Tape(data)
    watch, randomness = guards.begin(), _foreign_randomness()
    with pyro.validation_enabled(False), tape.running():
        value, entries = loss(*tape.data)
        ledger = {name: entry.detach() for name, entry in entries.items()}
        wanted = leaves_of(value) if leaves is None else list(leaves)
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
    given, written = set(map(id, tape.data)), tape.written()
    traced = TracedStep(
        graph,
        tuple(tape.externals),
        tuple(gradients),
        tuple(ledger),
        tuple(tensor for tensor in written if id(tensor) not in given),
        any(id(tensor) in given for tensor in written),
    )
    return TracedRun(ledger, gradients, traced)


def _own(gradients: Sequence[tuple[Tensor, Tensor]], others: Sequence[Tensor]) -> list[Tensor]:
    """Gives each gradient separate memory, with its parameter's layout.

    It may then change in place, and a fused optimiser, which reads memory in order, finds each
    number in its place. Autograd's own accumulation does the same.
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


def leaves_of(value: Tensor) -> list[Tensor]:
    """All leaf tensors in the autograd graph of a value."""
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


def _foreign_randomness() -> list[tuple[Any, bytes]]:
    """All generators of Python and NumPy with their states."""
    kinds = {random.Random, np.random.Generator, np.random.RandomState}
    found = [thing for thing in gc.get_objects() if type(thing) in kinds]
    found += [random, np.random]  # their own generators, which `gc.freeze` may hide
    return [(generator, _state_of(generator)) for generator in found]


def _state_of(generator: Any) -> bytes:
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    read = getattr(generator, "getstate", None) or generator.get_state
    return pickle.dumps(read())


def unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Returns each tensor once, in order."""
    return list({id(tensor): tensor for tensor in tensors}.values())
