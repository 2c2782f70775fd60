"""Ways of reading a number that changes: modules, buffers, tensors, arrays."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .harness import Case, decode, encode, late, program, rising

HELD = torch.ones(())


class Module(nn.Module):
    """A module whose forward reads numbers and tensors of its own."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0
        self.plain = torch.ones(())
        self.register_buffer("kept", torch.ones(()))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x) * self.scale * self.plain * self.kept

    def model(self, x):
        pyro.module("linear", self.linear)
        decode(x, factor=self.scale)

    def guide(self, x):
        pyro.module("linear", self.linear)
        encode(self(x))


def with_module(change):
    module = Module()
    return Case(module.model, module.guide, before=functools.partial(change, module))


@program("staged", slow=False)
def number_module_attribute():
    return with_module(lambda module, step: setattr(module, "scale", late(step)))


@program("either")
def number_module_attribute_each_step():
    return with_module(lambda module, step: setattr(module, "scale", rising(step)))


@program("staged", slow=False)
def number_buffer_in_place():
    return with_module(lambda module, step: module.kept.fill_(rising(step)))


@program("staged")
def number_buffer_in_place_under_data():
    def change(module, step):
        module.kept.data = torch.tensor(rising(step))

    return with_module(change)


@program("staged")
def number_buffer_rebound():
    def change(module, step):
        if step == 11:
            module.kept = torch.tensor(2.0)

    return with_module(change)


@program("either")
def number_buffer_rebound_each_step():
    return with_module(lambda module, step: setattr(module, "kept", torch.tensor(rising(step))))


@program("either", slow=False)
def number_tensor_attribute_rebound():
    return with_module(lambda module, step: setattr(module, "plain", torch.tensor(late(step))))


@program("either")
def number_tensor_attribute_in_place():
    return with_module(lambda module, step: module.plain.fill_(rising(step)))


@program("either")
def number_global_tensor_in_place():
    def change(step):
        HELD.fill_(rising(step))

    return Case(lambda x: decode(x, HELD.to(x)), encode, before=change)


@program("either")
def number_closure_tensor_rebound():
    held = torch.ones(())

    def change(step):
        nonlocal held
        held = torch.tensor(late(step))

    return Case(lambda x: decode(x, held), encode, before=change)


@program("either")
def number_numpy_element():
    scales = np.ones(2)

    def change(step):
        scales[0] = late(step)

    return Case(lambda x: decode(x, float(scales[0])), encode, before=change)


@program("either")
def number_numpy_memory_of_a_tensor():
    scales = np.ones(3)
    held = torch.from_numpy(scales)

    def change(step):
        scales[:] = rising(step)

    return Case(lambda x: decode(x, held), encode, before=change)


@program("either", slow=False)
def number_in_a_users_distribution():
    class Tempered(dist.Normal):
        temperature = 1.0

        def log_prob(self, value):
            return super().log_prob(value) / self.temperature

    def model(x):
        weight = pyro.param("weight", lambda: torch.ones(2, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", Tempered(z @ weight, 1.0).to_event(1), obs=x)

    def change(step):
        Tempered.temperature = late(step)

    return Case(model, encode, before=change)


@program("either")
def number_attribute_of_a_part_inside_a_list():
    class Gain(nn.Module):
        gain = 1.0

        def forward(self, x):
            return x * self.gain

    gains = [Gain(), Gain()]

    def guide(x):
        for part in gains:
            x = part(x)
        encode(x)

    return Case(decode, guide, before=lambda step: setattr(gains[1], "gain", late(step)))


@program("either")
def number_lambda_in_a_list():
    functions = [lambda: 1.0]

    def change(step):
        functions[0] = lambda: late(step)

    return Case(lambda x: decode(x, functions[0]()), encode, before=change)
