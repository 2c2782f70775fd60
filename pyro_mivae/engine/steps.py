"""Steps of a program, by the means that was asked for: as it is, staged, or compiled."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pyro_mivae.engine.choose import WORTH_STAGING, is_worth_compiling
from pyro_mivae.engine.comparison import Outcome, noise_state, run_graph
from pyro_mivae.engine.precision import Precision, no_rounding, round_products
from pyro_mivae.engine.program import Program
from pyro_mivae.engine.reasons import first_cause, give_up, quiet, tell_difference
from pyro_mivae.engine.staging import Staged, preserved, record, restored_on_error
from pyro_mivae.errors import StagingError

Means = Literal["eager", "staged", "compiled"]

MISCOMPILED = {torch.float64: 1e-6}
"""Relative difference to the graph by which a compiled step is wrong; 1e-2 in other types, whose
rounding a kink (a ReLU at 0) makes large."""


MOST_GRAPHS = 32
"""Graphs that a step has at most, one for each kind of arguments and state of the program."""

TOO_MANY = (
    "its arguments and modules were of {} kinds already, each with a graph of its own; pass a "
    "number that changes as a tensor, or as a schedule"
)


class Step(Protocol):
    """Evaluates a program's loss and leaves its gradient in the parameters' ``grad``."""

    entries: tuple[str, ...]
    """Names of the ledger's entries."""

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates."""


class EagerStep:
    """Runs the program itself."""

    entries: tuple[str, ...] = ()

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `Step`."""
        for parameter in self.program.parameters:
            parameter.grad = None
        loss, ledger = self.program.loss(*args)
        if self.program.parameters:
            loss.backward()
        self.entries = tuple(ledger)
        return torch.stack(list(ledger.values()))


class GraphStep:
    """Runs a staged program's graph.

    Attributes:
        staged: The exact graph, which is compared with the program.
        run: What takes the step.
        unchecked: The first step that was taken since the last comparison; None if none was.
    """

    def __init__(self, program: Program, staged: Staged, run: Any = None) -> None:
        self.staged, self.entries = staged, staged.entries
        self.unchecked: int | None = None
        leaves = set(staged.leaves)
        self._unused = [p for p in program.parameters if p not in leaves]
        self.run = staged.graph if run is None else run

    @torch.no_grad()
    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `Step`."""
        values: Tensor
        values, *gradients = self.run(*args, *self.staged.inputs)
        for parameter in self._unused:
            parameter.grad = None
        for parameter, gradient in zip(self.staged.leaves, gradients, strict=True):
            parameter.grad = gradient
        return values


def stage(program: Program, *args: Tensor) -> Staged:
    """Stages a step, and compares it with the program on other noise.

    The program is run three times; random numbers, buffers and the data are left as they were.
    """
    device = args[0].device
    try:
        with preserved([*program.buffers, *args], device):
            recording = record(program.loss, args, program.guards, program.parameters)
    except Exception as error:  # the program itself may have no trouble
        raise StagingError(first_cause(error)) from error
    if recording.staged is None:
        raise StagingError(recording.reason)
    with preserved([*program.buffers, *args], device):
        torch.rand(1, device=device)
        difference = _compare(program, recording.staged, *args)[1]
    if difference:
        raise StagingError(f"its structure is not the same in every step: {difference}")
    return recording.staged


def compile_graph(staged: Staged, *args: Tensor, precision: Precision = "float32") -> Any:
    """Compiles a staged step, and compares it with the graph.

    Random numbers stay those of the program, so that all kinds of steps agree on the same noise.
    """
    try:
        with quiet():  # inductor advises on TensorFloat32
            compiled, apart = _compiled(staged, args, precision)
    except Exception as error:  # whatever a compiler may raise
        give_up("compiled", "as a graph that is not compiled", first_cause(error))
        return None
    return compiled if apart else partial(_apart, compiled)


def _compiled(staged: Staged, args: tuple[Tensor, ...], precision: Precision) -> tuple[Any, bool]:
    """Compiles a graph, compares the two, and says whether gradients have memory of their own."""
    graph = staged.decomposed(*args)
    plain = staged.graph
    if precision == "bf16":
        plain, graph = round_products(deepcopy(plain)), round_products(graph)
    compiled = torch.compile(
        graph, fullgraph=True, dynamic=False, options={"fallback_random": True}
    )
    runs = []
    for run in (plain, compiled):
        with preserved(staged.changed(*args), args[0].device), torch.no_grad():
            values, *gradients = run(*args, *staged.inputs)
            runs.append([tensor.clone() for tensor in (values, *gradients)])
            apart = len({g.data_ptr() for g in gradients}) == len(gradients)
    for wanted, found in zip(*runs, strict=True):
        allowed = MISCOMPILED.get(wanted.dtype, 1e-2)
        torch.testing.assert_close(
            found.norm(), wanted.norm(), rtol=allowed, atol=allowed, equal_nan=True
        )
    return compiled, apart


def _apart(run: Any, *tensors: Tensor) -> list[Tensor]:
    """Runs a compiled step of which several gradients are one tensor, and copies them."""
    values, *gradients = run(*tensors)
    return [values, *(gradient.clone() for gradient in gradients)]


class Engine:
    """Steps of a program on data of any shapes, each shape staged when it first comes.

    The first shape alone is compiled, if that is asked for: other shapes are those of a last
    batch, which are not worth the wait. A program whose modules are switched between training
    and evaluation is staged for each. One that cannot be staged is run as it is, which one
    warning says; so is one that a comparison finds to have become another.

    Attributes:
        means: How steps are taken, once that is chosen.
    """

    def __init__(
        self,
        program: Program,
        means: Means | Literal["auto"],
        precision: Precision = "float32",
        *,
        num_steps: int = 0,
        like: Engine | None = None,
    ) -> None:
        self.program = program
        self.means = means
        self.precision, self.num_steps = precision, num_steps
        self._like = like
        if means == "auto" and num_steps < WORTH_STAGING and precision != "bf16":
            self.means = "eager"
        self._steps: dict[Any, GraphStep] = {}

    def step(self, *args: Tensor) -> Step:
        """Returns the step for data of these shapes, staged if it is not."""
        if self.means == "eager":
            return EagerStep(self.program)
        key = self._key(args)
        if key not in self._steps and not self._borrow(key, args):
            try:
                self._keep(key, stage(self.program, *args), args)
            except StagingError as error:
                self._give_up(error)
                return EagerStep(self.program)
        return self._steps[key]

    def take(self, *args: Tensor, number: int, compare: bool) -> tuple[tuple[str, ...], Tensor]:
        """Takes a step."""
        if compare and self.means != "eager":
            known = self._steps.get(self._key(args))
            if known is not None:
                return self._compared(known, number, args)
            borrowed = self._borrowed(args)
            return self._recorded(args) if borrowed is None else self._tried(borrowed, args)
        step = self.step(*args)
        if isinstance(step, GraphStep):
            step.unchecked = number if step.unchecked is None else step.unchecked
        values = step(*args)
        return step.entries, values

    def _key(self, args: tuple[Tensor, ...]) -> Any:
        return (*((arg.shape, arg.dtype) for arg in args), self.program.state_of_python())

    def _recorded(self, args: tuple[Tensor, ...]) -> tuple[tuple[str, ...], Tensor]:
        """Takes the program's own step, and writes it down."""
        program, key = self.program, self._key(args)
        try:
            with restored_on_error(program.buffers, args[0].device):
                recording = record(program.loss, args, program.guards, program.parameters)
        except Exception as error:  # the program itself may have no trouble
            step = EagerStep(program)
            values = step(*args)
            self._give_up(StagingError(first_cause(error)))
            return step.entries, values
        for parameter in program.parameters:
            parameter.grad = recording.gradients.get(parameter)
        if recording.staged is None:
            self._give_up(StagingError(recording.reason))
        else:
            self._keep(key, recording.staged, args)
        return tuple(recording.ledger), torch.stack(list(recording.ledger.values()))

    def _borrowed(self, args: tuple[Tensor, ...]) -> GraphStep | None:
        """Returns the other model's step on such data, of this one's tensors, if they match."""
        if self._like is None:
            return None
        theirs, ours = self._like.program.state, self.program.state
        if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours]:
            return None
        *kinds, (trained, _) = self._key(args)
        for (*others, (other, _)), step in self._like._steps.items():
            if others == kinds and other == trained:
                staged = step.staged.rebound(dict(zip(theirs, ours, strict=True)))
                return GraphStep(self.program, staged, step.run)
        return None

    def _borrow(self, key: Any, args: tuple[Tensor, ...]) -> bool:
        """Keeps the other model's step if it is this program's too, and returns whether it is."""
        step = self._borrowed(args)
        if step is None:
            return False
        with preserved([*self.program.buffers, *args], args[0].device):
            self._tried(step, args)
        return key in self._steps

    def _tried(self, step: GraphStep, args: tuple[Tensor, ...]) -> tuple[tuple[str, ...], Tensor]:
        """Takes the program's own step, and keeps a graph if it is the program's too."""
        key = self._key(args)
        taken, difference = _compare(self.program, step.staged, *args)
        if difference:
            self._like = None  # the next step that is compared is written down
        else:
            assert self._like is not None
            self.means, self._steps[key] = self._like.means, step
        return taken

    def _compared(
        self, step: GraphStep, number: int, args: tuple[Tensor, ...]
    ) -> tuple[tuple[str, ...], Tensor]:
        """Takes the program's own step, and compares the graph with it."""
        (entries, values), difference = _compare(self.program, step.staged, *args)
        if difference:
            self.means = "eager"
            of = self.program.name, self.program.unit
            tell_difference(difference, number, step.unchecked, "it is", *of)
        step.unchecked = None
        return entries, values

    def _keep(self, key: Any, staged: Staged, args: tuple[Tensor, ...]) -> None:
        """Chooses what takes the steps of a graph from here on."""
        try:
            if self.means == "auto":
                worth = is_worth_compiling(staged, *args, num_steps=self.num_steps)
                self.means = "compiled" if worth else "staged"
        except Exception as error:  # whatever an operation may raise
            self._give_up(StagingError(first_cause(error)))
            return
        run = None
        if self.means == "compiled" and not self._steps:
            run = compile_graph(staged, *args, precision=self.precision)
        if run is None and self.precision == "bf16":
            run = round_products(deepcopy(staged.graph))
        self._steps[key] = GraphStep(self.program, staged, run)
        if len(self._steps) > MOST_GRAPHS:
            self._give_up(StagingError(TOO_MANY.format(MOST_GRAPHS)))

    def _give_up(self, error: StagingError) -> None:
        if self.precision == "bf16":
            raise no_rounding(error) from error
        self.means = "eager"
        give_up("staged", "as it is", str(error), self.program.name)


def _compare(
    program: Program, staged: Staged, *args: Tensor
) -> tuple[tuple[tuple[str, ...], Tensor], str]:
    """Takes the program's own step, and says where the graph's is another on the same noise."""
    try:
        outcome = run_graph(staged, *args)
    except Exception as error:  # the program itself may have no trouble
        outcome, failure = None, f"the graph fails with {first_cause(error)}"
    step = EagerStep(program)
    values = step(*args)
    if outcome is None:
        return (step.entries, values), failure
    own = Outcome(
        dict(zip(step.entries, values.unbind(), strict=True)),
        {p: p.grad for p in program.parameters if p.grad is not None},
        staged.written,
        noise_state(args[0].device),
    )
    return (step.entries, values), own.difference(outcome)
