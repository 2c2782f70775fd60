"""Ways of reading a number that changes: calls, handlers, arguments, the environment."""

import contextvars
import functools
import io
import itertools
import os

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch.distributions import constraints

from .harness import Case, data, decode, encode, late, program, rising

CONTEXT = contextvars.ContextVar("CONTEXT", default=1.0)


@program("either")
def number_context_variable():
    CONTEXT.set(1.0)
    return Case(
        lambda x: decode(x, CONTEXT.get()), encode, before=lambda step: CONTEXT.set(late(step))
    )


@program("either", slow=False)
def number_environment_variable():
    return Case(
        lambda x: decode(x, float(os.environ["SCALE_OF_X"])),
        encode,
        before=lambda step: os.environ.update(SCALE_OF_X=str(late(step))),
    )


@program("either")
def number_file():
    handle = io.StringIO()

    def change(step):
        handle.seek(0)
        handle.write(f"{late(step):.3f}")
        handle.flush()

    def model(x):
        handle.seek(0)
        decode(x, float(handle.read()))

    return Case(model, encode, before=change)


@program("either")
def number_clock():
    now = [0.0]

    def clock():
        return now[0]

    def change(step):
        now[0] = float(step)

    return Case(lambda x: decode(x, 1.0 + clock() / 50), encode, before=change)


@program("either", slow=False)
def number_counter_in_the_model():
    counter = itertools.count()
    return Case(lambda x: decode(x, 0.5 + next(counter) / 50), encode, state=lambda: next(counter))


@program("either")
def number_slow_counter_in_the_model():
    calls = {"n": 0}

    def model(x):
        calls["n"] += 1
        decode(x, 1.0 if calls["n"] < 12 else 2.0)

    return Case(model, encode, state=lambda: calls)


@program("either")
def number_generator():
    def warm():
        for step in range(10):
            yield 0.1 * (1 + step)
        while True:
            yield 1.0

    scales = warm()
    return Case(lambda x: decode(x, next(scales)), encode)


@program("either")
def number_cached_function():
    number = [1.0]

    @functools.lru_cache
    def read():
        return number[0]

    def change(step):
        number[0] = rising(step)
        if step == 11:
            read.cache_clear()

    return Case(lambda x: decode(x, read()), encode, before=change)


@program("either")
def number_method_of_another_object():
    class Schedule:
        epoch = 0

        def temperature(self):
            return max(0.5, 2.0 * 0.9**self.epoch)

    schedule = Schedule()

    def change(step):
        schedule.epoch = step // 8

    return Case(lambda x: decode(x, schedule.temperature()), encode, before=change)


@program("either")
def number_learning_rate_of_another_optimiser():
    parameter = torch.nn.Parameter(torch.ones(()))
    other = torch.optim.SGD([parameter], lr=1.0)

    def change(step):
        other.param_groups[0]["lr"] = late(step)

    return Case(lambda x: decode(x, other.param_groups[0]["lr"]), encode, before=change)


@program("either", slow=False)
def number_scale_handler_rebuilt():
    held = [decode]

    def change(step):
        held[0] = poutine.scale(decode, scale=late(step))

    return Case(lambda x: held[0](x), encode, before=change)


@program("either")
def number_mask_handler_rebuilt():
    held = [decode]

    def change(step):
        held[0] = poutine.mask(decode, mask=torch.arange(6) < late(step, 11, 6, 3))

    return Case(lambda x: held[0](x), encode, before=change)


@program("either")
def number_condition_handler_changed():
    values = {"x": data(seed=1)}

    def model(x):
        weight = pyro.param("weight", lambda: torch.ones(2, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1))

    def change(step):
        if step == 11:
            values["x"] = data(seed=2)

    return Case(poutine.condition(model, data=values), encode, before=change)


@program("either")
def number_scale_context_in_the_model():
    beta = [1.0]

    def model(x):
        with poutine.scale(scale=beta[0]):
            decode(x)

    def change(step):
        beta[0] = rising(step)

    return Case(model, encode, before=change)


@program("either")
def number_step_within_a_handler():
    def step_of(svi, step):
        with poutine.scale(scale=rising(step)):
            return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def number_constraint_of_a_parameter_changed():
    class Wide(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = pyro.nn.PyroParam(torch.tensor(1.5), constraints.positive)

        def forward(self, x):
            decode(x, self.scale)

    model = Wide()

    def change(step):
        if step == 11:
            pyro.get_param_store()["scale"] = torch.tensor(1.2)
            del pyro.get_param_store()["scale"]
            model.scale = pyro.nn.PyroParam(torch.tensor(1.2), constraints.greater_than(1.0))

    return Case(model, encode, before=change)


@program("either")
def number_pyro_setting():
    def model(x):
        decode(x, pyro.settings.get("cholesky_relative_jitter"))

    def change(step):
        pyro.settings.set(cholesky_relative_jitter=late(step))

    return Case(model, encode, before=change)
