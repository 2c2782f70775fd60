"""`fit_many`: trains several variants in one process, each as `fit` trains it alone."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from pyro_mivae.engine import Means, Precision, check_precision, matmul_precision
from pyro_mivae.engine.choose import (
    OVERHEAD,
    WORTH_COMPILING,
    WORTH_COMPILING_CAPTURED,
    work_of_step,
)
from pyro_mivae.engine.stacking import Streams
from pyro_mivae.errors import (
    ManyTrainingError,
    OptionError,
    PyroMivaeWarning,
    StagingError,
    TrainingError,
)
from pyro_mivae.training.checkpoint import Checkpoint, detached_copy
from pyro_mivae.training.each import check_folders, check_models, one_for_each
from pyro_mivae.training.fit import begin, last_weights_kept, train
from pyro_mivae.training.given import (
    check_images,
    check_options,
    check_trainer,
    hold_out,
    place,
    resolve_device,
)
from pyro_mivae.training.history import History
from pyro_mivae.training.keeper import Keeper
from pyro_mivae.training.likeness import alike
from pyro_mivae.training.loop import Settings, Trainer, own_world
from pyro_mivae.training.meter import Meter
from pyro_mivae.training.progress import progress_bar, show_row, tell_batches
from pyro_mivae.training.threads import suitable_threads
from pyro_mivae.training.together import Together, group_by_structure, stage_each

LIGHT_STEP = 60e6
"""Floating-point operations up to which a step on a CPU is more overhead than arithmetic."""

WORTH_VECTORISING = 10_000
"""Light steps, of all models together, that save more time than the common graph takes."""

ENOUGH_MODELS = 4
"""Models from which on light steps are cheaper at once."""

OnEpoch = Callable[[int, Mapping[str, float]], object]


def fit_many(
    vaes: Sequence[Any],
    x: Tensor,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float | Sequence[float] = 1e-3,
    lr_schedule: str = "constant",
    clip_norm: float | None = None,
    device: str | torch.device = "auto",
    seeds: Sequence[int] | None = None,
    at_once: bool | None = None,
    engine: Means | Literal["auto"] = "auto",
    precision: Precision = "float32",
    validation: Tensor | float | None = None,
    patience: int | None = None,
    progress: bool = False,
    runs: Sequence[str | Path] | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[History]:
    """Trains several variants on the same images, each as `fit` trains it alone from its seed.

    Models of the same structure take their steps at once: their parameters are stacked, and one
    graph of tensor operations serves them all. They may differ in weights such as ``beta`` and
    ``mi_weight``, in learning rates and in seeds; where they differ in more they are trained
    group by group. Each model has its own order of the images and its own random numbers, drawn
    by the very calls by which `fit` draws them: model k ends with the weights of
    ``fit(vaes[k], x, seed=seeds[k], ...)``, up to the rounding of sums that are added in another
    order. In float64 that is twelve digits after a few steps. In float32 it grows from step to
    step, as it does between any two machines.

    A model whose loss is no longer finite gets the weights of its last whole epoch back; the
    others are trained to their end before the error is raised.

    Args:
        vaes: The variants, each an object of its own; they are trained in place, moved to
            ``device``, and left in ``eval`` mode.
        x: Training images, shape ``(N, *data_shape)``, for all.
        epochs: Passes over the images.
        batch_size: Images per step and model, as for `fit`.
        lr: Learning rate, one for all or one for each.
        lr_schedule: As for `fit`.
        clip_norm: Largest norm of each model's gradient.
        device: ``"auto"`` (CUDA if there), or what torch takes.
        seeds: Of noise and order, one for each; 0, 1, 2, ... if omitted. (The weights at the
            start are the variants' own.)
        at_once: Whether steps are taken at once, or the models trained one after the other. None
            chooses: at once on CUDA, and on a CPU where there are many steps so light that there
            is more overhead than arithmetic in them. What is left is arithmetic, of which a core
            does as much one after the other.
        engine: As for `fit`. ``"eager"`` is not to be had at once.
        precision: As for `fit`.
        validation: Images to evaluate on, or the fraction of ``x`` to hold out, as for `fit`.
        patience: As for `fit`, for each model by itself.
        progress: Shows one progress bar for all on stderr.
        runs: Folders to keep histories and checkpoints in, one for each.
        resume: Goes on from the folders' checkpoints.
        on_start: Called once everything given has been checked, before anything is written.
        on_epoch: Called with the model's number and each row of its history.

    Returns:
        The histories, in the order of the models. ``seconds`` is a model's share of the time.

    Raises:
        OptionError: If an option is out of its range, or there is not one for each model; or if
            a model or a folder is given twice, or models share parameters.
        DataError: If images are not finite or a likelihood cannot score them.
        ShapeError: If images have another shape than a variant's.
        SiteError: If a model, guide and objective do not fit each other.
        RunError: If a folder holds a run already and ``resume`` is off, or another model's.
        StagingError: If a step cannot be staged, and ``precision`` is ``"bf16"``.
        ManyTrainingError: If the loss of a model was no longer finite; it names which, and holds
            all histories.

    Example:
        >>> import pyro_mivae as mi
        >>> digits = mi.load_dataset("digits")
        >>> vaes = [mi.BetaVAE(digits.data_shape, latent_dim=2, beta=b) for b in (0.5, 4.0)]
        >>> histories = mi.fit_many(vaes, digits.x_train, epochs=2)
        >>> histories[0]["rate"][-1] > histories[1]["rate"][-1]
        True
    """
    vaes = check_models(vaes)
    count = len(vaes)
    lrs = [lr] * count if isinstance(lr, int | float) else one_for_each("lr", lr, count)
    seeds = list(range(count)) if seeds is None else one_for_each("seeds", seeds, count)
    folders = check_folders(runs, count)
    if at_once and engine == "eager":
        raise OptionError("at_once=True and engine='eager': steps at once are staged; leave one")
    common = Settings(
        epochs, batch_size, 1e-3, lr_schedule, clip_norm, 0, patience, engine, precision
    )
    settings = [replace(common, lr=a, seed=b) for a, b in zip(lrs, seeds, strict=True)]
    target = resolve_device(device)
    for vae, own in zip(vaes, settings, strict=True):
        check_options(own, validation)
        check_precision(precision, vae.dtype, target, engine)
        check_images(vae, x)
    x, held_out = hold_out(vaes[0], x, validation, patience)
    with own_world(target), matmul_precision(precision):
        streams = Streams(seeds, target)
        placed: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}
        models: list[_Model] = []
        for number, (vae, own) in enumerate(zip(vaes, settings, strict=True)):
            vae.to(target)
            if vae.dtype not in placed:
                placed[vae.dtype] = place(vae, x, held_out, target)
            with _world_of(streams, number):
                trainer = Trainer(vae, *placed[vae.dtype], own, target)
                check_trainer(trainer)
                if not any(alike(vae, other.trainer.vae) for other in models):
                    trainer.check_staging()
            models.append(_Model(number, trainer, on_epoch))
        if on_start is not None:
            on_start()
        for model, folder in zip(models, folders, strict=True):
            with streams.of(model.number):
                model.keeper = Keeper(folder, resume)
                model.history = model.keeper.start(model.trainer)
        with progress_bar([model.trainer for model in models], enabled=progress) as bar:
            _Training(models, streams, bar, at_once).run()
    histories = [model.history for model in models]
    failures = {model.number: model.failure for model in models if model.failure}
    if failures:
        told = "; ".join(f"model {number}: {failure}" for number, failure in failures.items())
        raise ManyTrainingError(f"{len(failures)} of {count} models: {told}", failures, histories)
    return histories


@dataclass
class _Model:
    """One of the models, and how it fares."""

    number: int
    trainer: Trainer
    on_epoch: OnEpoch | None
    keeper: Keeper = field(default_factory=lambda: Keeper(None, False))
    history: History = field(default_factory=History)
    failure: str = ""
    weights: Checkpoint | None = None

    @property
    def goes_on(self) -> bool:
        return not self.failure and not self.trainer.finished

    def fail(self, error: TrainingError) -> None:
        self.failure = str(error)
        self.keeper.write(self.history)

    def tell(self, row: Mapping[str, float]) -> None:
        if self.on_epoch is not None:
            self.on_epoch(self.number, row)


class _Training:
    """Trains models to their end, at once where that is possible and worth it."""

    def __init__(
        self, models: Sequence[_Model], streams: Streams, bar: Any, at_once: bool | None
    ) -> None:
        self.models, self.streams, self.bar, self.at_once = models, streams, bar, at_once

    def run(self) -> None:
        try:
            for group in self._groups():
                if not self._train_at_once(group):
                    self._train_each(group)
        except KeyboardInterrupt:
            for model in self.models:
                model.keeper.write(model.history)
            raise
        finally:
            for model in self.models:
                model.trainer.vae.eval()
        for model in self.models:
            if not model.failure:
                model.trainer.restore_best()

    def _groups(self) -> Iterator[list[_Model]]:
        """Those that have steps to take, by the type of their numbers and the step they are at."""
        groups: dict[Any, list[_Model]] = {}
        for model in self.models:
            if model.goes_on:
                trainer = model.trainer
                key = (trainer.vae.dtype, trainer.epoch, tuple(trainer.batch_sizes))
                groups.setdefault(key, []).append(model)
        yield from groups.values()

    def _train_each(self, models: Sequence[_Model]) -> None:
        for model in models:
            trainer = model.trainer
            with (
                _world_of(self.streams, model.number),
                suitable_threads(trainer.vae, trainer.settings.batch_size),
            ):
                try:
                    train(trainer, model.history, model.keeper, self.bar, model.tell)
                except TrainingError as error:
                    model.fail(error)

    def _train_at_once(self, models: Sequence[_Model]) -> bool:
        """Trains models at once; tells whether it did."""
        trainers = [model.trainer for model in models]
        means = self._means(trainers)
        if means is None:
            return False
        for model in models:
            with _world_of(self.streams, model.number):
                begin(model.trainer, self.bar)
        tell_batches(models[0].trainer, self.bar)
        self.bar.set_description("compiling" if means == "compiled" else "preparing")
        first = trainers[0]
        try:
            with pyro.validation_enabled(False):
                staged = stage_each(trainers, first.batch_sizes[0])
            groups = group_by_structure(staged)
        except StagingError as error:
            _warn(error)
            return False
        for group in groups:
            chosen = [models[index] for index in group]
            if len(group) == 1:
                self._train_each(chosen)
                continue
            self._train_group(chosen, [staged[index] for index in group], means == "compiled")
        return True

    def _train_group(self, models: Sequence[_Model], staged: Any, compiled: bool) -> None:
        first = models[0].trainer
        streams = self.streams.part([model.number for model in models])
        with ExitStack() as stack:
            size = first.settings.batch_size * len(models)
            stack.enter_context(suitable_threads(first.vae, size))
            stack.enter_context(pyro.get_param_store().scope())
            stack.enter_context(pyro.validation_enabled(False))
            try:
                together = Together(
                    [model.trainer for model in models], staged, streams, compiled=compiled
                )
            except StagingError as error:
                _warn(error)
                self._train_each(models)
                return
            stack.callback(together.release)
            self.bar.unpause()
            while any(model.goes_on for model in models):
                self._run_epoch(together, models)
            for model in models:
                if model.weights is not None:  # its part of the stack went on
                    model.trainer.vae.load_state_dict(model.weights)

    def _run_epoch(self, together: Together, models: Sequence[_Model]) -> None:
        start = time.perf_counter()
        epoch = max(model.trainer.epoch for model in models) + 1
        self.bar.set_description(f"epoch {epoch}/{models[0].trainer.settings.epochs}", False)
        weights = [detached_copy(model.trainer.vae.state_dict()) for model in models]
        meters = together.run_epoch(lambda: self.bar.update(len(models)))
        together.share_state()
        for number, model in enumerate(models):
            if not model.goes_on:
                continue
            with together.streams.of(number):
                try:
                    self._end_epoch(model, meters[number], start, weights[number], len(models))
                except TrainingError as error:
                    model.fail(error)
                    model.weights = weights[number]

    def _end_epoch(
        self, model: _Model, meter: Meter, start: float, weights: Checkpoint, count: int
    ) -> None:
        trainer = model.trainer
        with last_weights_kept(trainer, model.keeper, weights):
            row = trainer.end_epoch(meter, start)
        row["seconds"] /= count
        model.history.append(row)
        model.keeper.epoch_done(trainer, model.history)
        show_row(self.bar, row)
        model.tell(row)

    def _means(self, trainers: Sequence[Trainer]) -> str | None:
        """By what means steps are taken at once, or None if each model is trained alone."""
        first = trainers[0]
        engine = first.settings.engine
        if self.at_once is False or engine == "eager" or len(trainers) == 1:
            return None
        with pyro.validation_enabled(False):
            work, convolves = work_of_step(first.program, first.example(first.batch_sizes[0]))
        steps = first.num_steps * len(trainers)
        on_device = first.device.type == "cuda"
        light = (
            work - OVERHEAD <= LIGHT_STEP
            and not convolves
            and len(trainers) >= ENOUGH_MODELS
            and steps >= WORTH_VECTORISING
        )
        if not (self.at_once or on_device or light):
            return None
        worth = work * steps >= WORTH_COMPILING and not convolves
        if on_device:
            worth = first.num_steps >= WORTH_COMPILING_CAPTURED
        return engine if engine != "auto" else ("compiled" if worth else "staged")


@contextmanager
def _world_of(streams: Streams, number: int) -> Iterator[None]:
    """A model's own random numbers, and a parameter store without the others' parameters."""
    with pyro.get_param_store().scope(), streams.of(number):
        yield


def _warn(error: StagingError) -> None:
    warnings.warn(
        f"the models' steps cannot be taken at once: {error}. They are trained one after the "
        "other; the results are the same",
        PyroMivaeWarning,
        stacklevel=2,
    )
