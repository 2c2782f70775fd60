"""The engine: programs traced to graphs of tensor operations, compiled, and captured."""

from pyro_mivae.engine.svi import SVI

__all__ = ["SVI"]
