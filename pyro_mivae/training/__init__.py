"""Training: the lean loop, what it records, and the checkpoints that it resumes from."""

from pyro_mivae.training.checkpoint import read_checkpoint
from pyro_mivae.training.files import atomic_path
from pyro_mivae.training.fit import fit
from pyro_mivae.training.given import resolve_device
from pyro_mivae.training.history import History
from pyro_mivae.training.many import fit_many
from pyro_mivae.training.threads import suitable_threads

__all__ = [
    "History",
    "atomic_path",
    "fit",
    "fit_many",
    "read_checkpoint",
    "resolve_device",
    "suitable_threads",
]
