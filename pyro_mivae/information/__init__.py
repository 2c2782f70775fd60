"""Information: terms of an objective, bounds, and the report on a trained model."""

from pyro_mivae.information.bounds import (
    barber_agakov_bound,
    infonce_bound,
    leave_one_out_bound,
    rate,
)
from pyro_mivae.information.regularized import RegularizedInformation
from pyro_mivae.information.report import InformationReport, information
from pyro_mivae.information.terms import BarberAgakov, InformationTerm

__all__ = [
    "BarberAgakov",
    "InformationReport",
    "InformationTerm",
    "RegularizedInformation",
    "barber_agakov_bound",
    "infonce_bound",
    "information",
    "leave_one_out_bound",
    "rate",
]
