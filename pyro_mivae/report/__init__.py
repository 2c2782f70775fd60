"""The report of a run: pictures, numbers and words on one self-contained page."""

from pyro_mivae.report.page import write_report
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.panels import PANELS
from pyro_mivae.report.subject import Subject

__all__ = ["PANELS", "Panel", "Subject", "write_report"]
