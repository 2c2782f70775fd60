"""`fit`: trains a variant on images."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import pyro
import torch
from torch import Tensor

from pyro_mivae.engine import Means, Precision, check_precision, matmul_precision
from pyro_mivae.errors import OptionError, TrainingError
from pyro_mivae.training.checkpoint import Checkpoint, detached_copy
from pyro_mivae.training.history import History
from pyro_mivae.training.keeper import Keeper
from pyro_mivae.training.loop import Settings, Trainer, own_world
from pyro_mivae.training.optimiser import LR_SCHEDULES
from pyro_mivae.training.threads import suitable_threads

HELD_OUT = 0.1
ENGINES = ("auto", *get_args(Means))
logger = logging.getLogger(__name__)


def fit(
    vae: Any,
    x: Tensor,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    lr_schedule: str = "constant",
    clip_norm: float | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    engine: Means | Literal["auto"] = "auto",
    precision: Precision = "float32",
    validation: Tensor | float | None = None,
    patience: int | None = None,
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
    down, of the last whole epoch. Resumed runs end in the same weights as uninterrupted ones.

    Args:
        vae: The variant; it is trained in place, moved to ``device``, and left in ``eval`` mode.
        x: Training images, shape ``(N, *data_shape)``.
        epochs: Passes over the images.
        batch_size: Images per step; a last batch may be smaller. Where the objective pairs the
            images of a batch (``objective.pairs_data``), a last batch of fewer than 64 joins the
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
            ``x`` to hold out for that.
        patience: Stops once the held-out loss has not fallen for so many epochs, with the best
            epoch's weights. Epochs in which a schedule still changed the loss do not count. Holds
            a tenth of ``x`` out if ``validation`` is not given.
        progress: Shows a progress bar on stderr.
        run: Folder to keep history and checkpoint in.
        resume: Goes on from the folder's checkpoint, or starts anew if it has none; a finished
            run is left as it is, with its weights loaded.
        on_start: Called once everything given has been checked, before anything is written.
        on_epoch: Called with each row of the history as its epoch ends.

    Returns:
        The history, a row per epoch.

    Raises:
        OptionError: If an option is out of its range.
        DataError: If images are not finite or the likelihood cannot score them.
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
    settings = Settings(
        epochs, batch_size, lr, lr_schedule, clip_norm, seed, patience, engine, precision
    )
    check_options(settings, validation)
    target = resolve_device(device)
    check_precision(precision, vae.dtype, target, engine)
    vae.check_data(x)
    x, held_out = hold_out(vae, x, validation, patience)
    vae.to(target)
    with (
        own_world(target),
        suitable_threads(vae, batch_size),
        matmul_precision(precision),
    ):
        torch.manual_seed(seed)
        trainer = Trainer(vae, *place(vae, x, held_out, target), settings, target)
        check_trainer(trainer)
        if on_start is not None:
            on_start()
        keeper = Keeper(None if run is None else Path(run), resume)
        history = keeper.start(trainer)
        try:
            with progress_bar([trainer], enabled=progress) as bar:
                train(trainer, history, keeper, bar, on_epoch)
        except (KeyboardInterrupt, TrainingError):
            keeper.write(history)
            raise
        finally:
            vae.eval()
        trainer.restore_best()
    return history


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Gives the device that a name stands for.

    Args:
        device: ``"auto"`` (CUDA if there is one, else the CPU), or what torch takes.

    Returns:
        The device.

    Raises:
        OptionError: If there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device  # with its index
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(
            f"device {device!s} is not to be had here; allowed are auto, cpu"
            + (", cuda" if torch.cuda.is_available() else "")
        ) from error


def train(
    trainer: Trainer,
    history: History,
    keeper: Keeper,
    bar: Any,
    on_epoch: Callable[[Mapping[str, float]], object] | None,
) -> None:
    """Prepares a fresh trainer, and runs the epochs that are left.

    Args:
        trainer: The trainer.
        history: Gets a row per epoch.
        keeper: Keeps it.
        bar: The progress bar.
        on_epoch: Called with each row.

    Raises:
        TrainingError: If the loss is no longer finite.
    """
    begin(trainer, bar)
    tell_batches(trainer, bar)
    if not trainer.finished:
        bar.set_description("compiling" if trainer.engine.means == "compiled" else "preparing")
        trainer.prepare()
        bar.unpause()  # the time that is left is told from the steps alone
    while not trainer.finished:
        bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.settings.epochs}", False)
        with last_weights_kept(trainer, keeper):
            row = trainer.run_epoch(bar.update)
        history.append(row)
        keeper.epoch_done(trainer, history)
        show_row(bar, row)
        if on_epoch is not None:
            on_epoch(row)


def begin(trainer: Trainer, bar: Any) -> None:
    """Prepares a fresh trainer's parameters.

    Args:
        trainer: The trainer.
        bar: The progress bar.
    """
    if not trainer.begun:
        trainer.begun = True
        bar.set_description("preparing")
        with pyro.validation_enabled(False):
            trainer.vae.initialize(trainer.x)


def show_row(bar: Any, row: Mapping[str, float]) -> None:
    """Shows what an epoch came to.

    Args:
        bar: The progress bar.
        row: The epoch's row.
    """
    shown = [f"{key} {row[key]:.2f}" for key in ("loss", "elbo") if key in row]
    bar.set_postfix_str(", ".join(shown), False)


@contextmanager
def last_weights_kept(
    trainer: Trainer, keeper: Keeper, weights: Checkpoint | None = None
) -> Iterator[None]:
    """Puts the weights back to where they were if what is run here breaks down.

    Args:
        trainer: The trainer.
        keeper: What keeps it.
        weights: Those at the epoch's beginning; the present ones if omitted.

    Raises:
        TrainingError: If it does; it says so.
    """
    if weights is None:
        weights = detached_copy(trainer.vae.state_dict())
    try:
        yield
    except TrainingError as error:
        trainer.vae.load_state_dict(weights)
        kept = "" if keeper.folder is None else f", kept in {keeper.folder}"
        raise TrainingError(
            f"{error}. The weights are those after epoch {trainer.epoch} again{kept}"
        ) from None


def check_trainer(trainer: Trainer) -> None:
    """Checks that training can begin: data, options, model, guide and objective fit each other.

    Args:
        trainer: The trainer.

    Raises:
        OptionError: If an option does not go with the objective.
        SiteError: If model, guide and objective do not fit each other.
    """
    _check_patience(trainer)
    _check_pairs(trainer)
    trainer.check_pair()


def _check_patience(trainer: Trainer) -> None:
    """Checks that the loss can tell which epoch was the best.

    Raises:
        OptionError: If it cannot.
    """
    if trainer.settings.patience is not None and not trainer.objective.measures_fit:
        raise OptionError(
            f"patience={trainer.settings.patience}: the loss of {type(trainer.vae).__name__} is "
            "the sum of its players', which need not fall; leave patience out, and choose epochs"
        )


def _check_pairs(trainer: Trainer) -> None:
    """Checks that there are pairs to be had where the objective needs them.

    Raises:
        OptionError: If a batch would hold a single image.
    """
    if trainer.pairs_data and min(trainer.batch_sizes) < 2:
        raise OptionError(
            f"batch_size={trainer.settings.batch_size} for {len(trainer.x)} image(s): the "
            "objective sets each image beside others of its batch; 2 is the least, 64 and more "
            "are of use"
        )
    held_out = trainer.validation
    if trainer.pairs_data and held_out is not None and len(held_out) < 2:
        raise OptionError(
            "one image is held out, and the objective sets each beside others; hold out 2 or more"
        )


def tell_batches(trainer: Trainer, bar: Any) -> None:
    """Says so where a last batch was too small to stand alone.

    Args:
        trainer: The trainer.
        bar: The progress bar.
    """
    batch_size = trainer.settings.batch_size
    if max(trainer.batch_sizes) > batch_size:
        text = (
            f"the last {len(trainer.x) % batch_size} images join the batch before them: "
            "the objective sets the images of a batch beside each other, and so few say little"
        )
        logger.info(text)
        if not bar.disable:
            bar.write(text, file=sys.stderr)


def progress_bar(trainers: Sequence[Trainer], *, enabled: bool) -> Any:
    """Makes a bar of all their steps on stderr.

    Args:
        trainers: The trainers.
        enabled: Whether it is shown.
    """
    from tqdm.std import tqdm

    return tqdm(
        total=sum(trainer.num_steps for trainer in trainers),
        initial=sum(trainer.step for trainer in trainers),
        unit="step",
        disable=not enabled,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 5.0,
    )


def check_options(settings: Settings, validation: Tensor | float | None) -> None:
    """Checks every option's range.

    Args:
        settings: How to train.
        validation: What to hold out.

    Raises:
        OptionError: If one is outside.
    """
    whole = {"epochs": settings.epochs, "batch_size": settings.batch_size}
    if settings.patience is not None:
        whole["patience"] = settings.patience
    for name, count in whole.items():
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"{name}={count!r}; allowed are whole numbers from 1 up")
    positive = {"lr": settings.lr}
    if settings.clip_norm is not None:
        positive["clip_norm"] = settings.clip_norm
    for name, value in positive.items():
        if not (value > 0 and math.isfinite(value)):
            raise OptionError(f"{name}={value!r}; allowed are finite numbers above 0")
    if settings.engine not in ENGINES:
        raise OptionError(f"engine={settings.engine!r}; allowed are {', '.join(ENGINES)}")
    if settings.lr_schedule not in LR_SCHEDULES:
        allowed = ", ".join(LR_SCHEDULES)
        raise OptionError(f"lr_schedule={settings.lr_schedule!r}; allowed are {allowed}")
    if isinstance(validation, float | int) and not 0 < validation < 1:
        raise OptionError(f"validation={validation}; allowed are fractions between 0 and 1")


def hold_out(
    vae: Any, x: Tensor, validation: Tensor | float | None, patience: int | None
) -> tuple[Tensor, Tensor | None]:
    """Splits held-out images off, if that is asked for.

    Args:
        vae: The variant.
        x: Training images.
        validation: Images, or a share of ``x``.
        patience: Asks for a tenth if ``validation`` does not say.

    Returns:
        The images to train on, and those held out.

    Raises:
        OptionError: If there are too few.
    """
    if isinstance(validation, Tensor):
        vae.check_data(validation)
        return x, validation
    if validation is None:
        if patience is None:
            return x, None
        validation = HELD_OUT
    if len(x) < 2:
        raise OptionError(f"{len(x)} image(s) given, and some are to be held out; give 2 or more")
    count = min(max(1, round(validation * len(x))), len(x) - 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[count:]], x[order[:count]]


def place(
    vae: Any, x: Tensor, held_out: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Puts images on the device if they take at most half its memory; in the weights' type.

    Args:
        vae: The variant.
        x: Training images.
        held_out: Held-out images.
        device: The device.
    """
    parameter = next(vae.parameters(), None)
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    size = dtype.itemsize * (x.numel() + (0 if held_out is None else held_out.numel()))
    if device.type == "cuda" and size > 0.5 * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    return x.to(device, dtype), None if held_out is None else held_out.to(device, dtype)
