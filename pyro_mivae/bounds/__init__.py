"""Bounds on mutual information and estimates of it: pure functions of tensors, in nats.

Values are not checked, because that would wait for the device: NaN gives NaN. The errors are
`DataError` for anything but floating-point tensors and arrays, `ShapeError` for tensors that are
empty or do not match, and `OptionError` for an unknown ``reduction``.
"""

from pyro_mivae.bounds.critics import (
    MovingAverage,
    donsker_varadhan_bound,
    interpolated_bound,
    jensen_shannon_estimate,
    mine_bound,
    nwj_bound,
    smile_estimate,
    tuba_bound,
)
from pyro_mivae.bounds.densities import (
    barber_agakov_bound,
    club_bound,
    infonce_bound,
    leave_one_out_bound,
    rate,
)
from pyro_mivae.bounds.shapes import off_diagonal

__all__ = [
    "MovingAverage",
    "barber_agakov_bound",
    "club_bound",
    "donsker_varadhan_bound",
    "infonce_bound",
    "interpolated_bound",
    "jensen_shannon_estimate",
    "leave_one_out_bound",
    "mine_bound",
    "nwj_bound",
    "off_diagonal",
    "rate",
    "smile_estimate",
    "tuba_bound",
]
