"""Histories as TensorBoard's event files, which grow with each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError

FOLDER, OURS = "tensorboard", ".pyro-mivae"  # how the names of our event files end
Logger = Callable[[int, Mapping[str, float]], None]


@contextmanager
def logging_epochs(folders: Sequence[Path], enabled: bool) -> Iterator[Logger | None]:
    """Gives ``on_epoch`` of `fit_many`: a point of one curve per column of each model's history.

    The files of a model are made with its first row.
    """
    if not enabled:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(
            "--tensorboard needs a package that is not installed: "
            "python -m pip install 'pyro-mivae[tensorboard]'"
        ) from error
    writers: dict[int, Any] = {}
    with ExitStack() as opened:

        def log(number: int, row: Mapping[str, float]) -> None:
            if number not in writers:
                folder = str(folders[number] / FOLDER)
                writers[number] = SummaryWriter(folder, filename_suffix=OURS)
                opened.callback(writers[number].close)
            for name, value in row.items():
                if name != "epoch":
                    writers[number].add_scalar(name, value, int(row["epoch"]))

        yield log
