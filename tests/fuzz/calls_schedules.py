"""Schedules of weights."""

import pyro_mivae as mi

from .calls import Call

CALLS = [
    Call(
        "Target",
        mi.Target,
        lambda: {"value": 2.0, "speed": 0.1, "start": 1.0, "window": 3, "bounds": (0.5, 2.0)},
        after=lambda target: mi.explain(mi.MutualInformationELBO(kl_weights={"z": target})),
    ),
    Call("linear_warmup", mi.linear_warmup, lambda: {"steps": 10, "start": 0.0, "delay": 2}),
    Call("cyclic_warmup", mi.cyclic_warmup, lambda: {"period": 10, "fraction": 0.5, "end": 1.0}),
]
