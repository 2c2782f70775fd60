"""Epochs whose steps are recorded on the device, and what records them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_mivae.engine import CudaGraphs, GraphStep, Recording, Scheduled, StaticEpoch
from pyro_mivae.errors import CaptureError, PyroMivaeWarning
from pyro_mivae.training.meter import Meter
from pyro_mivae.training.optimiser import schedule_factor

if TYPE_CHECKING:
    from pyro_mivae.training.loop import Trainer


def recorder_for(optimiser: torch.optim.Optimizer, device: torch.device) -> Recording | None:
    """Gives what records steps on a device: CUDA graphs, or nothing.

    Args:
        optimiser: The optimiser.
        device: The device.
    """
    return CudaGraphs(optimiser, device) if device.type == "cuda" else None


class RecordedSteps:
    """Takes a trainer's steps by a recording of the whole step, the optimiser's part included.

    What cannot be recorded runs as it is, on the device all the same, which one warning says.

    Args:
        trainer: The trainer, whose step can be staged.
        recorder: What records it.
    """

    def __init__(self, trainer: Trainer, recorder: Recording) -> None:
        self.trainer, self.recorder = trainer, recorder
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
        """Records a trainer's steps, if its device and its program allow that.

        Args:
            trainer: The trainer, in training mode.

        Returns:
            None if its steps are to be taken one by one.
        """
        recorder = recorder_for(trainer.optimiser, trainer.device)
        if recorder is None:
            return None
        sizes = (trainer.batch_sizes[0], trainer.batch_sizes[-1])
        steps = [trainer.engine.step(trainer.example(size)) for size in sizes]
        return cls(trainer, recorder) if all(isinstance(s, GraphStep) for s in steps) else None

    def run(self, order: Tensor, meter: Meter, on_step: Callable[[], object]) -> None:
        """Takes the steps of an epoch; nothing waits for the device.

        Args:
            order: The order of the data.
            meter: Gets their ledgers.
            on_step: Called after each step was begun.
        """
        trainer = self.trainer
        if not self.static.is_prepared:
            self._prepare()
        values = self.static.run(order, trainer.step, on_step)
        meter.add(self.static.entries, values, len(order))
        trainer.objective.advance(len(values))
        trainer.step += len(values)

    def _prepare(self) -> None:
        try:
            self.static.prepare(self.recorder)
        except CaptureError as error:
            tell_no_capture(error)
            self.static.prepare()


def tell_no_capture(error: CaptureError) -> None:
    """Warns that steps are taken without being captured.

    Args:
        error: Why they cannot be.
    """
    warnings.warn(
        f"the training step cannot be captured: {error}. It runs without, slower; the "
        "results are the same",
        PyroMivaeWarning,
        stacklevel=3,
    )


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Puts learning rates into tensors, and lets the optimiser be captured.

    Args:
        optimiser: The optimiser.
        device: Where its parameters are.
    """
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
        group["capturable"] = True


def _learning_rates(trainer: Trainer) -> list[Scheduled]:
    settings = trainer.settings
    if settings.lr_schedule == "constant":
        return []
    total = settings.epochs * trainer.steps_per_epoch

    def rate(group: dict[str, Any]) -> Callable[[int], float]:
        return lambda step: (
            group["initial_lr"] * schedule_factor(settings.lr_schedule, step, total)
        )

    return [Scheduled(group["lr"], rate(group)) for group in trainer.optimiser.param_groups]


def _weights(trainer: Trainer) -> list[Scheduled]:
    return [Scheduled(weight.current, weight.at) for weight in trainer.objective.scheduled]
