"""Training: the loop, its history, and its checkpoints."""

from pyro_mivae.training.arguments import resolve_device, suitable_threads
from pyro_mivae.training.checkpoint import (
    has_checkpoint,
    read_archive,
    read_checkpoint,
    write_archive,
)
from pyro_mivae.training.files import Writer, atomic_path, write_file, writing
from pyro_mivae.training.fit import fit
from pyro_mivae.training.history import History
from pyro_mivae.training.identity import Identity, describe_model, differences, in_words, versions
from pyro_mivae.training.many import fit_many
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.training.refit import refit_prior

__all__ = [
    "History",
    "Identity",
    "TrainingOptions",
    "Writer",
    "atomic_path",
    "describe_model",
    "differences",
    "fit",
    "fit_many",
    "has_checkpoint",
    "in_words",
    "read_archive",
    "read_checkpoint",
    "refit_prior",
    "resolve_device",
    "suitable_threads",
    "versions",
    "write_archive",
    "write_file",
    "writing",
]
