"""`fit_many`: trains several variants one after the other, each as `fit` trains it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, either, flag, function, path, several
from pyro_mivae.engine import Engine, Mode, Precision
from pyro_mivae.errors import ManyTrainingError, OptionError, TrainingError
from pyro_mivae.options import checks_of
from pyro_mivae.training.fit import Training
from pyro_mivae.training.given import DEVICE, Images, check_given, resolve_device
from pyro_mivae.training.history import History
from pyro_mivae.training.keeper import Keeper
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.progress import progress_bar
from pyro_mivae.variants import VARIANT

OPTIONS = checks_of(TrainingOptions)


@checked(
    device=DEVICE,
    progress=flag(),
    resume=flag(),
    on_start=function("on_start()"),
    on_epoch=function("on_epoch(number, row)"),
    vaes=several(VARIANT),
    lr=either(OPTIONS["lr"], several(OPTIONS["lr"])),
    seeds=several(OPTIONS["seed"]),
    runs=several(path()),
    **{name: check for name, check in OPTIONS.items() if name not in ("lr", "seed")},
)
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
    engine: Mode | Literal["auto"] = "auto",
    precision: Precision = "float32",
    validation: Tensor | float | None = None,
    patience: int | None = None,
    progress: bool = False,
    runs: Sequence[str | Path] | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    on_epoch: Callable[[int, Mapping[str, float]], object] | None = None,
) -> list[History]:
    """Trains several variants on the same images, one after the other.

    Model k ends with the weights of ``fit(vaes[k], x, seed=seeds[k], ...)``, bit for bit. The
    models may be of any kinds. Everything given is checked for all of them before the first is
    trained. Models that take the same steps are staged and compiled once.

    A model whose loss is no longer finite gets the weights of its last whole epoch back; the
    others are trained to their end before the error is raised.

    Args:
        vaes: The variants, each an object of its own; they are trained in place, moved to
            ``device``, and left in ``eval`` mode.
        x: Training images, shape ``(N, *data_shape)``, for all.
        epochs: Passes over the images.
        batch_size: Images per step, as for `fit`.
        lr: Learning rate, one for all or one for each.
        lr_schedule: As for `fit`.
        clip_norm: As for `fit`.
        device: ``"auto"`` (CUDA if there), or what torch takes.
        seeds: Of noise and order, one for each; 0, 1, 2, ... if omitted. (The weights at the
            start are the variants' own.)
        engine: As for `fit`.
        precision: As for `fit`.
        validation: Images to evaluate on, or the fraction of ``x`` to hold out, as for `fit`.
        patience: As for `fit`, for each model by itself.
        progress: Shows one progress bar for all on stderr.
        runs: Folders to keep histories and checkpoints in, one for each.
        resume: Goes on from the folders' checkpoints.
        on_start: Called once everything given has been checked, before anything is written.
        on_epoch: Called with the model's number and each row of its history.

    Returns:
        The histories, in the order of the models.

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
    _check_models(vaes)
    count = len(vaes)
    lrs = [lr] * count if isinstance(lr, int | float) else _one_for_each("lr", lr, count)
    seeds = list(range(count)) if seeds is None else _one_for_each("seeds", seeds, count)
    folders = _check_folders(runs, count)
    settings = [
        TrainingOptions(
            epochs, batch_size, rate, lr_schedule, clip_norm, patience, seed, engine, precision
        )
        for rate, seed in zip(lrs, seeds, strict=True)
    ]
    target = resolve_device(device)
    given: list[Images] = []  # models share them where they take the same
    for vae, own in zip(vaes, settings, strict=True):
        images = check_given(vae, x, own, validation, target)
        given.append(next((known for known in given if known.equals(images)), images))
    placed = {id(images): images.place(target) for images in given}
    trainings = [
        Training(vae, *placed[id(images)], own, target)
        for vae, images, own in zip(vaes, given, settings, strict=True)
    ]
    if on_start is not None:
        on_start()
    with ExitStack() as writers:
        for training, images, folder in zip(trainings, given, folders, strict=True):
            keeper = writers.enter_context(Keeper(folder, resume=resume))
            training.load(keeper, images)
        for training in trainings:
            training.open()
        return _run(trainings, progress, on_epoch)


def _run(
    trainings: list[Training],
    progress: bool,
    on_epoch: Callable[[int, Mapping[str, float]], object] | None,
) -> list[History]:
    """Runs trainings one after the other to their ends, or to where a loss is not finite."""
    count = len(trainings)
    histories = [training.history for training in trainings]
    like: Engine | None = None  # staged and compiled once for all
    failures: dict[int, str] = {}
    with progress_bar([training.trainer for training in trainings], enabled=progress) as bar:
        for number in range(count):
            training = trainings.pop(0)  # what it captured is freed after it
            training.trainer.like = like
            like = like or training.trainer.engine
            try:
                training.run(bar, None if on_epoch is None else partial(on_epoch, number))
            except TrainingError as error:
                failures[number] = str(error)
    if failures:
        told = "; ".join(f"model {number}: {failure}" for number, failure in failures.items())
        raise ManyTrainingError(f"{len(failures)} of {count} models: {told}", failures, histories)
    return histories


def _check_models(models: Sequence[Any]) -> None:
    """Checks that no two models share parameters."""
    owner: dict[int, int] = {}
    for number, vae in enumerate(models):
        for tensor in (*vae.parameters(), *vae.buffers()):
            other = owner.setdefault(id(tensor), number)
            if other != number:
                raise OptionError(
                    f"models {other} and {number} share parameters, so that neither would be "
                    "trained as it is alone; give each its own, by copy.deepcopy for one"
                )


def _one_for_each(name: str, values: Sequence[Any], count: int) -> Sequence[Any]:
    """Checks that an option has a value for each model."""
    if len(values) != count:
        raise OptionError(f"{name} holds {len(values)} for {count} models; give one for each")
    return values


def _check_folders(runs: Sequence[str | Path] | None, count: int) -> list[Path | None]:
    """Checks that each model has a folder of its own, if any has."""
    if runs is None:
        return [None] * count
    folders = [Path(run) for run in _one_for_each("runs", runs, count)]
    owner: dict[Path, int] = {}
    for number, folder in enumerate(folders):
        other = owner.setdefault(folder.resolve(), number)
        if other != number:
            raise OptionError(
                f"models {other} and {number} are both to be kept in {folder}; give each a folder "
                "of its own"
            )
    return [*folders]
