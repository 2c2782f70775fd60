"""The training loop: what one epoch does, and the state that it can resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.engine import (
    Engine,
    TrainStep,
    is_due_in_epoch,
    most_unchecked,
    no_rounding,
    trace_step,
)
from pyro_mivae.errors import PyroMivaeError, RunError, SiteError, StagingError
from pyro_mivae.terms import ENOUGH_DATA
from pyro_mivae.training.batches import batch_sizes
from pyro_mivae.training.checkpoint import Checkpoint, detached_copy, rng_state, set_rng_state
from pyro_mivae.training.meter import Meter
from pyro_mivae.training.optimiser import (
    make_optimiser,
    portable_state,
    schedule_factor,
    set_learning_rates,
)
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.recorded import RecordedSteps
from pyro_mivae.training.validation import VALIDATION_BATCH, Validation
from pyro_mivae.training.world import cuda_devices


class Trainer:
    """A variant, its objective and optimiser, and how far they have come."""

    def __init__(
        self,
        vae: Any,
        x: Tensor,
        validation: Tensor | None,
        settings: TrainingOptions,
        device: torch.device,
    ) -> None:
        self.vae, self.x = vae, x
        self.settings, self.device = settings, device
        self.optimiser = make_optimiser(vae, settings.lr)
        self.shuffle = torch.Generator().manual_seed(settings.seed)
        self.needs_batch = vae.objective().needs_batch
        self.batch_sizes = batch_sizes(len(x), settings.batch_size, self.needs_batch)
        self.steps_per_epoch = len(self.batch_sizes)
        self.objective = vae.objective(self.num_steps).to(device)
        self.validation = None if validation is None else self._make_validation(validation)
        self.epoch = self.step = 0
        self.begun = self.finished = False
        self.best: Checkpoint | None = None
        self.like: Engine | None = None  # whose graphs may serve this training too

    def check_pair(self) -> None:
        """Evaluates the objective once, with all of Pyro's and torch's checks on.

        It leaves the random numbers, and the networks' running statistics, as they were.
        """
        x = self.example(min(ENOUGH_DATA if self.needs_batch else 2, len(self.x)))
        try:
            with self._evaluating(), pyro.validation_enabled(True):
                self.objective.differentiable_loss(self.vae.model, self.vae.guide, x)
        except PyroMivaeError:
            raise
        except Exception as error:
            raise SiteError(
                f"model and guide fail on {len(x)} images: {type(error).__name__}: {error}"
            ) from error
        owned = set(self.vae.parameters())
        store = pyro.get_param_store().named_parameters()
        stray = [name for name, parameter in store if parameter not in owned]
        if stray:
            raise SiteError(
                f"parameters {stray} live in Pyro's param store alone, where fit does not train "
                "them; make them attributes (PyroParam) of the prior, guide or network"
            )

    def check_staging(self) -> None:
        """Stages a step and forgets it, if there is no training without a staged one."""
        if self.settings.precision == "bf16":
            training = self.vae.training
            self.vae.train()
            try:
                with pyro.validation_enabled(False):
                    trace_step(self._make_program(), self.example(self.batch_sizes[0]))
            except StagingError as error:
                raise no_rounding(error) from error
            finally:
                self.vae.train(training)

    @cached_property
    def program(self) -> TrainStep:
        """What a step evaluates."""
        return self._make_program()

    def _make_program(self) -> TrainStep:
        loss = partial(_loss_per_datum, self.objective, self.vae.model, self.vae.guide)
        return TrainStep.of_modules(loss, self.vae, self.objective.state)

    def _make_validation(self, images: Tensor) -> Validation:
        sizes = batch_sizes(len(images), VALIDATION_BATCH, self.needs_batch)
        return Validation(self._make_program(), images, sizes, self.device)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.settings.epochs * self.steps_per_epoch

    @cached_property
    def engine(self) -> Engine:
        """What takes the steps: by the means that was asked for, or the one that is worth it."""
        settings = self.settings
        return Engine(
            self.program,
            settings.engine,
            settings.precision,
            num_steps=self.num_steps,
            like=self.like,
        )

    @cached_property
    def recorded(self) -> RecordedSteps | None:
        """What takes the steps of an epoch at once, if the device has such a thing."""
        return RecordedSteps.of(self)

    def prepare(self) -> None:
        """Stages the step, compiles it if that is worth it, and records it where that is done.

        A fresh trainer is as it was.
        """
        self.vae.train()
        with pyro.validation_enabled(False):
            if not self.compares(self.step):  # else the first step is written down as it is taken
                self.engine.step(self.example(self.batch_sizes[0]))
            self.recorded  # noqa: B018

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Trains for one epoch."""
        start = time.perf_counter()
        meter = Meter(self.step + 1)
        order = self.next_order()
        self.vae.train()
        with pyro.validation_enabled(False):
            if self.recorded is not None:
                steps = self.recorded.run(order, self.step, meter, on_step)
                self.objective.advance(steps)
                self.step += steps
            else:
                self._run_one_by_one(order, meter, on_step)
        return self.end_epoch(meter, start)

    def next_order(self) -> Tensor:
        """Draws the order of the images in the next epoch, shape ``(N,)``."""
        return torch.randperm(len(self.x), generator=self.shuffle)

    def end_epoch(self, meter: Meter, start: float) -> dict[str, float]:
        """Ends an epoch whose steps were taken: evaluates on held-out images, and counts."""
        means = meter.means()
        lr = self.settings.lr * self.lr_factor(self.step - 1)
        self.epoch += 1
        row = {"epoch": self.epoch, "step": self.step, "seconds": 0.0, "lr": lr, **means}
        if self.validation is not None:
            with pyro.validation_enabled(False), self._evaluating():
                torch.manual_seed(self.settings.seed)  # the same noise in every epoch
                staged = self.engine.mode != "eager"
                held_out = self.validation.run(self.epoch - 1, staged=staged)
            row |= {f"val_{key}": value for key, value in held_out.items()}
            self._watch(row)
        self.finished = self.has_waited or self.epoch >= self.settings.epochs
        row["seconds"] = time.perf_counter() - start
        return row

    def state(self) -> Checkpoint:
        """Copies all that resuming needs."""
        return detached_copy(
            {
                "weights": self.vae.state_dict(),
                "optimiser": portable_state(self.optimiser),
                "objective": self.objective.state_dict(),
                "rng": rng_state(self.device),
                "shuffle": self.shuffle.get_state(),
                "epoch": self.epoch,
                "step": self.step,
                "finished": self.finished,
                "asked": self.settings.epochs,
                "best": self.best,
                "moments": len(self.optimiser.state),
            }
        )

    def load(self, state: Checkpoint) -> None:
        """Goes back to where `state` was taken."""
        try:
            self.vae.load_state_dict(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.objective.load_state_dict(state["objective"])
            set_rng_state(state["rng"], self.device)
            self.shuffle.set_state(state["shuffle"])
            if len(self.optimiser.state) != state["moments"]:
                raise ValueError("the optimiser's state of some parameters is missing")
        except Exception as error:  # torch raises a dozen kinds on states that do not fit
            reason = " ".join(str(error).split())[:300]
            raise RunError(
                f"the checkpoint does not fit the model ({type(error).__name__}: {reason}); put "
                "back a copy, or train anew"
            ) from error
        self.__dict__.pop("recorded", None)  # it has the state of before in it
        self.epoch, self.step, self.begun = state["epoch"], state["step"], True
        self.best = state["best"]
        self.finished = self.has_waited or self.epoch >= self.settings.epochs

    def example(self, size: int) -> Tensor:
        """Gives a batch, to see what a step does with the like."""
        return self._batch(torch.arange(size, device=self.x.device))

    def _run_one_by_one(self, order: Tensor, meter: Meter, on_step: Callable[[], object]) -> None:
        order = order.to(self.x.device, non_blocking=True)
        for index in order.split(self.batch_sizes):
            meter.add(*self._step(self._batch(index)), len(index))
            on_step()

    def lr_factor(self, step: int) -> float:
        """Gives what the learning rates are multiplied by."""
        return schedule_factor(self.settings.lr_schedule, step, self.num_steps)

    def _step(self, x: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """One step of the optimiser: the inner loop, in which nothing waits for the device."""
        settings, optimiser = self.settings, self.optimiser
        if settings.lr_schedule != "constant":
            set_learning_rates(optimiser, self.lr_factor(self.step))
        entries, values = self.engine.take(x, number=self.step, compare=self.compares(self.step))
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.vae.parameters(), settings.clip_norm, foreach=True)
        optimiser.step()
        self.objective.advance()
        self.step += 1
        return entries, values

    @property
    def compares(self) -> Callable[[int], bool]:
        """Tells whether the step after so many is one that compares the graph with the program.

        It follows from the number of the step alone, so that a resumed training compares, and
        rounds, as a whole one does. Steps of the last batch's size are compared by the epoch.
        """
        return partial(
            is_due_in_epoch,
            steps_per_epoch=self.steps_per_epoch,
            every=most_unchecked(self.device),
        )

    def _batch(self, index: Tensor) -> Tensor:
        """Gives images by their indices, which lie where the images do."""
        return self.x[index].to(self.device, non_blocking=True)

    def _watch(self, row: dict[str, float]) -> None:
        """Keeps the best weights, and ends the run when they have been the best for too long.

        While a schedule still changes the objective losses do not compare: the last is the best.
        """
        if self.settings.patience is None:
            return
        state = self.objective.state_dict()
        schedules = {k: v.clone() for k, v in state.items() if k.endswith("current")}
        best = self.best
        if best is None or row["val_loss"] < best["loss"] or _differ(schedules, best["schedules"]):
            self.best = best = {
                "loss": row["val_loss"],
                "epoch": self.epoch,
                "weights": detached_copy(self.vae.state_dict()),
                "schedules": schedules,
            }

    @property
    def has_waited(self) -> bool:
        """Whether the held-out loss has not fallen for as many epochs as ``patience`` says."""
        patience, best = self.settings.patience, self.best
        return patience is not None and best is not None and self.epoch - best["epoch"] >= patience

    def restore_best(self) -> None:
        """Puts the weights of the best epoch back, if early stopping kept any."""
        if self.best is not None:
            self.vae.load_state_dict(self.best["weights"])

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode; random numbers drawn meanwhile leave the training's as they were."""
        training = self.vae.training
        self.vae.eval()
        try:
            with torch.random.fork_rng(devices=cuda_devices(self.device)):
                yield
        finally:
            self.vae.train(training)


def _loss_per_datum(
    objective: Any, model: Any, guide: Any, x: Tensor
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss that is trained on, and the ledger."""
    loss = objective.differentiable_loss(model, guide, x)
    return loss / len(x), objective.ledger


def _differ(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return any(not torch.equal(a[key], b[key].to(a[key].device)) for key in a)
