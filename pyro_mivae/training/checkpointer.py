"""History and checkpoint of a run, kept in its folder while it trains."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pyro_mivae.errors import OptionError, RunError, WriteError
from pyro_mivae.ranks import ALONE, Ranks
from pyro_mivae.training.arguments import Images
from pyro_mivae.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from pyro_mivae.training.files import Writer, writing
from pyro_mivae.training.history import History
from pyro_mivae.training.identity import Identity, check_identity
from pyro_mivae.training.trainer import Trainer

SECONDS_BETWEEN_CHECKPOINTS = 5.0
HISTORY = "history.csv"


class Checkpointer(Writer):
    """Keeps a run's history and checkpoint in a folder, as its only writer.

    Of several processes the first one reads and writes, and sends the others what it read.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE, *, resume: bool) -> None:
        self.folder, self.ranks, self.resume = folder, ranks, resume
        self.kept = 0  # the last epoch that the folder's checkpoint holds
        self._state: Checkpoint | None = None  # of the last whole epoch, until it is written
        self._source: Path | None = None
        self._lock = None
        self._written = time.monotonic()
        ranks.first_does(self._claim)

    def _claim(self) -> None:
        super().__init__(self.folder)
        try:
            self._check_free()
        except RunError:
            self.release()
            raise

    def _check_free(self) -> None:
        history = self.folder / HISTORY
        if not self.resume and (has_checkpoint(self.folder) or history.exists()):
            raise RunError(
                f"{self.folder} holds a run already; continue it, also to more epochs, with "
                "resume=True, or choose another run="
            )
        if history.is_file() and not has_checkpoint(self.folder):
            with history.open(errors="replace") as file:
                if not file.readline().startswith("epoch,step"):
                    raise RunError(f"{history} is not of a run; choose another run=")

    def load(self, trainer: Trainer, images: Images) -> History:
        """Restores a trainer to the state of the folder's run; writes nothing."""
        own = None if trainer.given is None else trainer.new_objective()
        self._identity = given = Identity.of(
            trainer.options, images.fingerprints, trainer.vae, own
        )
        state = self.ranks.from_first(self._read)
        if state is None:
            return History()
        self._source = state["file"]
        self._identity = started = Identity.from_state(state)
        check_identity(given, started, self.folder)
        history = History(state["history"])
        if len(history) != state["epoch"]:
            raise RunError(
                f"{state['file']} holds {len(history)} rows of {state['epoch']} epochs; restore "
                "a copy, or train again"
            )
        _extend(trainer, state, started.options["epochs"], self.folder)
        trainer.load(state)
        self.kept = trainer.epoch
        return history

    def _read(self) -> Checkpoint | None:
        return read_checkpoint(self.folder) if has_checkpoint(self.folder) else None

    def open(self, history: History, *, finished: bool) -> None:
        """Creates the folder, and drops rows of epochs that are trained again."""
        self.ranks.first_does(partial(self._open, history, finished))

    def _open(self, history: History, finished: bool) -> None:
        self.make()
        self._check_free()
        if self._source is None and has_checkpoint(self.folder):
            raise RunError(f"another process made a run of {self.folder} meanwhile; try again")
        path = self.folder / HISTORY
        if self._source is not None and self._source.name != CHECKPOINT:
            with writing(self.folder / CHECKPOINT):  # the one before it takes its place
                os.replace(self._source, self.folder / CHECKPOINT)
        if not history.rows:
            with writing(path):
                path.unlink(missing_ok=True)
        elif not (finished and history.is_in_csv(path)):
            history.to_csv(path)

    def epoch_done(self, trainer: Trainer, history: History) -> None:
        """Writes the epoch's row, and the checkpoint if the last one is a few seconds old."""
        self.ranks.first_does(partial(self._epoch_done, trainer, history))

    def _epoch_done(self, trainer: Trainer, history: History) -> None:
        finished = trainer.has_waited or trainer.epoch >= self._identity.options["epochs"]
        own = {"identity": asdict(self._identity), "finished": finished}
        self._state = trainer.state() | own
        with self._telling():
            history.append_to_csv(self.folder / HISTORY)
        if trainer.finished or time.monotonic() - self._written > SECONDS_BETWEEN_CHECKPOINTS:
            self.write(history)

    def forget(self) -> None:
        """Drops the last epoch if it is not written yet."""
        self._state = None

    def write(self, history: History) -> None:
        """Writes history and checkpoint of the last complete epoch, unless already written."""
        if self._state is None:
            return
        epoch = self._state["epoch"]
        rows = History(row for row in history if row["epoch"] <= epoch)
        with self._telling():
            write_checkpoint(self.folder, self._state | {"history": rows.rows})
            rows.to_csv(self.folder / HISTORY)
        self._state, self.kept, self._written = None, epoch, time.monotonic()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Adds the kept epoch and the way to continue to the error of a file."""
        try:
            yield
        except WriteError as error:
            kept = f"keeps epoch {self.kept}" if self.kept else "keeps no epoch yet"
            mend = "it can be written" if self.folder.is_dir() else "it has its name again"
            raise WriteError(
                f"{error}. {self.folder} {kept}; once {mend}, continue with resume=True"
            ) from error


def _extend(trainer: Trainer, state: Checkpoint, planned: int, folder: Path) -> None:
    """Lets a run continue to a new number of epochs, or raises the reason against it.

    The weights' schedules keep their original length, and then their last values.
    """
    options = trainer.options
    epochs, done, best = options.epochs, state["epoch"], state["best"]
    if epochs < done:
        raise OptionError(
            f"epochs={epochs} given, but the run in {folder} has done {done}; give {done} or more"
        )
    if epochs == planned:
        return
    if options.lr_schedule != "constant":
        raise OptionError(
            f"epochs={epochs} given, but lr_schedule={options.lr_schedule!r} of the run in "
            f"{folder} ends at epoch {planned}; train again with epochs={epochs}"
        )
    waited = None not in (options.patience, best) and done - best["epoch"] >= options.patience
    if waited and epochs != state["asked"]:
        raise OptionError(
            f"epochs={epochs} given, but the run in {folder} stopped after epoch {done}, because "
            f"the held-out loss had not fallen for {options.patience} epochs; train again with a "
            "larger patience"
        )
    trainer.plan(planned * len(trainer.batch_sizes))
