"""What a trained model/guide pair knows: the information report, and what it says is wrong."""

from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.report import InformationReport, information

__all__ = ["Diagnosis", "InformationReport", "diagnose", "information"]
