"""The engine: programs staged to graphs of tensor operations, compiled, and captured."""

from pyro_mivae.engine.captured import CudaGraphs, Recording, recorder_for
from pyro_mivae.engine.choose import WORTH_STAGING
from pyro_mivae.engine.comparison import is_due, most_unchecked
from pyro_mivae.engine.precision import Precision, check_precision, matmul_precision, no_rounding
from pyro_mivae.engine.program import Program
from pyro_mivae.engine.reasons import tell_no_capture
from pyro_mivae.engine.staging import Staged
from pyro_mivae.engine.static import Scheduled, StaticEpoch
from pyro_mivae.engine.steps import Engine, GraphStep, Means, Step, stage
from pyro_mivae.engine.svi import SVI

__all__ = [
    "SVI",
    "WORTH_STAGING",
    "CudaGraphs",
    "Engine",
    "GraphStep",
    "Means",
    "Precision",
    "Program",
    "Recording",
    "Scheduled",
    "Staged",
    "StaticEpoch",
    "Step",
    "check_precision",
    "is_due",
    "matmul_precision",
    "most_unchecked",
    "no_rounding",
    "recorder_for",
    "stage",
    "tell_no_capture",
]
