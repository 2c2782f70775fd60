"""`fit`: trains a variant on images."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, flag, function, instance, path
from pyro_mivae.elbo import Objective
from pyro_mivae.engine.precision import check_precision, matmul_precision
from pyro_mivae.engine.snapshot import rng_state, set_rng_state
from pyro_mivae.errors import (
    OptionError,
    PyroMivaeError,
    PyroMivaeWarning,
    RankError,
    SiteError,
    TrainingError,
    WriteError,
)
from pyro_mivae.interrupts import held_back, stoppable
from pyro_mivae.options import takes_options
from pyro_mivae.progress import bars
from pyro_mivae.ranks import ALONE, Ranks
from pyro_mivae.training.arguments import (
    DEVICE,
    Images,
    Placed,
    cuda_devices,
    resolve_device,
    suitable_threads,
)
from pyro_mivae.training.checkpointer import Checkpointer
from pyro_mivae.training.checks import check_pair, check_trainer
from pyro_mivae.training.history import History, Meter
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.trainer import Trainer
from pyro_mivae.variants import VARIANT
from pyro_mivae.variants.checks import broken_weights, check_weights

logger = logging.getLogger(__name__)
REMEDY = "try a lower learning rate or gradient clipping"


@checked(
    vae=VARIANT,
    device=DEVICE,
    progress=flag(),
    run=path(),
    resume=flag(),
    objective=instance(Objective, example="mi.MutualInformationELBO()"),
    on_start=function("on_start()"),
    on_epoch=function("on_epoch(row)"),
)
@takes_options(TrainingOptions)
def fit(
    vae: Any,
    x: Any,
    *,
    options: TrainingOptions,
    objective: Objective | None = None,
    labels: Any = None,
    given: Any = None,
    device: str | torch.device = "auto",
    validation: Any = None,
    progress: bool = False,
    run: str | Path | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    on_epoch: Callable[[Mapping[str, float]], object] | None = None,
) -> History:
    """Trains a variant by stochastic gradient steps on its objective's loss per datum.

    Loss and gradient of a step are staged: they become one graph of tensor operations without
    Pyro, which long trainings compile. A program whose structure changes from step to step runs in
    Pyro, with one warning. On CUDA the whole step, with the optimiser, is captured in a CUDA
    graph. The caller's random numbers and Pyro's parameter store do not change.

    With ``run`` the folder gets ``history.csv``, with a row after each epoch, and
    ``checkpoint.pt`` of the last complete epoch. The checkpoint is written at most every few
    seconds, at the end, and when training is interrupted (Ctrl-C) or breaks down. Resumed runs end
    in the same weights as uninterrupted ones, and extended runs too if their objective has no
    scheduled weight.

    Args:
        vae: The variant; it is trained in place, moved to ``device``, and left in ``eval`` mode.
        x: Training data, a tensor, array, ``Dataset`` or ``DataLoader``, shape ``(N,
            *data_shape)``, see `Variant.check_data`. Those to be made binary lie in [0, 1], see
            `binarize`.
        options: See `TrainingOptions`.
        objective: A loss in place of ``vae.objective()``. It is copied and does not change; its
            networks are trained, and must be attributes of the variant. The losses of Pyro have no
            ledger: `MutualInformationELBO` is the ELBO of ``Trace_ELBO`` with one.
        labels: Categories of some images, integers of shape ``(N,)``: from 0, or -1 for no label.
            The labels observe the category, and the guide learns to classify: the objective is
            that of `LabelledCategory`. Each step reads as many labelled images, drawn at random,
            as are in a batch (or all of them) for the classifier's term, so every label counts the
            same, however few there are. They also take part in the start of the categories.
        given: The condition of each image, for a variant with ``given_shape``: numbers of shape
            ``(N, *given_shape)``, or labels, integers of shape ``(N,)``, which become one-hot
            vectors. Model and guide get it as their second argument.
        device: ``"auto"`` (CUDA if available), or a device of torch.
        validation: Images to evaluate on after each epoch (``val_`` columns), or the fraction of
            ``x`` to hold out for that, images without a label first. The columns show the loss
            without labels. With a condition it is a pair of images and their condition.
        progress: True to show a progress bar on stderr.
        run: Folder for history and checkpoint.
        resume: True to continue from the folder's checkpoint, or to start if it has none. For a
            finished run only the weights are loaded. With more ``epochs`` it is extended, and
            schedules of weights keep their last values. All other options must be the same.
        on_start: Called after all checks of arguments, before anything is written.
        on_epoch: Called with each row of the history after its epoch.

    Returns:
        The history, a row per epoch.

    Raises:
        OptionError: If an option is out of its range, or differs from the run that is resumed; if
            labels are given to a variant without a category, or without an ELBO; or if ``given``
            is missing, or the variant takes none.
        DataError: If images are not a tensor or an array, are not finite, or cannot be scored by
            the likelihood or made binary; or if a label is no category, or all are -1.
        ShapeError: If images have another shape than the variant's, or if there is not one label
            or condition for each.
        SiteError: If model, guide and objective do not match.
        RunError: If the folder holds a run and ``resume`` is off, or the run of another model.
        StagingError: If the step cannot be staged, and ``precision`` is ``"bf16"``.
        TrainingError: If the loss is not finite; the message names the step and the terms. The
            weights are then those of the last complete epoch.

    Example:
        >>> import pyro_mivae as mi
        >>> digits = mi.load_dataset("digits")
        >>> vae = mi.VAE(digits.data_shape, latent_dim=2)
        >>> history = fit(vae, digits.x_train, epochs=2)
        >>> len(history), history["loss"][1] < history["loss"][0]
        (2, True)
    """
    target = resolve_device(device)
    images = Images.checked(vae, x, validation, options, labels, given)
    ranks = Ranks.of_group()
    training = Training(vae, images, images.place(target), options, target, objective, ranks)
    if on_start is not None:
        ranks.first_does(on_start)
    with checkpointing(run, ranks, resume=resume) as checkpointer:
        training.load(checkpointer)
        training.open()
        with progress_bar([training], enabled=progress and ranks.is_first) as bar:
            training.run(bar, on_epoch)
    return training.history


class Training:
    """The training of one variant: checked as it is made, loaded, opened, run.

    Each stage continues the random numbers of the previous stage, with a separate parameter store.
    So several trainings may alternate by stage, with the same results as alone.
    """

    def __init__(
        self,
        vae: Any,
        images: Images,
        placed: Placed,
        options: TrainingOptions,
        device: torch.device,
        objective: Objective | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        check_precision(options.precision, vae.dtype, device, options.engine)
        check_weights(vae)
        self.vae, self.images = vae.to(device), images
        self.options, self.device = options, device
        self.history = History()
        self._random: dict[str, Tensor] | None = None
        with self._world():
            self.trainer = Trainer(vae, *placed, options, device, objective, ranks)
            check_trainer(self.trainer)

    @contextmanager
    def _world(self) -> Iterator[None]:
        with (
            torch.random.fork_rng(devices=cuda_devices(self.device)),
            pyro.get_param_store().scope(),  # no other model's parameters take their names
            suitable_threads(self.vae, self.options.batch_size),
            matmul_precision(self.options.precision),
        ):
            if self._random is None:
                torch.manual_seed(self.options.seed)
            else:
                set_rng_state(self._random, self.device)
            yield
            self._random = rng_state(self.device)

    def load(self, checkpointer: Checkpointer | None) -> None:
        """Restores the state of a folder's run; writes nothing."""
        self.checkpointer = checkpointer
        if checkpointer is not None:
            with self._world():
                self.history = checkpointer.load(self.trainer, self.images)

    def open(self) -> None:
        """Creates the folder, if one is given."""
        if self.checkpointer is not None:
            self.checkpointer.open(self.history, finished=self.trainer.finished)

    def run(self, bar: Any, on_epoch: Callable[[Mapping[str, float]], object] | None) -> None:
        """Trains to the end; if it stops before, the last complete epoch is kept."""
        with self._world():
            try:
                with stoppable(), broken_down(self.trainer):
                    self._run(bar, on_epoch)
            except WriteError:
                raise
            except BaseException as error:
                told = None
                if isinstance(error, TrainingError) and not isinstance(error, RankError):
                    told = self._taken_back(error)
                if self.checkpointer is not None:
                    with held_back():
                        self.checkpointer.write(self.history)
                if told is not None:
                    raise told from None
                raise
            finally:
                self.vae.eval()
                self.trainer.free()
            self.trainer.restore_best()

    def _run(self, bar: Any, on_epoch: Callable[[Mapping[str, float]], object] | None) -> None:
        trainer = self.trainer
        self._keep_weights()
        if not trainer.finished:
            bar.set_description("preparing")
        if not trainer.begun:
            trainer.begun = True
            with pyro.validation_enabled(False), bars(enabled=not bar.disable):
                trainer.initialize()
            check_end(trainer)
            self._keep_weights()
        self.tell_batches(bar)
        if not trainer.finished:
            trainer.prepare()
            bar.unpause()  # the remaining time follows from the steps only
        while not trainer.finished:
            bar.set_description(f"epoch {trainer.epoch + 1}/{self.options.epochs}", False)
            row = trainer.run_epoch(bar.update)
            check_end(trainer)
            self._keep_weights()
            self.history.append(row)
            if self.checkpointer is not None:
                self.checkpointer.epoch_done(trainer, self.history)
            shown = "elbo" if "elbo" in row else "loss"
            bar.set_postfix_str(f"{shown} {row[shown]:.2f}", False)
            if on_epoch is not None:
                trainer.ranks.first_does(partial(on_epoch, row))
            if trainer.finished:
                for limit in trainer.objective.limits:
                    warnings.warn(f"out of reach: {limit}", PyroMivaeWarning, stacklevel=2)

    def _keep_weights(self) -> None:
        """Copies the weights of the last complete epoch."""
        self._weights = self.trainer.epoch, deepcopy(self.vae.state_dict())

    def _taken_back(self, error: TrainingError) -> TrainingError:
        """Restores the weights from before they diverged, and adds that to the error."""
        epoch, weights = self._weights
        self.vae.load_state_dict(weights)
        back = f"after epoch {epoch}" if epoch else "before the first epoch"
        lost = bool(epoch) and has_run_away(self.trainer)
        if lost:
            back += f" (epoch {epoch}'s ELBO is not finite either)"
        kept, keeps = "", self.checkpointer
        if keeps is not None:
            if lost:
                keeps.forget()
            kept = f"; {keeps.folder} keeps {f'epoch {keeps.kept}' if keeps.kept else 'none'}"
            if epoch and not lost:
                kept = f", kept in {keeps.folder}; from there it breaks down again: train again"
        return TrainingError(f"{error}. The weights are those {back} again{kept}")

    def tell_batches(self, bar: Any) -> None:
        """Reports a last batch that was too small to be separate."""
        batch_size = self.options.batch_size
        if max(self.trainer.batch_sizes) > batch_size:
            text = (
                f"the last {len(self.trainer.x) % batch_size} images join the batch before them: "
                "the objective compares the images of a batch, and so few are too noisy"
            )
            logger.info(text)
            if not bar.disable:
                bar.write(text, file=sys.stderr)


def checkpointing(
    run: str | Path | None, ranks: Ranks, *, resume: bool
) -> AbstractContextManager[Checkpointer | None]:
    """Opens a run's folder, if there is one."""
    if run is not None:
        return Checkpointer(Path(run), ranks, resume=resume)
    if resume:
        raise OptionError("resume=True without run=; give the folder to continue from")
    return nullcontext()


def progress_bar(trainings: Sequence[Training], *, enabled: bool) -> Any:
    """Makes a progress bar of all steps on stderr."""
    from tqdm.std import tqdm

    return tqdm(
        total=sum(training.trainer.num_steps for training in trainings),
        initial=sum(training.trainer.step for training in trainings),
        unit="step",
        disable=not enabled,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 5.0,
    )


def check_end(trainer: Trainer) -> None:
    """Checks that weights are finite after an epoch, and the loss at the end."""
    _check_weights(trainer)
    if trainer.finished:
        meter, ledger = Meter(trainer.step + 1), trainer.evaluated()
        meter.add(tuple(ledger), torch.stack(list(ledger.values())), trainer.batch_sizes[0])
        meter.means()


def has_run_away(trainer: Trainer) -> bool:
    """Returns True if finite weights give an ELBO (or a game's loss) that is not finite."""
    try:
        ledger = trainer.evaluated()
    except (RuntimeError, ValueError):
        return True
    return not bool(ledger.get("elbo", ledger["loss"]).isfinite())


@contextmanager
def broken_down(trainer: Trainer) -> Iterator[None]:
    """Raises a TrainingError if diverged weights make an operation fail."""
    try:
        yield
    except PyroMivaeError:
        raise
    except (RuntimeError, ValueError) as error:
        _check_weights(trainer, error)
        try:
            check_pair(trainer)
        except SiteError as found:
            told = str(found).splitlines()[0].rstrip(":")
            raise TrainingError(
                f"after step {trainer.step} {told}; if numbers diverged, {REMEDY}"
            ) from error
        if trainer.ranks.size > 1:
            with trainer.ranks.exchanging(f" after step {trainer.step}"):
                raise
        raise


def _check_weights(trainer: Trainer, cause: Exception | None = None) -> None:
    wrong = broken_weights(trainer.vae)
    if wrong:
        others = f" and {len(wrong) - 1} other tensors" if len(wrong) > 1 else ""
        raise TrainingError(
            f"weights are not finite after step {trainer.step} ({wrong[0]}{others}); {REMEDY}"
        ) from cause
