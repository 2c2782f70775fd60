"""`fit_many`: trains several variants, each as `fit` trains it alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pyro_mivae.arguments import checked, either, flag, function, instance, path, several, whole
from pyro_mivae.elbo import Objective
from pyro_mivae.engine.steps import Engine
from pyro_mivae.errors import ManyTrainingError, OptionError, TrainingError
from pyro_mivae.options import checks_of, takes_options
from pyro_mivae.ranks import ALONE, Ranks
from pyro_mivae.training.arguments import DEVICE, Images, Placed, resolve_device
from pyro_mivae.training.fit import Training, checkpointing, progress_bar
from pyro_mivae.training.history import History
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.processes import OnRow, Result, in_processes, in_ranks
from pyro_mivae.variants import VARIANT

CHECKS = checks_of(TrainingOptions)
PER_MODEL = ("lr", "seed")
_OBJECTIVE = instance(Objective, example="mi.MutualInformationELBO()")


@checked(
    vaes=several(VARIANT),
    lr=either(CHECKS["lr"], several(CHECKS["lr"])),
    seeds=several(CHECKS["seed"]),
    device=DEVICE,
    progress=flag(),
    jobs=whole(least=1),
    runs=several(path()),
    resume=flag(),
    objective=either(_OBJECTIVE, several(_OBJECTIVE)),
    on_start=function("on_start()"),
    on_epoch=function("on_epoch(number, row)"),
)
@takes_options(TrainingOptions, without=PER_MODEL)
def fit_many(
    vaes: Sequence[Any],
    x: Any,
    *,
    options: TrainingOptions,
    lr: float | Sequence[float] = TrainingOptions.lr,
    seeds: Sequence[int] | None = None,
    labels: Any = None,
    given: Any = None,
    objective: Objective | Sequence[Objective] | None = None,
    device: str | torch.device = "auto",
    validation: Any = None,
    progress: bool = False,
    jobs: int = 1,
    runs: Sequence[str | Path] | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    on_epoch: OnRow | None = None,
) -> list[History]:
    """Trains several variants on the same images.

    Model k ends with the weights of ``fit(vaes[k], x, seed=seeds[k], ...)``, bit for bit. The
    models may be of different kinds. All arguments are checked before the first training. Models
    with the same steps are staged and compiled once.

    A model that breaks down gets the weights of its last complete epoch. The others are trained to
    the end before the error is raised.

    Args:
        vaes: The variants, separate objects, trained in place.
        x: Training images for all, as in `fit`.
        options: See `TrainingOptions`.
        lr: Learning rate, one for all or one for each.
        seeds: Seeds of noise and order, one for each; 0, 1, 2, ... if omitted.
        labels: Categories of some images, as in `fit`; or a list of them, one for each model.
        given: The condition of each image, as in `fit`.
        objective: A loss in place of ``vae.objective()``, as in `fit`; or a list of them, one for
            each model, as losses with networks need.
        device: As for `fit`.
        validation: Images to evaluate on, or the fraction of ``x`` to hold out, as for `fit`.
        progress: True to show one progress bar for all on stderr.
        jobs: Number of processes that train at the same time. Each prepares its own step, and gets
            its share of the models and of torch's threads. A script with jobs must call `fit_many`
            under ``if __name__ == "__main__"``.
        runs: Folders for histories and checkpoints, one for each.
        resume: True to continue from the folders' checkpoints.
        on_start: Called after all checks of arguments, before anything is written.
        on_epoch: Called with the model's index and each row of its history.

    Returns:
        The histories, in the order of the models.

    Raises:
        OptionError: As `fit`; or if there is not one value per model, a model or a folder is given
            twice, or models share parameters or cannot be sent to another process.
        DataError, ShapeError, SiteError, RunError, StagingError: As `fit`, for any model.
        ManyTrainingError: If the training of a model failed; it names the models, and holds all
            histories.

    Example:
        >>> import pyro_mivae as mi
        >>> digits = mi.load_dataset("digits")
        >>> vaes = [mi.BetaVAE(digits.data_shape, latent_dim=2, beta=b) for b in (0.5, 4.0)]
        >>> histories = mi.fit_many(vaes, digits.x_train, epochs=2)
        >>> histories[0]["rate"][-1] > histories[1]["rate"][-1]
        True
    """
    _check_apart(
        [map(id, (*vae.parameters(), *vae.buffers())) for vae in vaes],
        "share parameters, so they cannot be trained independently; copy one of them by "
        "copy.deepcopy",
    )
    count, tell = len(vaes), on_epoch or (lambda number, row: None)
    lrs, known = _each("lr", lr, count), _each("labels", labels, count)
    seeds = list(range(count)) if seeds is None else _each("seeds", seeds, count)
    objectives = _each("objective", objective, count)
    folders = [folder and Path(folder) for folder in _each("runs", runs, count)]
    _check_apart(
        [[folder.resolve()] if folder else [] for folder in folders],
        "are both to be kept in {}; give each its own folder",
    )
    ranks = Ranks.of_group()
    apart = ranks.size > 1 and count > 1  # each process trains models of its own
    together = ALONE if apart else ranks
    if jobs > 1 and ranks.size > 1:
        raise OptionError(
            f"jobs={jobs} in {ranks.size} processes, which train the models already; leave "
            "jobs out"
        )
    target = resolve_device(device)
    placed: dict[str, tuple[Images, Placed]] = {}
    trainings = []
    each_model = zip(vaes, lrs, seeds, known, objectives, strict=True)
    for vae, own_lr, seed, own_labels, loss in each_model:
        own = replace(options, lr=own_lr, seed=seed)
        images = Images.checked(vae, x, validation, own, own_labels, given)
        same = str(images.fingerprints)  # models with the same data share them
        if same not in placed:
            placed[same] = images, images.place(target)
        trainings.append(Training(vae, *placed[same], own, target, loss, together))
    if on_start is not None:
        ranks.first_does(on_start)
    with ExitStack() as writers:
        for training, folder in zip(trainings, folders, strict=True):
            if ranks.is_first or not apart:
                keeps = checkpointing(folder, together, resume=resume)
                training.load(writers.enter_context(keeps))
        histories = [training.history for training in trainings]
        if jobs == 1 and not apart:
            failures = _one_by_one(trainings, progress and ranks.is_first, tell)
    if jobs > 1 or apart:  # the folders are the processes' own from here on
        shared = {k: v for k, v in asdict(options).items() if k not in PER_MODEL}
        shared |= {"validation": validation, "device": device, "resume": resume, "given": given}
        models = list(zip(vaes, lrs, seeds, known, objectives, folders, strict=True))
        if apart:
            ranks.wait()  # until the first one has released the folders
            shared["progress"] = progress and ranks.is_first
            train = partial(_train_share, x, shared)
            failures = _take_over(trainings, in_ranks(train, models, ranks, tell))
        else:
            run = partial(in_processes, partial(_train_share, x, shared), models, jobs)
            failures = _at_once(run, trainings, progress, tell)
    if failures:
        told = "; ".join(f"model {number}: {failure}" for number, failure in failures.items())
        raise ManyTrainingError(f"{len(failures)} of {count} models: {told}", failures, histories)
    return histories


def _one_by_one(trainings: list[Training], progress: bool, on_epoch: OnRow) -> dict[int, str]:
    """Runs trainings one after the other, and returns the failures."""
    like: Engine | None = None  # staged and compiled once for all
    failures = {}
    for training in trainings:
        training.open()
    with progress_bar(trainings, enabled=progress) as bar:
        for number in range(len(trainings)):
            training = trainings.pop(0)  # its captures are freed afterwards
            training.trainer.like = like
            like = like or training.trainer.engine
            try:
                training.run(bar, partial(on_epoch, number))
            except TrainingError as error:
                failures[number] = str(error)
    return failures


def _at_once(
    run: Callable[[OnRow], list[Result]],
    trainings: list[Training],
    progress: bool,
    on_epoch: OnRow,
) -> dict[int, str]:
    """Runs trainings in other processes, and returns the failures."""
    with progress_bar(trainings, enabled=progress) as bar:
        for training in trainings:
            training.tell_batches(bar)

        def on_row(number: int, row: Mapping[str, float]) -> None:
            history = trainings[number].history
            before = history[-1]["step"] if history else 0
            history.append(row)
            bar.update(row["step"] - before)
            on_epoch(number, row)

        results = run(on_row)
    return _take_over(trainings, results)


def _take_over(trainings: Sequence[Training], results: Sequence[Result]) -> dict[int, str]:
    """Takes weights and histories of other processes; returns the failures."""
    for training, (weights, rows, _) in zip(trainings, results, strict=True):
        training.vae.load_state_dict(weights or training.vae.state_dict())
        training.vae.eval()
        training.history.rows[:] = training.history.rows if rows is None else rows
    return {number: told for number, (*_, told) in enumerate(results) if told}


def _train_share(
    x: Any, options: Mapping[str, Any], given: Sequence[Any], on_row: OnRow
) -> list[Result]:
    """Trains a process's share of the models."""
    vaes, lrs, seeds, labels, objectives, folders = zip(*given, strict=True)
    failures: Mapping[int, str] = {}
    runs = None if None in folders else folders
    try:
        how: dict[str, Any] = {"lr": lrs, "seeds": seeds, "labels": labels, "runs": runs}
        given_loss = None if objectives[0] is None else objectives
        histories = fit_many(vaes, x, objective=given_loss, on_epoch=on_row, **how, **options)
    except ManyTrainingError as error:
        failures, histories = error.failures, error.histories
    states = [{name: value.cpu() for name, value in vae.state_dict().items()} for vae in vaes]
    return [
        (state, history.rows, failures.get(number, ""))
        for number, (state, history) in enumerate(zip(states, histories, strict=True))
    ]


def _check_apart(belongings: Sequence[Iterable[Hashable]], told: str) -> None:
    """Checks that models share nothing."""
    owner: dict[Hashable, int] = {}
    for number, own in enumerate(belongings):
        for thing in own:
            other = owner.setdefault(thing, number)
            if other != number:
                raise OptionError(f"models {other} and {number} {told.format(thing)}")


def _each(name: str, given: Any, count: int) -> Sequence[Any]:
    """Returns an option's value for each model: those of a list, or one for all."""
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise OptionError(f"{name} holds {len(given)} for {count} models; give one for each")
    return given
