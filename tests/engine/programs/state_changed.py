"""State that a script changes: parts made late, swapped or patched; runs between two steps."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .harness import Case, data, decode, encode, late, program
from .state import with_encoder


@program("either")
def state_lazy_linear():
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(3))

    def guide(x):
        x = net(x)
        pyro.module("net", net)
        encode(x)

    return Case(decode, guide, modules=[net])


@program("either")
def state_module_made_at_the_first_call():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = None

        def guide(self, x):
            if self.net is None:
                self.net = nn.Linear(3, 3)
            pyro.module("net", self.net)
            encode(self.net(x))

    return Case(decode, Grows().guide)


@program("either", slow=False)
def state_module_made_later():
    """A second layer joins in the middle of training."""
    net = nn.Sequential(nn.Linear(3, 3))

    def change(step):
        if step == 11:
            net.append(nn.Tanh())
            net.append(nn.Linear(3, 3))

    return with_encoder(net, before=change)


@program("either")
def state_parameter_made_later():
    calls = [0]

    def model(x):
        z = decode(x)
        if calls[0] >= 11:
            extra = pyro.param("extra", torch.ones(()))
            pyro.factor("penalty", -(extra - z.detach().mean()).square())

    def change(step):
        calls[0] = step

    return Case(model, encode, before=change)


@program("either")
def state_layer_swapped_for_another_activation():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def change(step):
        net[1] = late(step, 11, net[1], nn.ReLU())

    return with_encoder(net, before=change)


@program("either")
def state_forward_patched():
    net = nn.Linear(3, 3)

    def change(step):
        if step == 11:
            net.forward = lambda x: nn.functional.linear(x, net.weight) * 2

    return with_encoder(net, before=change)


@program("staged")
def state_evaluation_in_between():
    """A validation loss every few steps, which draws random numbers of its own."""

    def step_of(svi, step):
        if step % 5 == 4:
            svi.evaluate_loss(data(seed=5))
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def state_loss_called_by_hand_in_between():
    def step_of(svi, step):
        if step == 11:
            svi.loss_and_grads(svi.model, svi.guide, data(seed=5))
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("staged")
def state_sampling_of_the_guide_in_between():
    def step_of(svi, step):
        if step == 11:
            with torch.no_grad():
                svi.guide(data(seed=5))
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("staged")
def state_deterministic_sites():
    def model(x):
        z = decode(x)
        pyro.deterministic("norm", z.square().sum(-1))

    return Case(model, encode)


@program("either")
def state_value_stored_by_a_site_hook():
    class Keeps(dist.Normal):
        last = None

        def rsample(self, *args, **kwargs):
            Keeps.last = super().rsample(*args, **kwargs)
            return Keeps.last

    def guide(x):
        shift = 0.0 if Keeps.last is None else Keeps.last.detach().mean()
        slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", Keeps(x @ slope + shift, 1.0).to_event(1))

    Keeps.last = None
    return Case(decode, guide, state=lambda: Keeps.last)
