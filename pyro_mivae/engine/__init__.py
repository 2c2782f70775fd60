"""The engine: programs staged to graphs of tensor operations, compiled, and captured."""

from pyro_mivae.engine.program import Program
from pyro_mivae.engine.staging import Staged, stage
from pyro_mivae.engine.steps import Engine, GraphStep, Step

__all__ = ["Engine", "GraphStep", "Program", "Staged", "Step", "stage"]
