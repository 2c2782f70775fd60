"""Steps of `SVI` that are replayed: loss, gradient and update in one launch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.compat import copy_all
from pyro_mivae.engine.captured import Recording, check_capturable, recorder_for
from pyro_mivae.engine.optimiser import CapturableOptimiser, GroupedOptimiser
from pyro_mivae.engine.reasons import tell_no_capture
from pyro_mivae.engine.staging import Staged
from pyro_mivae.errors import CaptureError

MOST_CAPTURES = 8
"""Captures of one kind of step: options that change in every step are not worth one each."""


class ReplayedStep:
    """A recording of a staged step and of the optimiser's part of it."""

    def __init__(
        self,
        staged: Staged,
        run: Any,
        data: Sequence[Tensor],
        parameters: Collection[Tensor],
        optimiser: GroupedOptimiser,
        update: CapturableOptimiser,
        recorder: Recording,
    ) -> None:
        self._data = [tensor.clone() for tensor in data]
        results: Any = staged.graph.graph.output_node().args[0]
        like = results[0].meta["val"]
        self._values = torch.zeros(like.shape, dtype=like.dtype, device=data[0].device)
        self._inputs, self._run = [*staged.inputs, *parameters], run
        self._update, self._recorder = update, recorder
        gradients = [(parameter, parameter.grad) for parameter in parameters]
        leaves, inputs = set(staged.leaves), set(staged.inputs)
        self._others = [p for p in parameters if p not in leaves]
        zeros = [(p, None if p.grad is None else torch.zeros_like(p)) for p in self._others]
        self._have_gradients = [p.grad is not None for p in self._others]
        body = partial(
            _take, staged, run, self._data, zeros, parameters, optimiser, update, self._values
        )
        state = [*staged.inputs, *(p for p in parameters if p not in inputs), self._values]
        try:
            (self._replay,) = recorder.record(body, [1], state)
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
        self._places = [tensor.data_ptr() for tensor in self._inputs]

    def is_current(self, run: Any) -> bool:
        """True if tensors, options and optimiser are those that were recorded."""
        places = [tensor.data_ptr() for tensor in self._inputs]
        if run is not self._run or places != self._places:
            return False
        if [p.grad is not None for p in self._others] != self._have_gradients:
            return False
        return self._update.refresh()

    def __call__(self, data: Sequence[Tensor]) -> Tensor:
        """Takes the step."""
        with self._recorder.running():
            copy_all(self._data, data, non_blocking=True)
            self._replay()
            return self._values.clone()


@dataclass
class Replays:
    """The step of one kind as the device replays it, captured anew where tensors have moved.

    Attributes:
        step: The step, once it was captured.
        left: How often it may be captured yet.
    """

    step: ReplayedStep | None = None
    left: int = MOST_CAPTURES

    def current(
        self,
        staged: Staged,
        run: Any,
        data: Sequence[Tensor],
        parameters: Collection[Tensor],
        optimiser: GroupedOptimiser,
    ) -> ReplayedStep | None:
        """Returns the step, captured if need be; None if its device or its parts have no such."""
        if self.step is not None and self.step.is_current(run):
            return self.step
        self.step = None
        if self.left:
            self.left -= 1
            update = optimiser.capturable(parameters)
            recorder = None if update is None else recorder_for(update.optimiser, data[0].device)
            if update is None or recorder is None:
                self.left = 0
                return None
            try:
                if not self.left:
                    raise CaptureError("its tensors or the optimiser's options change too often")
                check_capturable(staged, data[0].device)
                self.step = ReplayedStep(
                    staged, run, data, parameters, optimiser, update, recorder
                )
            except CaptureError as error:
                self.left = 0
                tell_no_capture(error)
        return self.step


def _take(
    staged: Staged,
    run: Any,
    data: Sequence[Tensor],
    zeros: Sequence[tuple[Tensor, Tensor | None]],
    parameters: Collection[Tensor],
    optimiser: GroupedOptimiser,
    update: CapturableOptimiser,
    out: Tensor,
) -> None:
    held = [(parameter, parameter.grad) for parameter in parameters]
    with torch.no_grad():
        values, *gradients = run(*data, *staged.inputs)
        out.copy_(values)
    for leaf, gradient in (*zip(staged.leaves, gradients, strict=True), *zeros):
        leaf.grad = gradient
    optimiser.clip(parameters)
    update.optimiser.step()
    for parameter, before in held:  # as Pyro leaves them
        parameter.grad = before
