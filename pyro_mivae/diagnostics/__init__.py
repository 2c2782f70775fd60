"""What a trained model/guide pair knows: the information report."""

from pyro_mivae.diagnostics.report import InformationReport, information

__all__ = ["InformationReport", "information"]
