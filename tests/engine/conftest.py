"""Small programs to stage."""

from functools import cache

import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.steps import trace_step
from pyro_mivae.engine.tape import Tape
from pyro_mivae.engine.tracing import TrainStep

SHAPE = (1, 8, 8)


@pytest.fixture
def write_down():
    """Returns the graph of a function of tensors, as a tape writes it down."""

    def write_down(step, *args):
        tape = Tape(args)
        with tape.running():
            results = step(*tape.data)
            outputs = [results] if isinstance(results, torch.Tensor) else list(results)
        graph = tape.graph(outputs)
        graph.recompile()
        return graph, tape.externals

    return write_down


@pytest.fixture(scope="session")
def images(images_about):
    return images_about(3, 64, *SHAPE)


@pytest.fixture(scope="session")
def program_of():
    """Makes the program of a variant that trains: its loss per datum, and its ledger."""

    def make(vae, objective=None):
        objective = objective or vae.objective()
        vae.train()

        def loss(x):
            with pyro.validation_enabled(False):
                value = objective.differentiable_loss(vae.model, vae.guide, x)
            return value / len(x), objective.ledger

        return TrainStep.of_modules(loss, vae, objective.state)

    return make


@pytest.fixture(scope="session")
def make():
    """Makes a small variant, the same weights each time."""

    def make(name="vae", **options):
        torch.manual_seed(3)
        if name in ("cat", "infocat"):
            options = {"num_categories": 3, "warm_start": 0, **options}
        return mi.VARIANTS[name](SHAPE, **{"latent_dim": 6, **options})

    return make


@pytest.fixture(scope="session")
def traced(make, images, program_of):
    """Gives a small variant's program in double precision, and its traced step on the images.

    Both are shared by tests, which leave them as they are: a graph is copied before it is changed.
    """

    @cache
    def traced(name):
        program = program_of(make(name).double())
        return program, trace_step(program, images.double())

    return traced
