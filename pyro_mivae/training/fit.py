"""`fit`: trains a variant on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, flag, function, path
from pyro_mivae.engine import Mode, Precision, matmul_precision
from pyro_mivae.errors import WriteError
from pyro_mivae.interrupts import held_back, stoppable
from pyro_mivae.training.breakdown import check_end, last_weights_kept
from pyro_mivae.training.checkpoint import rng_state, set_rng_state
from pyro_mivae.training.given import (
    DEVICE,
    Images,
    check_given,
    check_trainer,
    resolve_device,
)
from pyro_mivae.training.history import History
from pyro_mivae.training.keeper import Keeper
from pyro_mivae.training.loop import Trainer
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.progress import progress_bar, show_row, tell_batches
from pyro_mivae.training.world import own_world, suitable_threads
from pyro_mivae.variants import VARIANT


@checked(
    vae=VARIANT,
    device=DEVICE,
    progress=flag(),
    run=path(),
    resume=flag(),
    on_start=function("on_start()"),
    on_epoch=function("on_epoch(row)"),
)
def fit(
    vae: Any,
    x: Any,
    *,
    epochs: int,
    batch_size: int = TrainingOptions.batch_size,
    lr: float = TrainingOptions.lr,
    lr_schedule: str = TrainingOptions.lr_schedule,
    clip_norm: float | None = TrainingOptions.clip_norm,
    device: str | torch.device = "auto",
    seed: int = TrainingOptions.seed,
    engine: Mode | Literal["auto"] = TrainingOptions.engine,
    precision: Precision = TrainingOptions.precision,
    validation: Any = None,
    patience: int | None = TrainingOptions.patience,
    progress: bool = False,
    run: str | Path | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    on_epoch: Callable[[Mapping[str, float]], object] | None = None,
) -> History:
    """Trains a variant by stochastic gradient steps on its objective's loss per datum.

    Loss and gradient of a step are staged: they become one graph of tensor operations, without
    Pyro in it, which long trainings compile. Programs whose structure changes from step to step
    cannot be staged; they run as they are, which one warning says. Adam is fused, data that fit
    stay on the device, and nothing waits for the device before an epoch ends. On CUDA the whole
    staged step, the optimiser's part included, is captured in a CUDA graph and replayed. The
    caller's random numbers and Pyro's parameter store are left as they were.

    With ``run`` the folder gets ``history.csv``, a row as each epoch ends, and ``checkpoint.pt``:
    at most every few seconds, at the end, and when training is interrupted (Ctrl-C) or breaks
    down, of the last whole epoch. Resumed runs end in the same weights as uninterrupted ones; a
    run that is extended by more epochs does if no weight of its objective is scheduled.

    Args:
        vae: The variant; it is trained in place, moved to ``device``, and left in ``eval`` mode.
        x: Training images, a tensor or a NumPy array of shape ``(N, *data_shape)`` and any dtype.
            Numbers count as they are (see `Variant.check_data`): bytes from 0 to 255 are for the
            caller to divide by 255.
        epochs: Passes over the images.
        batch_size: Images per step; a last batch may be smaller. Where the objective pairs the
            images of a batch (``objective.needs_batch``), a last batch of fewer than 64 joins the
            one before it, which is said on the progress bar and in the log.
        lr: Learning rate; parts with a rate of their own keep it in proportion to 1e-3.
        lr_schedule: ``"constant"``, or ``"cosine"``: down to 0, step by step.
        clip_norm: Largest norm of the gradient (per datum); None leaves it as it is.
        device: ``"auto"`` (CUDA if there), or what torch takes.
        seed: Of the noise and of the order of the images. (The weights at the start are the
            variant's own.)
        engine: ``"eager"`` runs Pyro in each step, ``"staged"`` runs the graph, ``"compiled"``
            compiles it first, which takes seconds to a minute. ``"auto"`` chooses by the work
            ahead alone, so that the same training is always run by the same means. All see the
            same noise, and differ by rounding.
        precision: Of matrix products while training: ``"float32"``; ``"tf32"``, on CUDA alone,
            with 10 bits of mantissa; or ``"bf16"``, with 8 bits, forwards and backwards, of a
            float32 model whose step is staged. All else is float32 in each.
        validation: Images to evaluate on after each epoch (``val_`` columns), or the fraction of
            ``x`` to hold out for that. Where training is staged a graph evaluates, which is
            compared with the program as the steps are.
        patience: Stops once the held-out loss has not fallen for so many epochs, with the best
            epoch's weights. Epochs in which a schedule still changed the loss do not count. Holds
            a tenth of ``x`` out if ``validation`` is not given.
        progress: Shows a progress bar on stderr.
        run: Folder to keep history and checkpoint in.
        resume: Goes on from the folder's checkpoint, or starts anew if it has none. A finished
            run is left as it is, with its weights loaded; with more ``epochs`` it is extended, its
            weights' schedules staying at their last values. All other options must be the same.
        on_start: Called once everything given has been checked, before anything is written.
        on_epoch: Called with each row of the history as its epoch ends.

    Returns:
        The history, a row per epoch.

    Raises:
        OptionError: If an option is out of its range, or differs from the run that is resumed.
        DataError: If images are neither tensor nor array, not finite, or the likelihood cannot
            score them.
        ShapeError: If images have another shape than the variant's.
        SiteError: If model, guide and objective do not fit each other.
        RunError: If the folder holds a run already and ``resume`` is off, or another model's.
        StagingError: If the step cannot be staged, and ``precision`` is ``"bf16"``.
        TrainingError: If the loss is no longer finite; it names the step and the terms. The
            weights are then those of the last whole epoch.

    Example:
        >>> import pyro_mivae as mi
        >>> digits = mi.load_dataset("digits")
        >>> vae = mi.VAE(digits.data_shape, latent_dim=2)
        >>> history = fit(vae, digits.x_train, epochs=2)
        >>> len(history), history["loss"][1] < history["loss"][0]
        (2, True)
    """
    settings = TrainingOptions(
        epochs, batch_size, lr, lr_schedule, clip_norm, patience, seed, engine, precision
    )
    target = resolve_device(device)
    images = check_given(vae, x, settings, validation, target)
    training = Training(vae, *images.place(target), settings, target)
    if on_start is not None:
        on_start()
    with Keeper(None if run is None else Path(run), resume=resume) as keeper:
        training.load(keeper, images)
        training.open()
        with progress_bar([training.trainer], enabled=progress) as bar:
            training.run(bar, on_epoch)
    return training.history


class Training:
    """The training of one variant, in stages: checked as it is made, loaded, opened, run.

    Each stage sees the random numbers that the one before it left, a parameter store of its own,
    and the caller's are as they were after it. So trainings may take turns stage by stage, and
    each is what it is alone.

    Attributes:
        trainer: The trainer.
        history: The rows so far.
    """

    def __init__(
        self,
        vae: Any,
        x: Tensor,
        held_out: Tensor | None,
        settings: TrainingOptions,
        device: torch.device,
    ) -> None:
        self.vae = vae.to(device)
        self.settings, self.device = settings, device
        self.history = History()
        self._random: dict[str, Tensor] | None = None
        with self._world():
            self.trainer = Trainer(vae, x, held_out, settings, device)
            check_trainer(self.trainer)
            self.trainer.check_staging()

    def load(self, keeper: Keeper, images: Images) -> None:
        """Goes to where a folder's run was left; writes nothing."""
        with self._world():
            self.keeper = keeper
            self.history = keeper.load(self.trainer, images)

    def open(self) -> None:
        """Makes the folder."""
        self.keeper.open(self.history, finished=self.trainer.finished)

    def run(self, bar: Any, on_epoch: Callable[[Mapping[str, float]], object] | None) -> None:
        """Trains to the end."""
        with self._world():
            try:
                with stoppable():
                    train(self.trainer, self.history, self.keeper, bar, on_epoch)
            except BaseException as error:
                if not isinstance(error, WriteError):
                    with held_back():
                        self.keeper.write(self.history)
                raise
            finally:
                self.vae.eval()
            self.trainer.restore_best()

    @contextmanager
    def _world(self) -> Iterator[None]:
        with (
            own_world(self.device),
            suitable_threads(self.vae, self.settings.batch_size),
            matmul_precision(self.settings.precision),
        ):
            if self._random is None:
                torch.manual_seed(self.settings.seed)
            else:
                set_rng_state(self._random, self.device)
            yield
            self._random = rng_state(self.device)


def train(
    trainer: Trainer,
    history: History,
    keeper: Keeper,
    bar: Any,
    on_epoch: Callable[[Mapping[str, float]], object] | None,
) -> None:
    """Prepares a fresh trainer, and runs the epochs that are left."""
    if not trainer.begun:
        trainer.begun = True
        bar.set_description("preparing")
        with pyro.validation_enabled(False), last_weights_kept(trainer, keeper):
            trainer.vae.initialize(trainer.x)
            check_end(trainer)
    tell_batches(trainer, bar)
    if not trainer.finished:
        bar.set_description("preparing")
        trainer.prepare()
        bar.unpause()  # the time that is left is told from the steps alone
    while not trainer.finished:
        bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.settings.epochs}", False)
        with last_weights_kept(trainer, keeper):
            row = trainer.run_epoch(bar.update)
            check_end(trainer)
        history.append(row)
        keeper.epoch_done(trainer, history)
        show_row(bar, row)
        if on_epoch is not None:
            on_epoch(row)
