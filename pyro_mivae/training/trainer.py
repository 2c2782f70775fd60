"""The training loop: an epoch, and the state for resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.elbo import Objective
from pyro_mivae.engine.capturable import Scheduled, StaticEpoch
from pyro_mivae.engine.comparison import is_due, is_due_in_epoch, most_unchecked
from pyro_mivae.engine.cuda_graphs import recorder_for
from pyro_mivae.engine.fallback import give_up
from pyro_mivae.engine.snapshot import rng_state, set_rng_state
from pyro_mivae.engine.steps import Engine, GraphStep
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import CaptureError, RunError
from pyro_mivae.ranks import ALONE, Ranks, Shares, dividing, own_rows
from pyro_mivae.schedules import read_target
from pyro_mivae.training.arguments import batch_sizes, cuda_devices
from pyro_mivae.training.batches import Batches, Loss, loss_of
from pyro_mivae.training.checkpoint import Checkpoint
from pyro_mivae.training.history import Meter
from pyro_mivae.training.optimiser import (
    make_capturable,
    make_optimiser,
    portable_state,
    scheduled_lr,
)
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.together import JointStep
from pyro_mivae.variants.checks import take_labels

VALIDATION_BATCH = 512


class Trainer:
    """A variant, its objective and optimiser, and their progress."""

    def __init__(
        self,
        vae: Any,
        data: Mapping[str, Tensor],
        held_out: list[Tensor],
        options: TrainingOptions,
        device: torch.device,
        objective: Objective | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.vae, self.x, self.held_out = vae, data["x"], held_out
        self.options, self.device, self.given, self.ranks = options, device, objective, ranks
        self.optimiser = make_optimiser(vae, options)
        self.shuffle = torch.Generator().manual_seed(options.seed)
        self.needs_batch = self.new_objective().needs_batch
        self.batches = Batches(data, options, device, needs_batch=self.needs_batch, ranks=ranks)
        self.batch_sizes = self.batches.sizes
        self.num_steps = options.epochs * len(self.batch_sizes)
        self.plan(self.num_steps)
        self.epoch = self.step = 0
        self.begun = self.finished = False
        self.best: Checkpoint | None = None
        self.like: Engine | None = None  # whose graphs may serve this training too

    def new_objective(self, num_steps: int | None = None) -> Objective:
        """Makes the loss: the variant's own, or a copy of the given one with its networks."""
        if self.given is None:
            own: Objective = self.vae.objective(num_steps)
            return own
        kept = [*self.vae.modules(), *self.vae.parameters(), *self.vae.buffers()]
        copied = deepcopy(self.given, {id(part): part for part in kept})
        return copied.prepare(self.vae)

    def plan(self, num_steps: int) -> None:
        """Makes the objective, with schedules for this number of steps."""
        self.objective = self.new_objective(num_steps)
        if self.batches.extra:
            take_labels(self.vae, self.objective, read_target(self.options.label_weight))
        self.objective.to(self.device)

    @property
    def loss(self) -> Loss:
        """The loss per datum of a batch, as a function of its tensors."""
        return self.batches.loss(self.objective, self.vae.model, self.vae.guide)

    def evaluated(self) -> dict[str, Tensor]:
        """Returns the ledger of a batch, summed over it, without a step."""
        with torch.no_grad(), self.evaluating(), pyro.validation_enabled(False):
            _, ledger = self.loss(*self.batches.example(self.batch_sizes[0]))
        return {name: value.detach() for name, value in ledger.items()}

    def program(self) -> TrainStep:
        """Makes the step that the engine takes."""
        return TrainStep.of_modules(self.loss, self.vae, self.objective.state)

    @cached_property
    def engine(self) -> Engine:
        """The engine that takes the steps."""
        return Engine(
            self.program(),
            self.options.engine,
            self.options.precision,
            num_steps=self.num_steps,
            like=self.like,
        )

    @cached_property
    def recorded(self) -> StaticEpoch | None:
        """The epoch on static tensors, if device and program allow recording its steps."""
        recorder = recorder_for(self.optimiser, self.device) if self.ranks.size == 1 else None
        sizes = (self.batch_sizes[0], self.batch_sizes[-1])
        if recorder is None or not all(
            isinstance(self.engine.step(*self.batches.example(size)), GraphStep) for size in sizes
        ):
            return None
        make_capturable(self.optimiser, self.device)
        scheduled = [Scheduled(w.current, w.at) for w in self.objective.scheduled]
        schedule = self.options.lr_schedule
        if schedule != "constant":
            scheduled += [
                Scheduled(
                    group["lr"],
                    partial(scheduled_lr, group["initial_lr"], schedule, self.num_steps),
                )
                for group in self.optimiser.param_groups
            ]
        options: Any = {"clip_norm": self.options.clip_norm, "compares": self.compares}
        options["on_update"] = self.objective.ascend
        data = self.engine, list(self.batches.data.values()), self.batches.rows
        return StaticEpoch(*data, recorder, scheduled=scheduled, **options)

    def _record(self) -> None:
        """Records the steps of an epoch for the program's current mode, unless recorded.

        Steps that cannot be recorded are taken one by one from then on.
        """
        if self.recorded is None or self.recorded.is_prepared:
            return
        try:
            self.recorded.prepare()
        except CaptureError as error:
            self.recorded.free()
            self.recorded = None
            give_up("captured", "without", error)

    def initialize(self) -> None:
        """Prepares the variant's parameters from the training data."""
        known = {name: part for name, part in self.batches.data.items() if name != "x"}
        if not self.batches.extra:
            known.pop("labels", None)
        self.vae.initialize(self.batches.settled(self.x), **known)

    def prepare(self) -> None:
        """Stages the step, compiles it if worthwhile, and records it if possible.

        The state of a fresh trainer does not change.
        """
        self.vae.train()
        with pyro.validation_enabled(False):
            # A compared first step is written down as it is taken, and one of several processes
            # when all of them take it.
            if not self.compares(self.step) and self.ranks.size == 1:
                self.engine.step(*self.batches.example(self.batch_sizes[0]))
            self._record()

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Trains for one epoch, evaluates on held-out images, and returns the epoch's row."""
        start, meter = time.perf_counter(), Meter(self.step + 1)
        order = self.batches.order(self.shuffle)
        drawn = self.batches.pixels(self.shuffle)
        self.vae.train()
        self.ranks.seed(self.options.seed, self.epoch)
        with pyro.validation_enabled(False):
            self._record()
            if self.recorded is None:
                order = order.to(self.x.device, non_blocking=True)
                for index in order.split(self.batches.rows):
                    rows, shares = self.batches.own(index)
                    x, *others = self.batches.take(rows)
                    taken = self._step(drawn(x), *others, shares=shares)
                    meter.add(*taken, len(index) - self.batches.extra)
                    on_step()
            else:  # nothing waits for the device
                values = self.recorded.run(order, self.step, on_step, drawn)
                meter.add(self.recorded.entries, values, len(self.x))
                for weight in self.objective.scheduled:
                    weight.advance(len(values))
                self.step += len(values)
        means = meter.means()
        self.epoch += 1
        lr = self.lr(self.options.lr, self.step - 1)
        row = {"epoch": self.epoch, "step": self.step, "seconds": 0.0, "lr": lr, **means}
        if self.held_out:
            row |= {f"val_{key}": value for key, value in self._validate().items()}
            self._watch(row)
        self.finished = self.has_waited or self.epoch >= self.options.epochs
        row["seconds"] = time.perf_counter() - start
        return row

    def lr(self, initial: float, step: int) -> float:
        """Returns a learning rate as it is scheduled for a step."""
        return scheduled_lr(initial, self.options.lr_schedule, self.num_steps, step)

    def _step(self, *batch: Tensor, shares: Shares | None) -> tuple[tuple[str, ...], Tensor]:
        """One step of the optimiser, without waiting for the device."""
        if self.options.lr_schedule != "constant":
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr(group["initial_lr"], self.step)
        how: Any = {"number": self.step, "compare": self.compares(self.step)}
        if shares is None:
            entries, values = self.engine.take(*batch, **how)
        else:
            entries, values = self._joint.take(batch, shares, **how)
        norm = self.options.clip_norm
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(self.vae.parameters(), norm, foreach=True)
        self.optimiser.step()
        self.objective.advance()
        self.step += 1
        return entries, values

    @cached_property
    def _joint(self) -> JointStep:
        return JointStep(self.vae, self.engine, self.batches.example(self.batch_sizes[0]))

    @property
    def compares(self) -> Callable[[int], bool]:
        """Choice of the steps that compare the graph with the program.

        It depends only on the step's number, so a resumed training compares, and rounds, like an
        uninterrupted one. Steps of the last batch's size are chosen by the epoch's number.
        """
        return partial(
            is_due_in_epoch,
            steps_per_epoch=len(self.batch_sizes),
            every=most_unchecked(self.device),
        )

    @cached_property
    def _validation(self) -> Engine:
        """The engine that evaluates held-out images: steps without parameters and labels."""
        step = self.program()
        names = ["given"] * (len(self.held_out) - 1)
        loss = loss_of(self.objective, self.vae.model, self.vae.guide, names)
        name = "validation", "epoch"
        return Engine(TrainStep(loss, [], step.state, step.modules, name), "staged")

    def _validate(self) -> dict[str, float]:
        """Evaluates on held-out images, on the same noise in every epoch."""
        meter, number = Meter(), self.epoch - 1
        if self.engine.mode == "eager":
            self._validation.mode = "eager"
        with torch.no_grad(), pyro.validation_enabled(False), self.evaluating():
            torch.manual_seed(self.options.seed + self.ranks.rank)
            held_out, least = self.held_out, self.ranks.size
            sizes = batch_sizes(len(held_out[0]), VALIDATION_BATCH, self.needs_batch, least)
            for parts in zip(*(part.split(sizes) for part in held_out), strict=True):
                shares = self.ranks.shares(len(parts[0]))
                batch = [
                    own_rows(part, shares).to(self.device, non_blocking=True) for part in parts
                ]
                with dividing(shares):
                    taken = self._validation.take(*batch, number=number, compare=is_due(number))
                meter.add(*taken, len(parts[0]))
        return meter.means(finite=False)

    def _watch(self, row: dict[str, float]) -> None:
        """Keeps the best weights.

        While a schedule changes the objective, or a target its weight by more than 1 %, losses are
        not comparable, and the last weights count as the best. With targets, Lagrangians are
        compared.
        """
        if self.options.patience is None:
            return
        best, loss = self.best, row["val_loss"] + self.objective.price
        if best is None or loss < best["loss"] or self.objective.has_changed(best["schedules"]):
            self.best = {
                "loss": loss,
                "epoch": self.epoch,
                "weights": deepcopy(self.vae.state_dict()),
                "schedules": self.objective.current_weights(),
            }

    @property
    def has_waited(self) -> bool:
        """True if the held-out loss has not fallen for ``patience`` epochs."""
        patience, best = self.options.patience, self.best
        return patience is not None and best is not None and self.epoch - best["epoch"] >= patience

    def free(self) -> None:
        """Frees the recorded steps, if there are any."""
        if self.__dict__.get("recorded") is not None:
            self.recorded.free()  # type: ignore[union-attr]

    def restore_best(self) -> None:
        """Restores the weights of the best epoch, if early stopping kept any."""
        if self.best is not None:
            self.vae.load_state_dict(self.best["weights"])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, which restores the training's random numbers afterwards."""
        training = self.vae.training
        self.vae.eval()
        try:
            with torch.random.fork_rng(devices=cuda_devices(self.device)):
                yield
        finally:
            self.vae.train(training)

    def state(self) -> Checkpoint:
        """Copies the state for resuming."""
        changing = {
            "weights": self.vae.state_dict(),
            "optimiser": portable_state(self.optimiser),
            "objective": self.objective.state_dict(),
        }
        return {
            **deepcopy(changing),
            "rng": rng_state(self.device),
            "shuffle": self.shuffle.get_state(),
            "epoch": self.epoch,
            "step": self.step,
            "finished": self.finished,
            "asked": self.options.epochs,
            "best": self.best,
            "moments": len(self.optimiser.state),
        }

    def load(self, state: Checkpoint) -> None:
        """Restores a state that `state` returned."""
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
                f"the checkpoint does not fit the model ({type(error).__name__}: {reason}); "
                "restore a copy, or train again"
            ) from error
        self.epoch, self.step, self.begun = state["epoch"], state["step"], True
        self.best = state["best"]
        self.finished = self.has_waited or self.epoch >= self.options.epochs
