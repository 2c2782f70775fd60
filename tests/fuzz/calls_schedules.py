"""Schedules of weights."""

import pyro_mivae as mi

from .calls import Call

CALLS = [
    Call("linear_warmup", mi.linear_warmup, lambda: {"steps": 10, "start": 0.0, "delay": 2}),
    Call("cyclic_warmup", mi.cyclic_warmup, lambda: {"period": 10, "fraction": 0.5, "end": 1.0}),
]
