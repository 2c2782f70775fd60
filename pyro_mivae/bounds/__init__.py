"""Bounds on mutual information and estimates of it: pure functions of tensors, in nats."""

from pyro_mivae.bounds.densities import (
    barber_agakov_bound,
    infonce_bound,
    leave_one_out_bound,
    rate,
)

__all__ = ["barber_agakov_bound", "infonce_bound", "leave_one_out_bound", "rate"]
