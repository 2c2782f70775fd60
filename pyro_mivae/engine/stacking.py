"""Many programs of the same structure as one: their tensors stacked, their steps one graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, fx

from pyro_mivae.engine.lifting import (
    Lifted,
    find_differences,
    lift_noise,
    lift_numbers,
    numbers_at,
)
from pyro_mivae.engine.nodes import is_impure
from pyro_mivae.engine.precision import Precision, round_products
from pyro_mivae.engine.program import Program
from pyro_mivae.engine.reasons import first_cause
from pyro_mivae.engine.staging import TOLERANCE, Staged
from pyro_mivae.errors import StagingError

Noise = list[Tensor]
NOISE_AHEAD = 2**25
"""Bytes of noise that are drawn at once."""


class Stack:
    """The tensors of several programs, each with a first dimension for the programs.

    From then on every program's parameters and buffers are views of these, so that a step on the
    stack is a step of each of them, and the programs can still be run by themselves.

    Args:
        programs: Programs whose parameters and buffers have the same shapes.

    Attributes:
        parameters: Shape ``(programs, ...)`` each, with their gradients in ``grad``.
        buffers: Likewise.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = tuple(programs)
        self.parameters = self._join([program.parameters for program in programs])
        self.buffers = self._join([program.buffers for program in programs])

    @property
    def state(self) -> list[Tensor]:
        """All parameters, then all buffers."""
        return [*self.parameters, *self.buffers]

    def clear_gradients(self) -> None:
        """Forgets the stacked gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def release(self) -> None:
        """Gives every program memory of its own again, with the present values."""
        for program in self.programs:
            for tensor in program.state:
                tensor.data = tensor.data.clone()
                tensor.grad = None

    @staticmethod
    def _join(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        joined = []
        for twins in zip(*tensors, strict=True):
            stacked = torch.stack([twin.detach() for twin in twins])
            for twin, view in zip(twins, stacked.unbind(), strict=True):
                twin.data = view
            joined.append(stacked)
        return joined


class Streams:
    """The random numbers of several programs, each from where its own stand.

    Args:
        seeds: For each program, what its random numbers start from, as by ``torch.manual_seed``.
        device: The device that the programs run on.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
        self._states: list[list[Tensor]] = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for seed in seeds:
                torch.manual_seed(seed)
                self._states.append([generator.get_state() for generator in self._generators])

    def copy(self) -> Streams:
        """Returns the same random numbers, to be drawn apart."""
        twin = copy(self)
        twin._states = [list(states) for states in self._states]
        return twin

    @contextmanager
    def of(self, index: int) -> Iterator[None]:
        """Makes a program's random numbers torch's own, which are left where they come to.

        Args:
            index: Which program.
        """
        for generator, state in zip(self._generators, self._states[index], strict=True):
            generator.set_state(state)
        yield
        self._states[index][:] = [generator.get_state() for generator in self._generators]

    def part(self, indices: Sequence[int]) -> Streams:
        """Gives the random numbers of some of the programs, which go on here too.

        Args:
            indices: Which programs.
        """
        some = copy(self)
        some._states = [self._states[index] for index in indices]
        return some

    def draw(self, noise: Sequence[Callable[[], Sequence[Tensor]]], steps: int) -> list[Noise]:
        """Draws the noise of some steps.

        Args:
            noise: For each program, what draws the noise of a step.
            steps: How many steps.

        Returns:
            For each step, every noise stacked, shape ``(programs, ...)``.
        """
        drawn = []
        for index, draw in enumerate(noise):
            with self.of(index):
                drawn.append([draw() for _ in range(steps)])
        return [
            [torch.stack(twins) for twins in zip(*step, strict=True)]
            for step in zip(*drawn, strict=True)
        ]


class StackedStep:
    """A step of several programs at once, as one graph.

    Args:
        stack: Their tensors.
        staged: For each program its graph for the data of one; programs may share one.
        streams: Their random numbers.
        args: Data, stacked, shape ``(programs, ...)``.
        compiled: Whether the graph is compiled.
        precision: ``"bf16"`` rounds what is multiplied, see `round_products`, once the graph has
            been compared with the programs.

    Attributes:
        entries: Names of the ledger's entries.
        noise_example: Noise of the shapes that a step takes.

    Raises:
        StagingError: If the graphs differ by more than numbers, or do something that cannot be
            done for several models at once.
    """

    def __init__(
        self,
        stack: Stack,
        staged: Sequence[Staged],
        streams: Streams,
        args: Sequence[Tensor],
        *,
        compiled: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self.entries = staged[0].entries
        self._stack, self._streams = stack, streams
        self._used = [stack.parameters[index] for index in staged[0].used]
        lifted = lift_all(staged)
        graph, self._numbers = join_numbers([one.graph for one in lifted], args[0].device)
        self._noise = [one.noise for one in lifted]
        self._ahead: list[Noise] = []
        self._graph: Any = self._vectorise(graph, args)
        self._verify(args)
        if precision == "bf16":
            round_products(self._graph)
        if compiled:
            self._graph = torch.compile(self._graph, fullgraph=True, dynamic=False)

    def prepare(self, steps: int) -> None:
        """Draws noise ahead if none is left, as much as memory is meant for.

        No other step, and nothing else that draws, may come between.

        Args:
            steps: How many steps will be made.
        """
        if self._ahead:
            return
        self._ahead = self._streams.draw(self._noise, 1)
        size = sum(noise.numel() * noise.itemsize for noise in self._ahead[0])
        more = min(steps - 1, NOISE_AHEAD // max(size, 1))
        self._ahead += self._streams.draw(self._noise, more)

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates.

        Args:
            *args: Data, stacked, shape ``(programs, ...)``.

        Returns:
            The entries of the ledgers, shape ``(programs, entries)``; the gradients are left in
            the stacked parameters' ``grad``.
        """
        return self.evaluate(args, self.take_noise())

    def take_noise(self) -> Noise:
        """Gives the noise of the next step, each shape ``(programs, ...)``."""
        return self._ahead.pop(0) if self._ahead else self._streams.draw(self._noise, 1)[0]

    @torch.no_grad()
    def evaluate(self, args: Sequence[Tensor], noise: Noise) -> Tensor:
        """Evaluates and differentiates on noise that is given; see `__call__`.

        Args:
            args: Data, stacked.
            noise: What `take_noise` gave.
        """
        values: Tensor
        values, gradients = self._graph(*self._stack.state, *args, *noise, *self._numbers)
        self._stack.clear_gradients()
        for parameter, gradient in zip(self._used, gradients, strict=True):
            parameter.grad = gradient
        return values

    def _vectorise(self, graph: fx.GraphModule, args: Sequence[Tensor]) -> fx.GraphModule:
        from torch.fx.experimental.proxy_tensor import make_fx

        def step(*tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
            values, gradients = torch.vmap(graph)(*tensors)
            return values, [gradient.contiguous() for gradient in gradients]

        with torch.random.fork_rng(devices=[d] if (d := args[0].device).type == "cuda" else []):
            noise = [torch.stack(twins) for twins in zip(*(n() for n in self._noise), strict=True)]
        self.noise_example = noise
        state = [tensor.clone() for tensor in self._stack.state]
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # an operation without a rule for many at once is written down for each
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                flat = make_fx(step)(*state, *args, *noise, *self._numbers)
        except Exception as error:
            raise StagingError(first_cause(error)) from error
        flat.graph.eliminate_dead_code(is_impure)
        flat.recompile()
        return flat

    def _verify(self, args: Sequence[Tensor]) -> None:
        """Compares with the programs themselves, on the same noise.

        Raises:
            StagingError: If the graph does not do what they do.
        """
        results = []
        for build in (lambda streams: EachStep(self._stack, streams), self._with):
            with ExitStack() as trials:
                for program in self._stack.programs:
                    trials.enter_context(program.trial(args[0].device))
                values = build(self._streams.copy())(*args)
            gradients = [parameter.grad for parameter in self._stack.parameters]
            self._stack.clear_gradients()
            results.append([values, *(gradient for gradient in gradients if gradient is not None)])
        for wanted, found in zip(*results, strict=True):
            error, size = (found - wanted).nan_to_num().norm(), wanted.nan_to_num().norm()
            if error > 10 * TOLERANCE * size + TOLERANCE:
                raise StagingError("several models at once do not do what each does alone")

    def _with(self, streams: Streams) -> StackedStep:
        """The same step on other random numbers."""
        twin = copy(self)
        twin._streams = streams
        return twin


class EachStep:
    """A step of several programs, one after the other.

    Args:
        stack: Their tensors.
        streams: Their random numbers.
    """

    entries: tuple[str, ...] = ()

    def __init__(self, stack: Stack, streams: Streams) -> None:
        self._stack, self._streams = stack, streams

    def prepare(self, steps: int) -> None:
        """Does nothing: each program draws its noise itself."""

    def __call__(self, *args: Tensor) -> Tensor:
        """Evaluates and differentiates; see `StackedStep`."""
        values, found = [], []
        for index, program in enumerate(self._stack.programs):
            with self._streams.of(index):
                ledger, gradients = program.gradients(*(arg[index] for arg in args))
            values.append(torch.stack(list(ledger.values())))
            found.append(gradients)
        self.entries = tuple(ledger)
        for parameter, twins in zip(self._stack.parameters, zip(*found, strict=True), strict=True):
            there = [gradient for gradient in twins if gradient is not None]
            parameter.grad = torch.stack(there) if there else None
        return torch.stack(values)


def same_structure(a: Staged, b: Staged) -> bool:
    """Tells whether staged programs can be stacked: they are the same but for numbers.

    Args:
        a: A staged program.
        b: Another.
    """
    if a is b:
        return True
    if (a.entries, a.used) != (b.entries, b.used) or _inputs(a.graph) != _inputs(b.graph):
        return False
    first, other = lift_all([a, b])
    return find_differences(first.graph, other.graph) is not None


def _inputs(graph: fx.GraphModule) -> list[tuple[Any, ...]]:
    values = [n.meta["val"] for n in graph.graph.nodes if n.op == "placeholder"]
    return [(value.shape, value.dtype) for value in values]


def lift_all(staged: Sequence[Staged]) -> list[Lifted]:
    """Takes the noise out of every graph, out of one that is shared once.

    Args:
        staged: Staged programs.
    """
    lifted = {id(one): lift_noise(one.graph) for one in staged}
    return [lifted[id(one)] for one in staged]


def join_numbers(
    graphs: Sequence[fx.GraphModule], device: torch.device
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Makes one graph of several that differ by numbers.

    Args:
        graphs: The graphs.
        device: Where the numbers go.

    Returns:
        The graph, and its last inputs: the numbers, shape ``(graphs, ...)``.

    Raises:
        StagingError: If they differ by more.
    """
    first, places = graphs[0], set()
    for other in {id(graph): graph for graph in graphs}.values():
        found = find_differences(first, other)
        if found is None:
            raise StagingError("the models' programs are not the same but for numbers")
        places |= found
    order = sorted(places, key=lambda place: (place.node, place.leaf))
    numbers = {id(graph): numbers_at(graph, order, device) for graph in graphs}
    stacked = [torch.stack(twins) for twins in zip(*(numbers[id(g)] for g in graphs), strict=True)]
    return lift_numbers(first, order), stacked
