"""Epochs whose steps touch nothing but tensors that stay where they are.

Such a step can be captured and replayed: whatever differs from one step to the next, the data,
the learning rate, a schedule's value, is read from a tensor by a cursor that the step moves on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_mivae.engine.comparison import is_due
from pyro_mivae.engine.steps import Engine, GraphStep
from pyro_mivae.errors import CaptureError

Body = Callable[[], None]


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

    def record(self, body: Body, counts: Sequence[int], state: Sequence[Tensor]) -> list[Body]:
        """Records a step.

        Args:
            body: The step.
            counts: How many steps each recording is to take.
            state: Every tensor that the step changes, apart from the optimiser's.

        Returns:
            What takes so many steps, one for each count; the step itself has left no trace.

        Raises:
            CaptureError: If the step cannot be recorded.
        """


class StaticEpoch:
    """The steps of an epoch, on static tensors alone.

    Args:
        engine: What stages the step. Its program must be one that can be staged.
        x: Data, shape ``(n, ...)``. Where they are elsewhere than the program each batch is
            copied before its step; else the step fetches it itself.
        batch_sizes: Sizes of the batches, all the same but for the last.
        optimiser: Its learning rates are tensors on the device if they are scheduled.
        scheduled: What changes from step to step.
        clip_norm: Largest norm of the gradient; None leaves it as it is.
        compares: From the number of training steps done to whether the step is one in which the
            graph is compared with its program. Such a step is taken by the program, and is never
            recorded.
        device: Where the program is, with its index on CUDA.
    """

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
        self.engine, self.optimiser, self.clip_norm = engine, optimiser, clip_norm
        self.compares = compares
        self.entries: tuple[str, ...] = ()
        self.order = torch.arange(len(x), device=x.device)
        self.cursor = torch.zeros(1, dtype=torch.long, device=device)
        self.log = x.new_zeros(0, device=device)
        self.table = _Table(scheduled, len(batch_sizes), device)
        first = batch_sizes[0]
        same = sum(size == first for size in batch_sizes)
        self._batches = [_Batches(x, self.order[: same * first], first, device)]
        if same < len(batch_sizes):
            self._batches.append(_Batches(x, self.order[same * first :], batch_sizes[-1], device))
        self._mode: Any = None
        self._parts: list[_Part] = []

    def prepare(self, recorder: Recorder | None = None) -> None:
        """Stages the step for each size of batch, and records it.

        The program is in the mode that it trains in.

        Args:
            recorder: Records the steps; if omitted they are taken as they are.

        Raises:
            CaptureError: If a step cannot be staged, or not be recorded. All is as it was before.
        """
        self._mode = self.engine.program.state_of_python()
        self._parts = [self._part(batches, recorder) for batches in self._batches]

    @property
    def is_prepared(self) -> bool:
        """Whether it is, for the mode that the program is in."""
        return self._mode == self.engine.program.state_of_python()

    def run(
        self, order: Tensor, first_step: int, on_step: Callable[[], object] = lambda: None
    ) -> Tensor:
        """Takes the steps of an epoch; nothing waits for the device.

        Args:
            order: The order of the data, a permutation of their indices, shape ``(n,)``.
            first_step: Training steps done before.
            on_step: Called after each step was begun.

        Returns:
            The ledger of each step, shape ``(steps, entries)``, overwritten by the next epoch.
        """
        self.order.copy_(order, non_blocking=True)
        self.cursor.zero_()
        self.table.fill(first_step)
        number = first_step
        for part in self._parts:
            number = self._run(part, number, on_step)
        return self.log

    def _run(self, part: _Part, number: int, on_step: Callable[[], object]) -> int:
        """Takes the steps of one size of batch, and returns the number of the next step."""
        index = 0
        while index < len(part.batches.index):
            part.batches.load(index)
            left = len(part.batches.index) - index
            count, body = next(
                ((count, body) for count, body in part.bodies if self._fits(number, count, left)),
                (1, None),
            )
            if body is None:
                part.plain(number)
            else:
                part.step.unchecked = (
                    number if part.step.unchecked is None else part.step.unchecked
                )
                body()
            index, number = index + count, number + count
            for _ in range(count):
                on_step()
        return number

    def _fits(self, number: int, count: int, left: int) -> bool:
        """Returns whether the next steps can be taken by the graph, none compared."""
        if count > left or self.engine.means == "eager":
            return False
        return not any(self.compares(number + ahead) for ahead in range(count))

    def _part(self, batches: _Batches, recorder: Recorder | None) -> _Part:
        self.cursor.zero_()
        batches.load(0)
        step = self.engine.step(batches.fetch(self.cursor))
        if not isinstance(step, GraphStep):
            raise CaptureError("the program cannot be staged")
        self.entries = step.entries
        if self.log.shape != (self.table.steps, len(step.entries)):
            self.log = self.log.new_zeros(self.table.steps, len(step.entries))

        def body() -> None:
            self._take(lambda x: step(x), batches)

        def plain(number: int) -> None:
            take = self.engine.take
            compare = self.compares(number)
            self._take(lambda x: take(x, number=number, compare=compare)[1], batches)

        if recorder is None:
            return _Part(batches, step, [(1, body)], plain)
        wanted = recorder.steps_per_replay if batches.resident else 1
        counts = sorted({1, min(wanted, len(batches.index))}, reverse=True)
        state = [*self.engine.program.state, *self.table.targets, self.cursor, self.log]
        bodies = recorder.record(body, counts, state)
        return _Part(batches, step, list(zip(counts, bodies, strict=True)), plain)

    def _take(self, step: Callable[[Tensor], Tensor], batches: _Batches) -> None:
        """Takes the step that the cursor is at."""
        self.table.read(self.cursor)
        values = step(batches.fetch(self.cursor))
        if self.clip_norm is not None:
            parameters = self.engine.program.parameters
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm, foreach=True)
        self.optimiser.step()
        self.log.index_copy_(0, self.cursor, values.unsqueeze(0).to(self.log))
        self.cursor.add_(1)


class _Batches:
    """The batches of one size, in the order of the epoch."""

    def __init__(self, x: Tensor, order: Tensor, size: int, device: torch.device) -> None:
        self.x = x
        self.index = order.view(-1, size)  # (steps, size)
        self.resident = x.device == device
        self._copy = x.new_empty(0 if self.resident else size, *x.shape[1:], device=device)

    def load(self, step: int) -> None:
        """Copies a batch from where the data are, if that is elsewhere."""
        if not self.resident:
            self._copy.copy_(self.x[self.index[step]], non_blocking=True)

    def fetch(self, cursor: Tensor) -> Tensor:
        """Gives the batch that the cursor is at."""
        if not self.resident:
            return self._copy
        several = len(self.index) > 1
        index = self.index.index_select(0, cursor).view(-1) if several else self.index[0]
        return self.x.index_select(0, index)


@dataclass(frozen=True)
class _Part:
    """The steps of one size of batch.

    Attributes:
        batches: The batches.
        step: The step by the graph.
        bodies: How many steps each of these takes by the graph, the most first.
        plain: Takes the step of a number as the engine takes it: compared, or by the program.
    """

    batches: _Batches
    step: GraphStep
    bodies: list[tuple[int, Body]]
    plain: Callable[[int], None]


class _Table:
    """What is scheduled, by step, on the device: shape ``(steps, columns)``."""

    def __init__(self, scheduled: Sequence[Scheduled], steps: int, device: torch.device) -> None:
        self.scheduled, self.steps = tuple(scheduled), steps
        self.targets = [one.target for one in scheduled]
        exact = any(target.dtype == torch.float64 for target in self.targets)
        dtype = torch.float64 if exact else torch.float32
        self.values = torch.zeros(steps, len(scheduled), dtype=dtype, device=device)

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
            torch._foreach_copy_(self.targets, list(row.unbind()))
