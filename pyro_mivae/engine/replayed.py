"""Steps of `SVI` that are replayed: loss, gradient and update in one launch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.compat import copy_all
from pyro_mivae.engine.cuda_graphs import Recording, check_capturable, recorder_for
from pyro_mivae.engine.fallback import give_up
from pyro_mivae.engine.optimiser import CapturableOptimiser, GroupedOptimiser
from pyro_mivae.engine.tracing import TracedStep
from pyro_mivae.errors import CaptureError

MOST_CAPTURES = 8
"""Captures of one kind of step: options that change in every step are not worth one each."""


class ReplayedStep:
    """A recording of a traced step and of the optimiser's part of it."""

    def __init__(
        self,
        traced: TracedStep,
        run: Any,
        data: Sequence[Tensor],
        parameters: Collection[Tensor],
        update: CapturableOptimiser,
        recorder: Recording,
    ) -> None:
        self._traced, self._run, self._parameters = traced, run, parameters
        self._update, self._recorder = update, recorder
        self._data = [tensor.clone() for tensor in data]
        results: Any = traced.graph.graph.output_node().args[0]
        like = results[0].meta["val"]
        self._values = torch.zeros(like.shape, dtype=like.dtype, device=data[0].device)
        leaves, inputs = set(traced.leaves), set(traced.inputs)
        self._others = [p for p in parameters if p not in leaves]
        self._zeros = [None if p.grad is None else torch.zeros_like(p) for p in self._others]
        self._inputs = [*traced.inputs, *parameters]
        held = [(parameter, parameter.grad) for parameter in parameters]
        state = [*traced.inputs, *(p for p in parameters if p not in inputs), self._values]
        try:
            (self._replay,) = recorder.record(self._take, [1], state)
        finally:
            for parameter, gradient in held:
                parameter.grad = gradient
        self._places = [tensor.data_ptr() for tensor in self._inputs]

    def is_current(self, run: Any) -> bool:
        """True if tensors, options and optimiser are those that were recorded."""
        places = [tensor.data_ptr() for tensor in self._inputs]
        if run is not self._run or places != self._places:
            return False
        zeros = zip(self._others, self._zeros, strict=True)
        if any((p.grad is None) != (zero is None) for p, zero in zeros):
            return False
        return self._update.refresh()

    def __call__(self, data: Sequence[Tensor]) -> Tensor:
        """Takes the step."""
        with self._recorder.running():
            copy_all(self._data, data, non_blocking=True)
            self._replay()
            return self._values.clone()

    def _take(self) -> None:
        held = [(parameter, parameter.grad) for parameter in self._parameters]
        with torch.no_grad():
            values, *gradients = self._run(*self._data, *self._traced.inputs)
            self._values.copy_(values)
        leaves = [*self._traced.leaves, *self._others]
        for leaf, gradient in zip(leaves, (*gradients, *self._zeros), strict=True):
            leaf.grad = gradient
        self._update.step(self._parameters)
        for parameter, before in held:  # as Pyro leaves them
            parameter.grad = before


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
        traced: TracedStep,
        run: Any,
        data: Sequence[Tensor],
        parameters: Collection[Tensor],
        optimiser: GroupedOptimiser,
    ) -> ReplayedStep | None:
        """Returns the step, captured if need be; None if its device or its parts have no such."""
        if self.step is not None and self.step.is_current(run):
            return self.step
        self.step = None
        if not self.left:
            return None
        self.left -= 1
        update = optimiser.capturable(parameters)
        recorder = None if update is None else recorder_for(update.optimiser, data[0].device)
        if update is None or recorder is None:
            self.left = 0
            return None
        try:
            if not self.left:
                raise CaptureError("its tensors or the optimiser's options change too often")
            check_capturable(traced, data[0].device)
            self.step = ReplayedStep(traced, run, data, parameters, update, recorder)
        except CaptureError as error:
            self.left = 0
            give_up("captured", "without", error)
        return self.step
