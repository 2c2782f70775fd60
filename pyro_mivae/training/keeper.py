"""Keeps a run's history and checkpoint in a folder while it trains."""

from __future__ import annotations

import time
from pathlib import Path

from pyro_mivae.errors import RunError
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
        RunError: If it holds a checkpoint or history, and ``resume`` is off.
    """

    def __init__(self, folder: Path | None, resume: bool) -> None:
        self.folder, self.resume = folder, resume
        self._state: Checkpoint | None = None
        self._written = time.monotonic()
        if folder is None:
            return
        self.checkpoint, self.history = folder / "checkpoint.pt", folder / "history.csv"
        if not resume and (self.checkpoint.exists() or self.history.exists()):
            raise RunError(f"{folder} holds a run already; resume it, or choose another folder")

    def load(self, trainer: Trainer) -> History:
        """Takes a trainer to where the folder's run was left; writes nothing.

        Args:
            trainer: Fresh.

        Returns:
            The history so far.

        Raises:
            RunError: If the checkpoint cannot be read, or does not fit.
        """
        if self.folder is None or not self.checkpoint.exists():
            return History()
        trainer.load(read_checkpoint(self.checkpoint))
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
        self._state = trainer.state()
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
