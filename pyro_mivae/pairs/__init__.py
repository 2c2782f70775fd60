"""Check of a model/guide pair: its faults in plain words."""

from pyro_mivae.pairs.check import check
from pyro_mivae.pairs.findings import Finding, PairReport

__all__ = ["Finding", "PairReport", "check"]
