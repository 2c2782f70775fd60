"""Epochs whose steps use only tensors at fixed places in memory.

Such a step can be captured and replayed. Data, learning rate and schedules differ from step to
step: each is read from a tensor by a cursor that the step advances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.compat import copy_all
from pyro_mivae.engine.comparison import is_due
from pyro_mivae.engine.cuda_graphs import Recording, check_capturable
from pyro_mivae.engine.steps import Engine, GraphStep
from pyro_mivae.errors import CaptureError


@dataclass(frozen=True)
class Scheduled:
    """A tensor with a different value in each step."""

    target: Tensor  # 0-dimensional
    at: Callable[[int], float]  # from the number of finished steps to its value


class StaticEpoch:
    """The recorded steps of an epoch, on static tensors only."""

    def __init__(
        self,
        engine: Engine,
        data: Sequence[Tensor],
        batch_sizes: Sequence[int],
        recorder: Recording,
        *,
        compares: Callable[[int], bool] = is_due,
        scheduled: Sequence[Scheduled] = (),
        clip_norm: float | None = None,
        on_update: Callable[[], object] = lambda: None,
    ) -> None:
        self.engine, self.recorder, self.compares = engine, recorder, compares
        self.batch_sizes, self.clip_norm = batch_sizes, clip_norm
        self.on_update = on_update  # after each update of the parameters, on tensors alone
        self.scheduled, self.targets = scheduled, [one.target for one in scheduled]
        device = recorder.device
        x = data[0]
        exact = any(target.dtype == torch.float64 for target in self.targets)
        dtype = torch.float64 if exact else torch.float32
        shape = len(batch_sizes), len(scheduled)
        self.schedule = torch.zeros(shape, dtype=dtype, device=device)  # a row for each step
        self.data, self.rows = tuple(data), sum(batch_sizes)
        self.order = torch.arange(self.rows) % len(x)
        self.resident = x.device == device
        index = self.order.to(x.device)  # the data in the order of the epoch
        self.arranged = [of[index] for of in data] if self.resident else list(data)
        self.cursor = torch.zeros(1, dtype=torch.long, device=device)
        self.change: Callable[[Tensor], object]
        self.log = x.new_zeros(0, device=device)
        self._prepared: Any = None
        self._parts: list[_Part] = []
        self._fill_schedule(0)

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the ledger's entries, once the step is traced."""
        return self._parts[0].step.entries

    def prepare(self) -> None:
        """Traces and records the step for each batch size.

        The program is in training mode.
        """
        first, count = self.batch_sizes[0], len(self.batch_sizes)
        same = sum(size == first for size in self.batch_sizes)
        self._parts = []
        for steps in (range(same), range(same, count)):
            if steps:
                self._parts.append(_Part(self, steps, self.batch_sizes[steps.start]))
        self._prepared = self._state()

    @property
    def is_prepared(self) -> bool:
        """True if the steps are prepared for the program's current mode and places in memory."""
        return bool(self._prepared == self._state())

    def free(self) -> None:
        """Frees the memory of recorded steps at once: they and this epoch refer to each other."""
        for part in self._parts:
            part.bodies = []
        self._parts, self._prepared = [], None

    def _state(self) -> Any:
        """State that recorded steps depend on: Python's values and places in memory."""
        states = self.recorder.optimiser.state.values()
        moments = [value for kept in states for value in kept.values()]
        tensors = [*self.engine.program.state, *self.targets, *moments]
        return self.engine.program.state_of_python(), [t.data_ptr() for t in tensors]

    def run(
        self,
        order: Tensor,
        first_step: int,
        on_step: Callable[[], object] = lambda: None,
        change: Callable[[Tensor], object] = lambda batch: None,
    ) -> Tensor:
        """Takes the steps of an epoch, without waiting for the device.

        ``change`` changes the first tensor of each batch in place, in the order of the steps.
        """
        with self.recorder.running():
            self.order, self.change = order, change
            if self.resident:
                index = order.to(self.data[0].device, non_blocking=True)
                for of, arranged in zip(self.data, self.arranged, strict=True):
                    torch.index_select(of, 0, index, out=arranged)
                for batch in self.arranged[0].split(list(self.batch_sizes)):
                    change(batch)
            self.cursor.zero_()
            self._fill_schedule(first_step)
            for part in self._parts:
                done = part.steps.start
                while done < part.steps.stop:
                    count = part.run(done, first_step + done)
                    done += count
                    for _ in range(count):
                        on_step()
        return self.log

    def _fill_schedule(self, first_step: int) -> None:
        """Computes scheduled values from a step on."""
        if self.scheduled:
            steps = range(first_step, first_step + len(self.batch_sizes))
            rows = [[one.at(step) for one in self.scheduled] for step in steps]
            values = torch.tensor(rows, dtype=self.schedule.dtype)
            self.schedule.copy_(values, non_blocking=True)

    def make_log(self, entries: int) -> None:
        """Makes the log that recorded steps write to, with a row for each step."""
        shape = len(self.batch_sizes), entries
        if self.log.shape != shape:
            self.log = self.log.new_zeros(shape)

    def take(self, step: Callable[..., Tensor], batch: Sequence[Tensor]) -> None:
        """Takes the step at the cursor, and advances it."""
        if self.scheduled:
            row = self.schedule.index_select(0, self.cursor).squeeze(0)
            copy_all(self.targets, row.unbind())
        values = step(*batch)
        if self.clip_norm is not None:
            parameters = self.engine.program.parameters
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm, foreach=True)
        self.recorder.optimiser.step()
        self.on_update()
        self.log.index_copy_(0, self.cursor, values.unsqueeze(0).to(self.log))
        self.cursor.add_(1)


class _Part:
    """The steps of one batch size."""

    def __init__(self, epoch: StaticEpoch, steps: range, size: int) -> None:
        self.epoch, self.steps, self.size = epoch, steps, size
        self._first = epoch.rows - size if steps.start else 0
        if epoch.resident:
            rows = slice(self._first, self._first + len(steps) * size)
            self._held = [of[rows].unflatten(0, (len(steps), size)) for of in epoch.arranged]
        else:
            device = epoch.cursor.device
            self._held = [of.new_empty((size, *of.shape[1:]), device=device) for of in epoch.data]
        epoch.cursor.fill_(steps.start)
        self._load(steps.start)
        step = epoch.engine.step(*self._fetch())
        if not isinstance(step, GraphStep):
            raise CaptureError("the program cannot be staged")
        self.step = step
        check_capturable(step.traced, epoch.cursor.device)
        epoch.make_log(len(step.entries))
        wanted = epoch.recorder.steps_per_replay if epoch.resident else 1
        counts = sorted({1, min(wanted, len(steps))}, reverse=True)
        state = [*epoch.engine.program.state, *epoch.targets, epoch.cursor, epoch.log]
        recorded = epoch.recorder.record(self._body, counts, state)
        self.bodies = list(zip(counts, recorded, strict=True))  # the largest first

    def _body(self) -> None:
        self.epoch.take(self.step, self._fetch())

    def run(self, index: int, number: int) -> int:
        """Takes the next steps of the epoch, and returns their number."""
        epoch = self.epoch
        self._load(index)
        if not epoch.resident:
            epoch.change(self._held[0])
        left, by_graph = self.steps.stop - index, epoch.engine.mode != "eager"
        for count, body in self.bodies:  # none of the steps that the graph takes is compared
            ahead = range(number, number + count)
            if by_graph and count <= left and not any(map(epoch.compares, ahead)):
                if self.step.unchecked is None:
                    self.step.unchecked = number
                body()
                return count

        def compared(*batch: Tensor) -> Tensor:
            compare = epoch.compares(number)
            return epoch.engine.take(*batch, number=number, compare=compare)[1]

        epoch.take(compared, self._fetch())
        return 1

    def _load(self, step: int) -> None:
        """Copies a batch to the device, if the data are elsewhere."""
        epoch = self.epoch
        if not epoch.resident:
            first = self._first + (step - self.steps.start) * self.size
            rows = epoch.order[first : first + self.size]
            for held, of in zip(self._held, epoch.data, strict=True):
                held.copy_(of[rows], non_blocking=True)

    def _fetch(self) -> list[Tensor]:
        if not self.epoch.resident:
            return self._held
        if len(self.steps) == 1:
            return [held[0] for held in self._held]
        cursor = self.epoch.cursor
        return [held.index_select(0, cursor).squeeze(0) for held in self._held]
