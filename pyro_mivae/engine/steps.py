"""Steps of a program in the requested mode: plain, traced, or compiled."""

from __future__ import annotations

import math
from collections.abc import Collection
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.node import map_arg

from pyro_mivae.engine.comparison import Gradients, Ledger, compared
from pyro_mivae.engine.fallback import first_cause, give_up, quiet, tell_difference
from pyro_mivae.engine.fx_utils import layout
from pyro_mivae.engine.precision import Precision, no_rounding, round_products
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.tracing import TracedStep, TrainStep, trace_run
from pyro_mivae.errors import StagingError
from pyro_mivae.ranks import current_shares

Mode = Literal["eager", "staged", "compiled"]
Taken = tuple[tuple[str, ...], Tensor]  # names and values of a ledger
# Relative difference to the graph by which a compiled step is wrong; 1e-2 in other types, whose
# rounding a kink (a ReLU at 0) makes large.
MISCOMPILED = {torch.float64: 1e-6}
WORTH_TRACING = 400  # number of steps above which tracing saves time
OVERHEAD = 0.3e9  # floating-point operations equivalent to a step's overhead
COMPILING = 1e12  # floating-point operations that take about as long as compiling a step
WORTH_COMPILING = 8  # multiple of that work above which a training of known length is compiled
# Steps on CUDA after which the 70 microseconds that each saves make up for 30 s of compiling: both
# are estimates for captured steps of a small network, not measured.
WORTH_COMPILING_CAPTURED = 400_000
MOST_GRAPHS = 32  # of a step, one per kind of arguments and state of the program
TOO_MANY = (
    "its arguments and modules had {} kinds already, one graph for each; pass a number that "
    "changes as a tensor or a schedule"
)


class GraphStep:
    """Runs a traced program's graph, with the interface of `TrainStep`.

    ``traced`` is the exact graph, which is compared with the program; ``run`` is rounded or
    compiled if requested.
    """

    def __init__(
        self, traced: TracedStep, parameters: Collection[Tensor], run: Any = None
    ) -> None:
        self.traced, self.entries, self.run = traced, traced.entries, run
        self.unchecked: int | None = None  # the first step since the last comparison
        leaves = set(traced.leaves)
        # Without a gradient, where zeros would let an optimiser's momentum move a parameter.
        self.unused = [p for p in parameters if p not in leaves]

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `TrainStep`."""
        values, gradients = self.traced(*args, run=self.run)
        for parameter in self.unused:
            parameter.grad = None
        for parameter, gradient in zip(self.traced.leaves, gradients, strict=True):
            parameter.grad = gradient
        return values


def trace_step(program: TrainStep, *args: Tensor) -> TracedStep:
    """Traces a step, and compares it with the program on other noise.

    The program runs three times; random numbers, buffers and the data are restored.
    """
    device = args[0].device
    with preserved([*program.buffers, *args], device):
        run = trace_run(program.loss, args, program.guards, program.parameters)
    if run.traced is None:
        raise StagingError(run.reason)
    with preserved([*program.buffers, *args], device):
        torch.rand(1, device=device)
        difference = _compare(program, run.traced, args)[1]
    if difference:
        raise StagingError(f"its structure changes from step to step: {difference}")
    return run.traced


def steps_worth_compiling(traced: TracedStep, *args: Tensor, known: bool = True) -> float:
    """Returns the number of steps that justify compiling, the same in every run.

    Convolutions on a CPU are not compiled, because that makes them no faster. A training of
    unknown length is compiled when its steps have taken as long as compiling does.
    """
    if args[0].is_cuda:
        return WORTH_COMPILING_CAPTURED
    work, convolves = work_of_step(traced)
    return (
        math.inf if convolves else math.ceil((WORTH_COMPILING if known else 1) * COMPILING / work)
    )


def work_of_step(traced: TracedStep) -> tuple[float, bool]:
    """Returns a step's floating-point operations with overhead, and if it has convolutions."""
    from torch.utils.flop_counter import flop_registry

    work, convolves = OVERHEAD, False
    for node in traced.graph.graph.nodes:
        count = flop_registry.get(getattr(node.target, "overloadpacket", None))
        if "convolution" in str(node.target):
            convolves = True
        elif count is not None:
            operands = node.args, node.kwargs
            shapes, named = map_arg(operands, lambda operand: layout(operand).shape)
            work += count(*shapes, **named)
    return work, convolves


def compile_graph(traced: TracedStep, *args: Tensor, precision: Precision = "float32") -> Any:
    """Compiles a traced step, and compares it with the graph; None if that fails.

    Random numbers stay those of the program, so all kinds of steps agree on the same noise.
    """
    try:
        with quiet():  # inductor advises on TensorFloat32
            return _compiled(traced, args, precision)
    except Exception as error:  # a compiler may raise anything
        give_up("compiled", "as a graph that is not compiled", first_cause(error))
        return None


def _compiled(traced: TracedStep, args: tuple[Tensor, ...], precision: Precision) -> Any:
    plain, graph = traced.graph, traced.decomposed(*args)
    if precision == "bf16":
        plain, graph = round_products(deepcopy(plain)), round_products(graph)
    options: dict[str, Any] = {"fallback_random": True}
    compiled: Any = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
    runs = []
    for run in (plain, compiled):
        with preserved(traced.changed(*args), args[0].device):
            values, gradients = traced(*args, run=run)
            runs.append([tensor.clone() for tensor in (values, *gradients)])
    for wanted, found in zip(*runs, strict=True):
        allowed = MISCOMPILED.get(wanted.dtype, 1e-2)
        torch.testing.assert_close(
            found.norm(), wanted.norm(), rtol=allowed, atol=allowed, equal_nan=True
        )
    apart = len({g.data_ptr() for g in gradients}) == len(gradients)
    return compiled if apart else partial(_apart, compiled)


def _apart(run: Any, *tensors: Tensor) -> list[Tensor]:
    """Runs a compiled step, and copies gradients that share a tensor."""
    values, *gradients = run(*tensors)
    return [values, *(gradient.clone() for gradient in gradients)]


class Engine:
    """Steps of a program on data of any shapes, each shape traced at its first use.

    Only the first shape is compiled, if requested: other shapes belong to a last batch, which is
    not worth the wait. Modes of training and evaluation are traced separately. A program that
    cannot be traced, or that differs in a comparison, runs in Pyro with one warning.
    """

    def __init__(
        self,
        program: TrainStep,
        mode: Mode | Literal["auto"],
        precision: Precision = "float32",
        *,
        num_steps: int = 0,
        like: Engine | None = None,
    ) -> None:
        self.program, self.mode = program, mode
        self.precision, self.num_steps = precision, num_steps
        self._like = like
        if mode == "auto" and num_steps < WORTH_TRACING and precision != "bf16":
            self.mode = "eager"
        self._steps: dict[Any, GraphStep] = {}

    def step(self, *args: Tensor) -> TrainStep | GraphStep:
        """Returns the step for data of these shapes; traces it if needed."""
        if self.mode == "eager":
            return self.program
        key = self._key(args)
        if key not in self._steps:
            if (borrowed := self._borrowed(args)) is not None:
                with preserved([*self.program.buffers, *args], args[0].device):
                    self._try(borrowed, args)
        if key not in self._steps:
            try:
                self._keep(key, trace_step(self.program, *args), args)
            except StagingError as error:
                self._give_up(error)
        return self._steps.get(key, self.program)

    def take(self, *args: Tensor, number: int, compare: bool) -> Taken:
        """Takes a step, by the program itself if it is compared.

        If the first step of a kind is to be compared, it becomes the graph; otherwise the graph is
        traced beside it. So the number of a step alone decides if the program takes it, and its
        rounding is the same after resuming.
        """
        if compare and self.mode != "eager":
            if (known := self._steps.get(self._key(args))) is not None:
                return self._compared(known, number, args)
            borrowed = self._borrowed(args)
            return self._recorded(args) if borrowed is None else self._try(borrowed, args)
        step = self.step(*args)
        if isinstance(step, GraphStep) and step.unchecked is None:
            step.unchecked = number
        values = step(*args)
        return step.entries, values

    def _key(self, args: tuple[Tensor, ...]) -> Any:
        kinds = ((arg.shape, arg.dtype) for arg in args)
        return (*kinds, current_shares(), self.program.state_of_python())

    def _recorded(self, args: tuple[Tensor, ...]) -> Taken:
        """Takes the program's own step, and records it."""
        program, key = self.program, self._key(args)
        data = program.loss, args, program.guards, program.parameters, program.buffers
        try:
            run = trace_run(*data)
        except StagingError as error:
            values = program(*args)
            self._give_up(error)
            return program.entries, values
        for parameter in program.parameters:
            parameter.grad = run.gradients.get(parameter)
        if run.traced is None:
            self._give_up(StagingError(run.reason))
        else:
            self._keep(key, run.traced, args)
        return tuple(run.ledger), torch.stack(list(run.ledger.values()))

    def _borrowed(self, args: tuple[Tensor, ...]) -> GraphStep | None:
        """Returns another model's step on such data with this one's tensors, if they match."""
        if self._like is None or self._like.mode == "eager":  # it may have given up its graphs
            return None
        theirs, ours = self._like.program.state, self.program.state
        if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours]:
            return None
        *kinds, (trained, _) = self._key(args)
        for (*others, (other, _)), step in self._like._steps.items():
            if others == kinds and other == trained:
                traced = step.traced.rebound(dict(zip(theirs, ours, strict=True)))
                return GraphStep(traced, self.program.parameters, step.run)
        return None

    def _try(self, step: GraphStep, args: tuple[Tensor, ...]) -> Taken:
        """Takes the program's own step, and adopts another model's step if it agrees."""
        key = self._key(args)
        taken, difference = _compare(self.program, step.traced, args)
        if not difference and self._like is not None:
            self.mode, self._steps[key] = self._like.mode, step
        else:
            self._like = None  # the next step that is compared is written down
        return taken

    def _compared(self, step: GraphStep, number: int, args: tuple[Tensor, ...]) -> Taken:
        """Takes the program's own step, and compares the graph with it."""
        taken, difference = _compare(self.program, step.traced, args)
        if difference:
            self.mode = "eager"
            name = self.program.name
            tell_difference(difference, number, step.unchecked, "it is", name)
        step.unchecked = None
        return taken

    def _keep(self, key: Any, traced: TracedStep, args: tuple[Tensor, ...]) -> None:
        """Chooses the runner of a graph's steps from here on."""
        try:
            if self.mode == "auto":
                worth = self.num_steps >= steps_worth_compiling(traced, *args)
                self.mode = "compiled" if worth else "staged"
        except Exception as error:  # an operation may raise anything
            self._give_up(StagingError(first_cause(error)))
            return
        run = None
        if self.mode == "compiled" and not self._steps:
            run = compile_graph(traced, *args, precision=self.precision)
        if run is None and self.precision == "bf16":
            run = round_products(deepcopy(traced.graph))
        self._steps[key] = GraphStep(traced, self.program.parameters, run)
        if len(self._steps) > MOST_GRAPHS:
            self._give_up(StagingError(TOO_MANY.format(MOST_GRAPHS)))

    def _give_up(self, error: StagingError) -> None:
        if self.precision == "bf16":
            raise no_rounding(error) from error
        self.mode = "eager"
        give_up("staged", "as it is", error, self.program.name[0])


def _compare(
    program: TrainStep, traced: TracedStep, args: tuple[Tensor, ...]
) -> tuple[Taken, str]:
    """Takes the program's own step, and describes a difference of the graph's on that noise."""

    def take() -> tuple[Taken, Ledger, Gradients]:
        values = program(*args)
        ledger = dict(zip(program.entries, values.unbind(), strict=True))
        gradients = {p: p.grad for p in program.parameters if p.grad is not None}
        return (program.entries, values), ledger, gradients

    return compared(traced, args, take)
