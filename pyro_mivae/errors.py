"""Errors and warnings: each tells what was given, what is allowed, and the remedy."""

import difflib
from collections.abc import Iterable
from typing import Any


class PyroMivaeError(Exception):
    """Base of every error that this package raises on purpose."""


class ShapeError(PyroMivaeError, ValueError):
    """A tensor whose shape does not fit."""


class OptionError(PyroMivaeError, ValueError):
    """An option whose value is not as its ``Args`` entry says, or that is not allowed there."""


class SiteError(PyroMivaeError, ValueError):
    """A model/guide pair whose sample sites are not what an objective needs."""


class DataError(PyroMivaeError, ValueError):
    """Data that cannot be read, or that a likelihood cannot score."""


class RunError(PyroMivaeError, ValueError):
    """A run folder that exists, is incomplete, or does not fit what is asked of it."""


class WriteError(RunError):
    """A file that cannot be written: a full disk, no permission, a folder that is gone."""


class TrainingError(PyroMivaeError, RuntimeError):
    """Training that cannot go on, as when the loss is no longer finite."""


class ManyTrainingError(TrainingError):
    """Some of several models broke down; the others were trained to the end."""

    def __init__(self, message: str, failures: dict[int, str], histories: list[Any]) -> None:
        super().__init__(message)
        self.failures, self.histories = failures, histories


class StagingError(PyroMivaeError, RuntimeError):
    """A program whose steps cannot be written down as one graph of tensor operations."""


class CaptureError(PyroMivaeError, RuntimeError):
    """A training step that cannot be recorded on the device."""


class PyroMivaeWarning(UserWarning):
    """Something that works, but whose figures should not be trusted as they are."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the middle of a message on an unknown name: the nearest ones, if there are any."""
    close = difflib.get_close_matches(name, list(names), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
