"""Data and parameters of the programs that are compared with Pyro."""

import pyro
import torch
from torch.distributions import constraints

X = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)
ENUMERATE = {"enumerate": "parallel"}
AUXILIARY = {"is_auxiliary": True}


def param(name, value=0.3, positive=False, **options):
    constraint = constraints.positive if positive else constraints.real
    return pyro.param(name, torch.as_tensor(value), constraint=constraint, **options)
