"""Keeps a run's history and checkpoint in a folder while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pyro_mivae.training.history import History
from pyro_mivae.training.loop import Trainer

SECONDS_BETWEEN_CHECKPOINTS = 5.0


class Keeper:
    """Keeps a run's history and checkpoint in a folder; without a folder it keeps nothing.

    Args:
        folder: The folder, made if it is not there.
        resume: Whether to go on from what it holds.

    Raises:
        OptionError: If ``resume`` is on without a folder.
        RunError: If it holds a checkpoint or history, and ``resume`` is off.
    """

    def __init__(self, folder: Path | None, resume: bool) -> None:
        self.folder, self.resume = folder, resume
        self._state: Checkpoint | None = None
        self._started: dict[str, Any] = {}
        self._written = time.monotonic()
        if folder is None:
            if resume:
                raise OptionError("resume=True without run=; give the folder to go on from")
            return
        self.checkpoint, self.history = folder / "checkpoint.pt", folder / "history.csv"
        if not resume and (self.checkpoint.exists() or self.history.exists()):
            raise RunError(
                f"{folder} holds a run already; go on from it, to more epochs too, with "
                "resume=True, or choose another run="
            )

    def load(self, trainer: Trainer) -> History:
        """Takes a trainer to where the folder's run was left; writes nothing.

        Args:
            trainer: Fresh.

        Returns:
            The history so far.

        Raises:
            OptionError: If the run was started with other options.
            RunError: If the checkpoint cannot be read, or does not fit.
        """
        self._started = started = _options(trainer)
        if self.folder is None or not self.checkpoint.exists():
            return History()
        state = read_checkpoint(self.checkpoint)
        self._started = state.get("options", started)
        trainer.load(_continued(trainer, state, self._started, self.folder))
        recorded = History.from_csv(self.history) if self.history.exists() else History()
        return History(row for row in recorded.rows if row["epoch"] <= trainer.epoch)

    def open(self, history: History, *, finished: bool) -> None:
        """Makes the folder, and drops rows after the checkpoint: they are trained again.

        Args:
            history: What `load` returned.
            finished: True if no epoch is left; nothing is written then.

        Raises:
            RunError: If the folder cannot be made.
        """
        if self.folder is None or finished:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if history.rows:
                history.to_csv(self.history)
            else:
                self.history.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror
            raise RunError(f"cannot make the run folder {self.folder}: {reason}") from error

    def epoch_done(self, trainer: Trainer, history: History) -> None:
        """Writes the epoch's row, and the checkpoint if the last one is some seconds old.

        Args:
            trainer: At an epoch's end.
            history: With the epoch's row.
        """
        if self.folder is None:
            return
        self._state = trainer.state() | {"options": self._started}
        history.append_to_csv(self.history)
        if trainer.finished or time.monotonic() - self._written > SECONDS_BETWEEN_CHECKPOINTS:
            self.write(history)

    def write(self, history: History) -> None:
        """Writes history and checkpoint of the last whole epoch, if there is any to write.

        Args:
            history: The rows so far.
        """
        if self._state is None:
            return
        epoch = self._state["epoch"]
        History(row for row in history.rows if row["epoch"] <= epoch).to_csv(self.history)
        write_checkpoint(self.checkpoint, self._state)
        self._state, self._written = None, time.monotonic()


def _options(trainer: Trainer) -> dict[str, Any]:
    """What a run is laid out for: options of `fit` that later parts of it must share."""
    settings = trainer.settings
    names = ("epochs", "batch_size", "lr", "lr_schedule", "clip_norm", "seed", "patience")
    return {name: getattr(settings, name) for name in names} | {"images": len(trainer.x)}


def _continued(
    trainer: Trainer, state: Checkpoint, started: dict[str, Any], folder: Path
) -> Checkpoint:
    """The state to go on from; a finished run that is to have more epochs goes on from its end.

    The weights' schedules stay as they were laid out, and keep their last values beyond that.
    """
    given, epochs, done = _options(trainer), trainer.settings.epochs, state["epoch"]
    for name in given.keys() - {"epochs"}:
        if given[name] != started[name]:
            told = "images" if name == "images" else f"{name}="
            raise OptionError(
                f"{told} {given[name]!r} given, but the run in {folder} was started with "
                f"{started[name]!r}; give the same to go on, or choose another run="
            )
    if epochs < done:
        raise OptionError(
            f"epochs={epochs} given, but the run in {folder} has done {done}; give {done} or more"
        )
    planned = started["epochs"]
    if epochs == planned:
        return state
    if trainer.settings.lr_schedule != "constant":
        raise OptionError(
            f"epochs={epochs} given, but lr_schedule={trainer.settings.lr_schedule!r} of the run "
            f"in {folder} ends at epoch {planned}; train anew with epochs={epochs}"
        )
    if state["finished"] and done < planned:
        raise OptionError(
            f"epochs={epochs} given, but the run in {folder} stopped after epoch {done}, as the "
            f"held-out loss had not fallen for {trainer.settings.patience} epochs; more epochs do "
            "not change that"
        )
    steps = planned * trainer.steps_per_epoch
    trainer.objective = trainer.vae.objective(steps).to(trainer.device)
    return {**state, "finished": done >= epochs}
