"""Several programs at once do what each does alone, from the same random numbers."""

import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.engine import Program, stage
from pyro_mivae.engine.stacking import EachStep, Stack, StackedStep, Streams
from pyro_mivae.errors import StagingError

SEEDS = (4, 5, 6)


class Counting(nn.Module):
    """Batch norm, dropout, a running sum and two numbers of its own."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(()))
        self.weight = weight

    def forward(self, x):
        y = self.layers(x)
        self.seen.add_(y.detach().sum())
        loss = (y.square() * self.weight).mean() + torch.randn(()) * y.mean()
        return loss, {"loss": loss.detach(), "seen": self.seen.clone()}


def programs(make=Counting, weights=(1.0, 1.0, 1.0)):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    modules = [make(weight) for weight in weights]
    return [Program.of_modules(module, module) for module in modules]


def run(step, stack, batches):
    """What some steps of gradient descent give, and leave behind."""
    values = []
    step.prepare(2)
    for x in batches:
        values.append(step(*x))
        for parameter in stack.parameters:
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    return [*values, *(tensor.clone() for tensor in stack.state)]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)], ids=["alike", "differ"])
def test_is_each_program_alone(weights):
    batches = [(torch.rand(3, 16, 5, dtype=torch.float64),) for _ in range(3)]
    found = []
    for kind in ("stacked", "each"):
        alone = programs(weights=weights)
        x = batches[0][0]
        staged = [stage(p, x[0], decompose=True) for p in alone]
        stack, streams = Stack(alone), Streams(SEEDS, x.device)
        step = EachStep(stack, streams)
        if kind == "stacked":
            step = StackedStep(stack, staged, streams, batches[0])
        found.append(run(step, stack, batches))
        assert stack.parameters[0].grad is None  # the unused one
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_building_a_step_leaves_no_trace():
    alone = programs()
    x = torch.rand(3, 16, 5)
    staged = [stage(alone[0], x[0], decompose=True)] * 3
    stack, streams = Stack(alone), Streams(SEEDS, x.device)
    before, noise = [t.clone() for t in stack.state], streams.copy()
    state = torch.get_rng_state()
    StackedStep(stack, staged, streams, (x,))
    assert all(torch.equal(a, b) for a, b in zip(before, stack.state, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    draw = [lambda: (torch.rand(2),)] * 3
    assert torch.equal(streams.draw(draw, 1)[0][0], noise.draw(draw, 1)[0][0])


def test_programs_are_views_of_the_stack_until_they_are_released():
    alone = programs()
    wanted = [tensor.clone() for tensor in alone[1].state]
    stack = Stack(alone)
    for tensor, value in zip(alone[1].state, wanted, strict=True):
        assert torch.equal(tensor, value)
    stack.parameters[0][1] += 1.0
    assert torch.equal(alone[1].parameters[0], wanted[0] + 1.0)
    stack.release()
    stack.parameters[0][1] += 1.0
    assert torch.equal(alone[1].parameters[0], wanted[0] + 1.0)
    assert all(t.untyped_storage().nbytes() == t.nbytes for p in alone for t in p.state)


def test_streams_are_those_of_the_seeds():
    streams = Streams((7, 8), torch.device("cpu"))
    state = torch.get_rng_state()
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            drawn = streams.draw([lambda: (torch.randn(3), torch.randperm(5))] * 2, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for index, seed in enumerate((7, 8)):
        torch.manual_seed(seed)
        wanted = [(torch.randn(3), torch.randperm(5)) for _ in range(4)][2:]
        for step, pair in zip(drawn, wanted, strict=True):
            assert all(torch.equal(a[index], b) for a, b in zip(step, pair, strict=True))


def test_a_graph_that_is_not_the_programs_own_is_found_out():
    alone = programs(weights=(1.0, 1.0, 3.0))
    x = torch.rand(3, 16, 5)
    staged = [stage(alone[0], x[0], decompose=True)] * 3  # wrong for the last
    with pytest.raises(StagingError, match="do not do what each does alone"):
        StackedStep(Stack(alone), staged, Streams(SEEDS, x.device), (x,))


def test_programs_of_other_structure_are_refused(program_of, images):
    alone = [program_of(mi.VAE((1, 8, 8))), program_of(mi.BetaVAE((1, 8, 8), beta=2.0))]
    staged = [stage(program, images, decompose=True) for program in alone]
    with pytest.raises(StagingError, match="not the same but for numbers"):
        StackedStep(Stack(alone), staged, Streams((0, 1), images.device), (images,) * 2)
