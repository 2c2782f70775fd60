"""Run folders: a training run with its configuration, and what it left behind."""

from pyro_mivae.runs.compare import Comparison, compare
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.load import Run, open_run
from pyro_mivae.runs.options import MODEL_OPTIONS, Option
from pyro_mivae.runs.outputs import evaluate_run, report_run, write_codes, write_samples
from pyro_mivae.runs.saved import load, save
from pyro_mivae.runs.seeds import seeds_table, train_seeds
from pyro_mivae.runs.summary import summarise
from pyro_mivae.runs.sweep import sweep
from pyro_mivae.runs.sweep_folder import sweep_run
from pyro_mivae.runs.sweep_table import SweepTable
from pyro_mivae.runs.train import is_finished, train_run

__all__ = [
    "MODEL_OPTIONS",
    "Comparison",
    "Option",
    "Run",
    "RunConfig",
    "SweepTable",
    "compare",
    "evaluate_run",
    "is_finished",
    "load",
    "open_run",
    "report_run",
    "save",
    "seeds_table",
    "summarise",
    "sweep",
    "sweep_run",
    "train_run",
    "train_seeds",
    "write_codes",
    "write_samples",
]
