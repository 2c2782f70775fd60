"""Diagnostics of a trained model/guide pair: the information report and its diagnoses."""

from pyro_mivae.diagnostics.context import InformationOptions
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.report import InformationReport, information

__all__ = ["Diagnosis", "InformationOptions", "InformationReport", "diagnose", "information"]
