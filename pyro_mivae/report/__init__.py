"""The report of a run: pictures, numbers and text on one self-contained page."""

from pyro_mivae.report.data import ReportData
from pyro_mivae.report.page import PANELS, write_report
from pyro_mivae.report.pictures import Panel

__all__ = ["PANELS", "Panel", "ReportData", "write_report"]
