"""Epochs whose steps are recorded on the device, and what records them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_mivae.engine import (
    GraphStep,
    Recording,
    Scheduled,
    StaticEpoch,
    give_up,
    recorder_for,
)
from pyro_mivae.errors import CaptureError
from pyro_mivae.training.meter import Meter
from pyro_mivae.training.optimiser import schedule_factor

if TYPE_CHECKING:
    from pyro_mivae.training.loop import Trainer


class RecordedSteps:
    """Takes a trainer's steps by a recording of the whole step, the optimiser's part included.

    What cannot be recorded runs as it is, on the device all the same, which one warning says.
    """

    def __init__(self, trainer: Trainer, recorder: Recording) -> None:
        self.recorder: Recording | None = recorder
        make_capturable(trainer.optimiser, trainer.device)
        self.static = StaticEpoch(
            trainer.engine,
            trainer.x,
            trainer.batch_sizes,
            trainer.optimiser,
            scheduled=[*_learning_rates(trainer), *_weights(trainer)],
            clip_norm=trainer.settings.clip_norm,
            compares=trainer.compares,
            device=trainer.device,
        )
        self._prepare()

    @classmethod
    def of(cls, trainer: Trainer) -> RecordedSteps | None:
        """Records a trainer's steps, if its device and its program allow that."""
        recorder = recorder_for(trainer.optimiser, trainer.device)
        if recorder is None:
            return None
        sizes = (trainer.batch_sizes[0], trainer.batch_sizes[-1])
        steps = [trainer.engine.step(trainer.example(size)) for size in sizes]
        return cls(trainer, recorder) if all(isinstance(s, GraphStep) for s in steps) else None

    def run(
        self, order: Tensor, first_step: int, meter: Meter, on_step: Callable[[], object]
    ) -> int:
        """Takes the steps of an epoch; nothing waits for the device."""
        if not self.static.is_prepared:
            self._prepare()
        values = self.static.run(order, first_step, on_step)
        meter.add(self.static.entries, values, len(order))
        return len(values)

    def _prepare(self) -> None:
        try:
            self.static.prepare(self.recorder)
        except CaptureError as error:
            give_up("captured", "without", error)
            self.recorder = None
            self.static.prepare()


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Puts learning rates into tensors, and lets the optimiser be captured."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
        group["capturable"] = True


def _learning_rates(trainer: Trainer) -> list[Scheduled]:
    schedule, steps = trainer.settings.lr_schedule, trainer.num_steps
    if schedule == "constant":
        return []
    return [
        Scheduled(group["lr"], partial(_learning_rate, schedule, steps, group["initial_lr"]))
        for group in trainer.optimiser.param_groups
    ]


def _learning_rate(schedule: str, steps: int, initial: float, step: int) -> float:
    return initial * schedule_factor(schedule, step, steps)


def _weights(trainer: Trainer) -> list[Scheduled]:
    return [Scheduled(weight.current, weight.at) for weight in trainer.objective.scheduled]
