"""Errors and warnings: each names the given value, the allowed values, and the remedy."""

import difflib
from collections.abc import Iterable
from typing import Any


class PyroMivaeError(Exception):
    """Base class of the errors of this package."""


class ShapeError(PyroMivaeError, ValueError):
    """A tensor whose shape does not fit."""


class OptionError(PyroMivaeError, ValueError):
    """An option that is not allowed, or has a value that is not allowed."""


class SiteError(PyroMivaeError, ValueError):
    """A model/guide pair whose sample sites are not what an objective needs."""


class DataError(PyroMivaeError, ValueError):
    """Data that cannot be read, or that a likelihood cannot score."""


class RunError(PyroMivaeError, ValueError):
    """A run folder that exists already, is incomplete, or does not match the request."""


class WriteError(RunError):
    """A file that cannot be written: full disk, no permission, missing folder."""


class TrainingError(PyroMivaeError, RuntimeError):
    """Training that cannot continue, for example because the loss is not finite."""


class RankError(TrainingError):
    """Another of the processes that train together has ended."""


class ManyTrainingError(TrainingError):
    """Training of some models failed; the others were trained to the end."""

    def __init__(self, message: str, failures: dict[int, str], histories: list[Any]) -> None:
        super().__init__(message)
        self.failures, self.histories = failures, histories


class StagingError(PyroMivaeError, RuntimeError):
    """A program whose steps cannot be recorded as one graph of tensor operations."""


class CaptureError(PyroMivaeError, RuntimeError):
    """A training step that cannot be recorded on the device."""


class PyroMivaeWarning(UserWarning):
    """A usable result whose figures need caution."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the part of an error message that suggests similar names, if there are any."""
    close = difflib.get_close_matches(name, list(names), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
