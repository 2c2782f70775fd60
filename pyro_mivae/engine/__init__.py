"""The engine: programs traced to graphs of tensor operations, compiled, and captured."""

from pyro_mivae.engine.capturable import Scheduled, StaticEpoch
from pyro_mivae.engine.comparison import is_due, is_due_in_epoch, most_unchecked
from pyro_mivae.engine.cuda_graphs import CudaGraphs, Recording, recorder_for
from pyro_mivae.engine.fallback import give_up
from pyro_mivae.engine.precision import Precision, check_precision, matmul_precision
from pyro_mivae.engine.steps import Engine, GraphStep, Mode, trace_step
from pyro_mivae.engine.svi import SVI
from pyro_mivae.engine.tracing import TrainStep

__all__ = [
    "SVI",
    "CudaGraphs",
    "Engine",
    "GraphStep",
    "Mode",
    "Precision",
    "Recording",
    "Scheduled",
    "StaticEpoch",
    "TrainStep",
    "check_precision",
    "give_up",
    "is_due",
    "is_due_in_epoch",
    "matmul_precision",
    "most_unchecked",
    "recorder_for",
    "trace_step",
]
