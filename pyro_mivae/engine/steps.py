"""Steps of a program, by the means that was asked for: as it is, staged, or compiled."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pyro_mivae.engine.precision import Precision, no_rounding, round_products
from pyro_mivae.engine.program import Program
from pyro_mivae.engine.reasons import first_cause, give_up
from pyro_mivae.engine.staging import Staged, stage
from pyro_mivae.errors import StagingError

Means = Literal["eager", "staged", "compiled"]


class Step(Protocol):
    """Evaluates a program's loss and leaves its gradient in the parameters' ``grad``."""

    entries: tuple[str, ...]
    """Names of the ledger's entries."""

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates.

        Args:
            *args: Data.

        Returns:
            The entries of the ledger, shape ``(entries,)``, without a gradient.
        """


class EagerStep:
    """Runs the program itself.

    Args:
        program: The program.
    """

    entries: tuple[str, ...] = ()

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `Step`."""
        for parameter in self.program.parameters:
            parameter.grad = None
        loss, ledger = self.program.loss(*args)
        loss.backward()
        self.entries = tuple(ledger)
        return torch.stack(list(ledger.values()))


class GraphStep:
    """Runs a staged program's graph.

    Args:
        program: The program.
        staged: Its graph.
        compiled: Whether the graph is compiled before it is first run. Random numbers stay those
            of the program itself, so that the three kinds of steps agree on the same noise.
    """

    def __init__(self, program: Program, staged: Staged, *, compiled: bool = False) -> None:
        self.entries = staged.entries
        self._state = program.state
        self._used = [program.parameters[index] for index in staged.used]
        self._unused = [p for i, p in enumerate(program.parameters) if i not in staged.used]
        self._graph: Any = staged.graph
        if compiled:
            self._graph = torch.compile(
                staged.graph, fullgraph=True, dynamic=False, options={"fallback_random": True}
            )

    @torch.no_grad()
    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `Step`."""
        values, gradients = self._graph(*self._state, *args)
        for parameter in self._unused:
            parameter.grad = None
        for parameter, gradient in zip(self._used, gradients, strict=True):
            parameter.grad = gradient
        return values


def compile_step(program: Program, staged: Staged, *args: Tensor) -> GraphStep:
    """Compiles a staged program, or says why that cannot be done.

    Args:
        program: The program.
        staged: Its graph, staged with ``decompose``.
        *args: Data of the shape that it was staged for.

    Returns:
        The step: compiled, and tried once without a trace; where that fails not compiled.
    """
    try:
        step = GraphStep(program, staged, compiled=True)
        with program.trial(args[0].device):
            step(*args)
    except Exception as error:  # whatever a compiler may raise
        give_up("compiled", "as a graph that is not compiled", first_cause(error))
        return GraphStep(program, staged)
    return step


class Engine:
    """Steps of a program on data of any shapes, each shape staged when it first comes.

    The first shape alone is compiled, if that is asked for: other shapes are those of a last
    batch, which are not worth the wait. A program whose modules are switched between training
    and evaluation is staged for each. One that cannot be staged is run as it is, which one
    warning says.

    Args:
        program: The program.
        means: ``"eager"``, ``"staged"`` or ``"compiled"``.
        precision: ``"bf16"`` rounds what is multiplied in the staged steps, see
            `round_products`.
    """

    def __init__(self, program: Program, means: Means, precision: Precision = "float32") -> None:
        self.program = program
        self.means = means
        self.precision = precision
        self._steps: dict[Any, Step] = {}

    def step(self, *args: Tensor) -> Step:
        """Gives the step for data of these shapes.

        Args:
            *args: Data.

        Raises:
            StagingError: If the program cannot be staged, and the precision is ``"bf16"``.
        """
        key = (*((arg.shape, arg.dtype) for arg in args), self.program.mode())
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = self._build(args)
        return step

    def _build(self, args: tuple[Tensor, ...]) -> Step:
        if self.means == "eager":
            return EagerStep(self.program)
        compiles = self.means == "compiled" and not self._steps
        try:
            staged = stage(self.program, *args, decompose=compiles)
        except StagingError as error:
            if self.precision == "bf16":
                raise no_rounding(error) from error
            self.means = "eager"
            give_up("staged", "as it is", str(error))
            return EagerStep(self.program)
        if self.precision == "bf16":
            round_products(staged.graph)
        if compiles:
            return compile_step(self.program, staged, *args)
        return GraphStep(self.program, staged)
