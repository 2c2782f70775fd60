"""Writes a run's history for TensorBoard as it grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError

FOLDER, OURS = "tensorboard", ".pyro-mivae"  # how the names of our event files end


class EpochLogger:
    """Writes each row of a history as a point of one curve per column.

    It is called with a row, as ``on_epoch`` of `fit` is. Its files are made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise OptionError(
                "--tensorboard needs a package that is not installed: "
                "python -m pip install 'pyro-mivae[tensorboard]'"
            ) from error
        self._make = lambda: SummaryWriter(str(folder), filename_suffix=OURS)
        self._writer: Any = None

    def __call__(self, row: Mapping[str, float]) -> None:
        """Writes a row."""
        if self._writer is None:
            self._writer = self._make()
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        """Writes out what is still held back."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def logging_epochs(folder: Path, enabled: bool) -> Iterator[EpochLogger | None]:
    """Gives what `fit` is to call as ``on_epoch``."""
    if not enabled:
        yield None
        return
    logger = EpochLogger(folder / FOLDER)
    try:
        yield logger
    finally:
        logger.close()
