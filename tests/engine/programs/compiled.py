"""The engine that compiles the graph."""

import pyro
import torch
from torch import nn

from .harness import Case, data, decode, encode, late, program
from .randomness import random_dropout
from .state import state_batch_norm, with_encoder
from .structures import structure_item


@program("staged", engine="compiled")
def compiled_plain_pair():
    return Case(decode, encode, batch=lambda step: (data(seed=step % 3),))


@program("either", engine="compiled")
def compiled_number_in_a_dictionary():
    options = {}
    return Case(
        lambda x: decode(x, options["scale"]),
        encode,
        before=lambda step: options.update(scale=late(step)),
    )


@program("warned", engine="compiled")
def compiled_item():
    return structure_item()


@program("staged", engine="compiled")
def compiled_batch_norm():
    return state_batch_norm()


@program("either", engine="compiled")
def compiled_dropout():
    return random_dropout()


@program("staged", engine="compiled", dtype=torch.float32)
def compiled_clipped_optimiser():
    case = with_encoder(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))
    case.optim = pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.99})
    return case
