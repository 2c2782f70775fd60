"""Run folders: a training run with its configuration and its results."""

from pyro_mivae.metrics.summary import summarise
from pyro_mivae.runs.compare import Comparison, compare
from pyro_mivae.runs.config import ModelOptions, RunConfig
from pyro_mivae.runs.group import is_finished, seeds_table, train_run, train_seeds
from pyro_mivae.runs.outputs import evaluate_run, report_run, write_codes, write_samples
from pyro_mivae.runs.run import Run, open_run
from pyro_mivae.runs.saved import load, save
from pyro_mivae.runs.sweep import SweepTable, sweep, sweep_run

__all__ = [
    "Comparison",
    "ModelOptions",
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
