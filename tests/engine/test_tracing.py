"""A staged program does what the program does, and says when it cannot be staged."""

import functools
import math
import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.engine.steps import (
    COMPILING,
    WORTH_COMPILING,
    Engine,
    GraphStep,
    steps_worth_compiling,
    trace_step,
    work_of_step,
)
from pyro_mivae.engine.tape import Tape, multinomial
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import PyroMivaeWarning, StagingError

SHAPE = (1, 4, 4)


def make(name, **options):
    torch.manual_seed(3)
    if name in ("cat", "infocat"):
        options = {"num_categories": 3} | options
    vae = mi.VARIANTS[name](SHAPE, **options).double().train()
    objective = vae.objective(30).to(torch.float64)
    return vae, objective


def program_of(vae, objective):
    def loss(x):
        value = objective.differentiable_loss(vae.model, vae.guide, x)
        return value / len(x), objective.ledger

    return TrainStep.of_modules(loss, vae, objective.state)


def gradients_of(program, x):
    """The ledger and the gradients of the program itself."""
    values = program(x)
    return values, [parameter.grad for parameter in program.parameters]


@pytest.fixture(autouse=True)
def no_validation():
    with pyro.validation_enabled(False):
        yield


@pytest.fixture
def x():
    return torch.rand(70, *SHAPE, dtype=torch.float64)


def buffers_after(program, run):
    before = [buffer.clone() for buffer in program.buffers]
    run()
    after = [buffer.clone() for buffer in program.buffers]
    with torch.no_grad():
        for buffer, value in zip(program.buffers, before, strict=True):
            buffer.copy_(value)
    return after


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_every_variant_has_the_loss_gradient_and_statistics_of_its_program(name, images, traced):
    check(*traced(name), images.double())


@pytest.mark.parametrize("name", ["critic-infomax", "infocat", "infogan"])
def test_what_a_compiler_is_given_is_the_step(name, images, traced):
    program, staged = traced(name)
    check(program, staged, images.double(), staged.decomposed(images.double()))


def check(program, staged, x, graph=None):
    """Compares a graph with its program on the same noise."""
    found, graph = {}, graph or staged.graph

    def eagerly():
        torch.manual_seed(11)
        found["eager"] = gradients_of(program, x)

    def by_graph():
        torch.manual_seed(11)
        with torch.no_grad():
            found["graph"] = graph(x, *staged.inputs)

    statistics = [buffers_after(program, run) for run in (eagerly, by_graph)]
    ledger, gradients = found["eager"]
    values, *staged_gradients = found["graph"]
    assert staged.entries == program.entries
    torch.testing.assert_close(values, ledger, equal_nan=True)
    exact = [gradient for gradient in gradients if gradient is not None]
    for wanted, gradient in zip(exact, staged_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-11)
    for wanted, buffer in zip(*statistics, strict=True):
        torch.testing.assert_close(buffer, wanted)


@pytest.mark.parametrize("name", ["vae", "critic-infomax"])
def test_staging_leaves_no_trace(name, x):
    vae, objective = make(name)
    before = {k: v.clone() for k, v in (vae.state_dict() | objective.state_dict()).items()}
    noise = torch.get_rng_state()
    trace_step(program_of(vae, objective), x)
    assert torch.equal(torch.get_rng_state(), noise)
    for key, value in (vae.state_dict() | objective.state_dict()).items():
        assert torch.equal(value, before[key]), key


def test_schedules_and_parameters_are_read_anew_in_every_step(x):
    vae, objective = make("beta", beta=mi.linear_warmup(10))
    program = program_of(vae, objective)
    step = GraphStep(trace_step(program, x), program.parameters)
    for _ in range(3):
        torch.manual_seed(2)
        ledger, gradients = gradients_of(program, x)
        torch.manual_seed(2)
        values = step(x)
        torch.testing.assert_close(values, ledger)
        for parameter, gradient in zip(program.parameters, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-11)
            with torch.no_grad():
                parameter -= 1e-3 * gradient
        objective.advance()


@pytest.mark.parametrize("shape", [(1000, 7), (3, 2)])
def test_draws_of_a_category_are_those_of_torch(shape):
    probs = torch.rand(shape)
    torch.manual_seed(0)
    wanted = torch.multinomial(probs, 1, replacement=True)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(multinomial(probs, 1, True), wanted)
    assert torch.equal(torch.rand(3), after)


def test_one_hot_without_a_look_at_the_values():
    index = torch.tensor([[0, 2], [1, 1]])
    tape = Tape([index])
    with tape.running():
        found = torch.nn.functional.one_hot(tape.data[0], 4)
    assert torch.equal(found, torch.eye(4, dtype=torch.long)[index])
    assert not tape.reason
    with tape.running():
        torch.nn.functional.one_hot(tape.data[0])
    assert "reads the value of a tensor" in tape.reason


def generator_of_its_own(x):
    return x + torch.rand(2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: x * x.sum().item(), "reads the value"),
        (lambda x: x * max(x.tolist()), "reads the value"),
        (lambda x: x * float(x.numpy().max()), "reads the value"),
        (lambda x: x * np.asarray(x).max(), "reads the value"),
        (lambda x: x if x.sum() > 0 else -x, "reads the value"),
        (lambda x: x * len(x.unique()), "depends on values"),
        (lambda x: x[x > 0], "depends on values"),
        (lambda x: x.nonzero(), "depends on values"),
        (lambda x: x.masked_select(x > 0), "depends on values"),
        (lambda x: x.to_sparse().to_dense(), "sparse"),
        (generator_of_its_own, "generator of its own"),
        (lambda x: x.clone().resize_(1), "changes the memory"),
    ],
)
def test_what_a_graph_cannot_hold_is_named_and_the_run_goes_on(step, reason):
    x = torch.tensor([0.5, 2.0])
    tape = Tape([x])
    with tape.running():
        found = step(tape.data[0])
    torch.testing.assert_close(found, step(x))
    assert reason in tape.reason
    with pytest.raises(StagingError, match=reason):
        tape.graph([found])


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x * torch.tensor([1.0, 2.0]).tolist()[1],
        lambda x: x * float(torch.ones(2).sum()),
        lambda x: x[torch.tensor([True, False])],
        lambda x: x.masked_fill(x > 1, 0.0),
        lambda x: torch.eye(2)[:, torch.ones(2).bool()] @ x,
    ],
)
def test_values_that_are_the_same_in_every_step_may_be_read(step, write_down):
    graph, _ = write_down(step, torch.tensor([0.5, 2.0]))
    other = torch.tensor([3.0, -1.0])
    torch.testing.assert_close(graph(other)[0], step(other))


# Programs that cannot be staged


class Pair(PyroModule):
    """A linear pair whose decoder may do something in between."""

    def __init__(self, between=lambda z: z):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 2), nn.Linear(2, 16)
        self.between = between

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = self.decoder(self.between(z))
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def pair_program(between):
    pair = Pair(between)
    elbo = mi.MutualInformationELBO(max_plate_nesting=1)

    def loss(x):
        return elbo.differentiable_loss(pair.model, pair.guide, x) / len(x), elbo.ledger

    return TrainStep.of_modules(loss, pair)


def looks_at_a_value(z):
    return z if float(z.detach().sum()) > 1e9 else 2 * z


class Alternates:
    def __init__(self):
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        return z * self.calls


def draws_from_numpy(z):
    return z * np.random.rand()


def draws_from_python(z):
    return z * random.random()


@functools.cache
def flips():
    return random.Random(0)


def draws_from_an_object(z):
    return z * flips().random()


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (looks_at_a_value, "reads the value of a tensor"),
        (Alternates(), "changes a number of its own"),
        (draws_from_numpy, "random numbers of Python or NumPy"),
        (draws_from_python, "random numbers of Python or NumPy"),
        (draws_from_an_object, "random numbers of Python or NumPy"),
    ],
)
def test_what_cannot_be_staged_runs_as_it_is_and_says_so_once(between, reason):
    x = torch.randn(20, 16)
    flips()  # an object that is there before the step, and not frozen as those of modules are
    program = pair_program(between)
    with pytest.raises(StagingError, match=reason):
        trace_step(program, x)
    engine = Engine(program, "staged")
    with pytest.warns(PyroMivaeWarning, match=f"cannot be staged.*{reason}") as caught:
        step = engine.step(x)
    assert step is engine.step(x[:7]) is program
    assert len(caught) == 1
    torch.manual_seed(0)
    values = step(x)
    assert values.shape == (len(step.entries),)
    assert all(parameter.grad is not None for parameter in program.parameters)


def test_shapes_and_modes_have_graphs_of_their_own(x):
    vae, objective = make("vae")
    vae.guide.encoder.layers.insert(1, nn.Dropout(0.5))
    program = program_of(vae, objective)
    engine = Engine(program, "staged")
    assert engine.step(x) is engine.step(x.clone())
    assert engine.step(x) is not engine.step(x[:30])
    training = engine.step(x)
    vae.eval()
    assert engine.step(x) is not training
    torch.manual_seed(0)
    ledger, _ = gradients_of(program, x)
    torch.manual_seed(0)
    torch.testing.assert_close(engine.step(x)(x), ledger)


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
def test_frozen_parameters_get_no_gradient(x):
    vae, objective = make("vae")
    for parameter in vae.model.parameters():
        parameter.requires_grad_(False)
    program = program_of(vae, objective)
    Engine(program, "staged").step(x)(x)
    assert all(parameter.grad is None for parameter in vae.model.parameters())
    assert all(parameter.grad is not None for parameter in vae.guide.parameters())


# How steps are taken


def test_the_means_follow_from_the_work_ahead(x):
    program = program_of(*make("vae"))
    assert Engine(program, "auto", num_steps=10).mode == "eager"
    staged = trace_step(program, x)
    work, _ = work_of_step(staged)
    assert steps_worth_compiling(staged, x) == math.ceil(WORTH_COMPILING * COMPILING / work) > 1000
    twice = torch.cat([x, x])
    assert work_of_step(trace_step(program, twice))[0] > work
    assert steps_worth_compiling(staged, x, known=False) == math.ceil(COMPILING / work)


def test_convolutions_are_not_compiled():
    encoder, decoder = mi.networks.build_networks("conv", (1, 8, 8), 2)
    vae = mi.VAE((1, 8, 8), latent_dim=2, encoder=encoder, decoder=decoder).train()
    program, x = program_of(vae, vae.objective()), torch.rand(9, 1, 8, 8)
    staged = trace_step(program, x)
    assert steps_worth_compiling(staged, x) == math.inf


@pytest.mark.compiler
@pytest.mark.slow
def test_compiled_steps_see_the_same_noise(x):
    program = program_of(*make("infocat"))
    step = Engine(program, "compiled").step(x)
    assert isinstance(step, GraphStep)
    for seed in range(2):
        torch.manual_seed(seed)
        before = [buffer.clone() for buffer in program.buffers]
        ledger, gradients = gradients_of(program, x)
        with torch.no_grad():
            for buffer, value in zip(program.buffers, before, strict=True):
                buffer.copy_(value)
        torch.manual_seed(seed)
        values = step(x)
        torch.testing.assert_close(values, ledger, equal_nan=True)
        for parameter, gradient in zip(program.parameters, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)


def test_a_compiler_that_fails_leaves_the_graph(x, monkeypatch):
    def compile(*args, **kwargs):
        raise RuntimeError("no compiler here\nand a long trace")

    program = program_of(*make("vae"))
    monkeypatch.setattr(torch, "compile", compile)
    with pytest.warns(
        PyroMivaeWarning, match="cannot be compiled: RuntimeError: no compiler here. It runs as"
    ):
        step = Engine(program, "compiled").step(x)
    assert isinstance(step, GraphStep)
    assert step(x).isfinite().all()


def test_a_compiler_that_advises_is_no_error(x, monkeypatch):
    def compile(graph, **options):
        def run(*args):
            warnings.warn("TensorFloat32 tensor cores available but not enabled", stacklevel=1)
            return graph(*args)

        warnings.warn("advice", stacklevel=1)
        return run

    monkeypatch.setattr(torch, "compile", compile)
    step = Engine(program_of(*make("vae")), "compiled").step(x)
    assert step.run is not step.traced.graph
