"""Epochs whose steps touch nothing but tensors that stay where they are.

Such a step can be captured and replayed: whatever differs from one step to the next, the data,
the learning rate, a schedule's value, is read from a tensor by a cursor that the step moves on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_mivae.compat import copy_all
from pyro_mivae.engine.captured import Body, check_capturable
from pyro_mivae.engine.comparison import is_due
from pyro_mivae.engine.steps import Engine, GraphStep
from pyro_mivae.errors import CaptureError


@dataclass(frozen=True)
class Scheduled:
    """A tensor with a value of its own in each step.

    Attributes:
        target: The tensor, 0-dimensional.
        at: Its value by the number of training steps done.
    """

    target: Tensor
    at: Callable[[int], float]


class Recorder(Protocol):
    """Makes steps that are cheaper to repeat."""

    steps_per_replay: int
    """How many steps are repeated at once, where there are so many."""

    def running(self) -> AbstractContextManager[None]:
        """Surrounds what is recorded and what is repeated."""

    def record(self, body: Body, counts: Sequence[int], state: Sequence[Tensor]) -> list[Body]:
        """Records a step."""


class StaticEpoch:
    """The steps of an epoch, on static tensors alone."""

    def __init__(
        self,
        engine: Engine,
        x: Tensor,
        batch_sizes: Sequence[int],
        optimiser: torch.optim.Optimizer,
        *,
        compares: Callable[[int], bool] = is_due,
        scheduled: Sequence[Scheduled] = (),
        clip_norm: float | None = None,
        device: torch.device,
    ) -> None:
        self.engine, self.compares = engine, compares
        self.batch_sizes = batch_sizes
        self.cursor = torch.zeros(1, dtype=torch.long, device=device)
        self.table = _Table(scheduled, len(batch_sizes), device)
        self.data = _Data(x, device)
        self._clip = partial(_clip, engine.program.parameters, clip_norm)
        self._optimiser = optimiser
        self._log = x.new_zeros(0, device=device)
        self._around: Callable[[], AbstractContextManager[None]] = nullcontext
        self._prepared: Any = None
        self._parts: list[_Part] = []

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the ledger's entries, once the step is staged."""
        return self._parts[0].step.entries

    def prepare(self, recorder: Recorder | None = None) -> None:
        """Stages the step for each size of batch, and records it.

        The program is in the mode that it trains in.
        """
        self._around = nullcontext if recorder is None else recorder.running
        first, last = self.batch_sizes[0], self.batch_sizes[-1]
        same = sum(size == first for size in self.batch_sizes)
        self._parts = [self._part(range(same), first, recorder)]
        if same < len(self.batch_sizes):
            self._parts.append(self._part(range(same, same + 1), last, recorder))
        self._prepared = self._state()

    @property
    def is_prepared(self) -> bool:
        """Whether it is, for the mode that the program is in and where its tensors are."""
        return bool(self._prepared == self._state())

    def _state(self) -> Any:
        """What recorded steps are fixed to: Python's values, and places in memory."""
        moments = [value for kept in self._optimiser.state.values() for value in kept.values()]
        tensors = [*self.engine.program.state, *self.table.targets, *moments]
        return self.engine.program.state_of_python(), [t.data_ptr() for t in tensors]

    def run(
        self, order: Tensor, first_step: int, on_step: Callable[[], object] = lambda: None
    ) -> Tensor:
        """Takes the steps of an epoch; nothing waits for the device."""
        with self._around():
            self.data.arrange(order)
            self.cursor.zero_()
            self.table.fill(first_step)
            number = first_step
            for part in self._parts:
                number = self._run(part, number, on_step)
        return self._log

    def _run(self, part: _Part, number: int, on_step: Callable[[], object]) -> int:
        """Takes the steps of one size of batch, and returns the number of the next step."""
        index, end = part.batches.steps.start, part.batches.steps.stop
        while index < end:
            part.batches.load(index)
            count, body = next(
                (
                    (count, body)
                    for count, body in part.bodies
                    if self._fits(number, count, end - index)
                ),
                (1, None),
            )
            if body is None:
                part.take(partial(self._take, number))
            else:
                step = part.step
                step.unchecked = number if step.unchecked is None else step.unchecked
                body()
            index, number = index + count, number + count
            for _ in range(count):
                on_step()
        return number

    def _take(self, number: int, x: Tensor) -> Tensor:
        """Takes a step as the engine does: compared, or by the program."""
        return self.engine.take(x, number=number, compare=self.compares(number))[1]

    def _fits(self, number: int, count: int, left: int) -> bool:
        """Returns whether the next steps can be taken by the graph, none compared."""
        if count > left or self.engine.means == "eager":
            return False
        return not any(self.compares(number + ahead) for ahead in range(count))

    def _part(self, steps: range, size: int, recorder: Recorder | None) -> _Part:
        batches = _Batches(self.data, steps, size)
        self.cursor.fill_(steps.start)
        batches.load(steps.start)
        step = self.engine.step(batches.fetch(self.cursor))
        if not isinstance(step, GraphStep):
            raise CaptureError("the program cannot be staged")
        shape = len(self.batch_sizes), len(step.entries)
        if self._log.shape != shape:
            self._log = self._log.new_zeros(shape)
        part = _Part(
            batches, step, self.cursor, self.table, self._clip, self._optimiser, self._log
        )
        body = partial(part.take, step)
        if recorder is None:
            return replace(part, bodies=((1, body),))
        check_capturable(step.staged, self.cursor.device)
        wanted = recorder.steps_per_replay if self.data.resident else 1
        counts = sorted({1, min(wanted, len(steps))}, reverse=True)
        state = [*self.engine.program.state, *self.table.targets, self.cursor, self._log]
        bodies = recorder.record(body, counts, state)
        return replace(part, bodies=tuple(zip(counts, bodies, strict=True)))


class _Data:
    """The data in the order of the epoch, on the device if they are there."""

    def __init__(self, x: Tensor, device: torch.device) -> None:
        self.x, self.device = x, device
        self.resident = x.device == device
        self.arranged = x.clone() if self.resident else x
        self.order = torch.arange(len(x))

    def arrange(self, order: Tensor) -> None:
        """Puts the data in an order."""
        self.order = order
        if self.resident:
            index = order.to(self.device, non_blocking=True)
            torch.index_select(self.x, 0, index, out=self.arranged)


class _Batches:
    """Batches of one size: what some steps of an epoch take."""

    def __init__(self, data: _Data, steps: range, size: int) -> None:
        self.data, self.steps, self.size = data, steps, size
        self.first = len(data.x) - size if steps.start else 0
        whole = len(steps) * size
        self._resident = data.arranged[self.first : self.first + whole]
        if not data.resident:
            self._copy = data.x.new_empty(size, *data.x.shape[1:], device=data.device)

    def load(self, step: int) -> None:
        """Copies a batch from where the data are, if that is elsewhere."""
        if not self.data.resident:
            first = self.first + (step - self.steps.start) * self.size
            index = self.data.order[first : first + self.size]
            self._copy.copy_(self.data.x[index], non_blocking=True)

    def fetch(self, cursor: Tensor) -> Tensor:
        """Gives the batch that the cursor is at."""
        if not self.data.resident:
            return self._copy
        if len(self.steps) == 1:
            return self._resident
        batches = self._resident.view(len(self.steps), self.size, *self._resident.shape[1:])
        return batches.index_select(0, cursor).squeeze(0)


@dataclass(frozen=True)
class _Part:
    """The steps of one size of batch.

    Attributes:
        batches: The batches.
        step: The step by the graph.
        cursor: The step of the epoch, shape ``(1,)``.
        table: What is scheduled.
        clip: Clips the gradient.
        optimiser: The optimiser.
        log: Gets the ledger of each step.
        bodies: How many steps each of these takes by the graph, the most first.
    """

    batches: _Batches
    step: GraphStep
    cursor: Tensor
    table: _Table
    clip: Body
    optimiser: torch.optim.Optimizer
    log: Tensor
    bodies: tuple[tuple[int, Body], ...] = ()

    def take(self, step: Callable[[Tensor], Tensor]) -> None:
        """Takes the step that the cursor is at."""
        self.table.read(self.cursor)
        values = step(self.batches.fetch(self.cursor))
        self.clip()
        self.optimiser.step()
        self.log.index_copy_(0, self.cursor, values.unsqueeze(0).to(self.log))
        self.cursor.add_(1)


def _clip(parameters: Sequence[Tensor], norm: float | None) -> None:
    """Clips the gradient to a norm, if there is one."""
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, norm, foreach=True)


class _Table:
    """What is scheduled, by step, on the device: shape ``(steps, columns)``."""

    def __init__(self, scheduled: Sequence[Scheduled], steps: int, device: torch.device) -> None:
        self.scheduled, self.steps = tuple(scheduled), steps
        self.targets = [one.target for one in scheduled]
        exact = any(target.dtype == torch.float64 for target in self.targets)
        dtype = torch.float64 if exact else torch.float32
        self.values = torch.zeros(steps, len(scheduled), dtype=dtype, device=device)
        self.fill(0)

    def fill(self, first_step: int) -> None:
        """Computes the values of the steps from one on."""
        if self.scheduled:
            steps = range(first_step, first_step + self.steps)
            rows = [[one.at(step) for one in self.scheduled] for step in steps]
            self.values.copy_(torch.tensor(rows, dtype=self.values.dtype), non_blocking=True)

    def read(self, cursor: Tensor) -> None:
        """Sets what is scheduled to its values of the step that the cursor is at."""
        if self.scheduled:
            row = self.values.index_select(0, cursor).squeeze(0)
            copy_all(self.targets, row.unbind())
