"""Parameters: Pyro's store and torch's modules, changed in the middle of training."""

import copy
import tempfile

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyro_mivae as mi

from .harness import Case, data, decode, encode, late, program
from .state import with_encoder


def at(when, action):
    """Does something before one step alone."""

    def change(step):
        if step == when:
            action()

    return change


@program("equal", slow=False)
def store_cleared():
    return Case(decode, encode, before=at(11, pyro.clear_param_store))


@program("equal")
def store_set_back():
    kept = {}

    def change(step):
        store = pyro.get_param_store()
        if step == 7:
            state = store.get_state()
            kept["params"] = {k: v.detach().clone() for k, v in state["params"].items()}
            kept["constraints"] = dict(state["constraints"])
        if step == 15:
            for value in kept["params"].values():
                value.requires_grad_()
            store.set_state(kept)

    return Case(decode, encode, before=change)


@program("equal", slow=False, steps=36)
def store_saved_and_loaded():
    folder = tempfile.TemporaryDirectory()

    def change(step):
        if step == 7:
            pyro.get_param_store().save(f"{folder.name}/store.pt")
        if step == 21:
            pyro.get_param_store().load(f"{folder.name}/store.pt")
            folder.cleanup()

    return Case(decode, encode, before=change)


@program("equal", slow=False)
def store_set_beside_a_module():
    """The store's parameters are then none that the module reads, and get no gradient."""
    net = nn.Linear(3, 3)

    def replace():
        store = pyro.get_param_store()
        for name in list(store.keys()):
            store[name] = store[name].detach().clone()

    return with_encoder(net, before=at(11, replace))


@program("staged", slow=False)
def store_parameters_with_equal_gradients():
    """Two biases that are added have one gradient, in memory of their own."""
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)

    def guide(x):
        pyro.module("one", one)
        pyro.module("two", two)
        encode(one(x) + two(x))

    return Case(decode, guide, modules=[one, two])


@program("equal", slow=False)
def store_value_assigned():
    def assign():
        pyro.get_param_store()["weight"] = torch.ones(2, 3)

    return Case(decode, encode, before=at(11, assign))


@program("staged")
def store_value_changed_in_place():
    def change():
        with torch.no_grad():
            pyro.param("weight").mul_(0.5)

    return Case(decode, encode, before=at(11, change))


@program("staged")
def store_value_clamped_after_each_step():
    def clamp(loss):
        pyro.get_param_store().get_param("weight").data.clamp_(-0.9, 0.9)

    return Case(decode, encode, after=clamp)


@program("equal")
def store_entry_deleted():
    def delete():
        del pyro.get_param_store()["weight"]

    return Case(decode, encode, before=at(11, delete))


@program("equal")
def store_entry_popped_and_made_with_another_constraint():
    limits = [dist.constraints.real]

    def model(x):
        gain = pyro.param("gain", torch.tensor(1.0), constraint=limits[0])
        decode(x, factor=gain)

    def change():
        del pyro.get_param_store()["gain"]
        limits[0] = dist.constraints.positive

    return Case(model, encode, before=at(11, change))


@program("equal")
def store_setdefault_twice():
    def again():
        pyro.get_param_store().setdefault("weight", torch.zeros(2, 3))
        pyro.get_param_store().setdefault("slope", torch.zeros(3, 2))

    return Case(decode, encode, before=at(11, again))


@program("either", slow=False)
def store_scope():
    """Some steps run in a store of their own."""
    kept = {}

    def step_of(svi, step):
        if 7 <= step < 15:
            with pyro.get_param_store().scope(kept.get("state")) as scope:
                loss = svi.step(data())
            kept["state"] = scope
            return loss
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def store_parameter_of_a_module_replaced():
    net = nn.Linear(3, 3)

    def replace():
        net.weight = nn.Parameter(torch.eye(3))

    return with_encoder(net, before=at(11, replace))


@program("either")
def store_module_replaced():
    held = [nn.Linear(3, 3)]

    def guide(x):
        pyro.module("net", held[0], update_module_params=True)
        encode(held[0](x))

    def replace():
        held[0] = nn.Linear(3, 3)

    return Case(decode, guide, before=at(11, replace))


@program("equal")
def store_state_of_a_module_loaded():
    net = nn.Linear(3, 3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return with_encoder(net, before=at(15, lambda: net.load_state_dict(state)))


@program("either", steps=36)
def store_state_of_a_module_assigned():
    net = nn.Linear(3, 3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return with_encoder(net, before=at(21, lambda: net.load_state_dict(state, assign=True)))


@program("staged")
def store_data_of_a_parameter_rebound():
    net = nn.Linear(3, 3)

    def change():
        net.weight.data = torch.eye(3)

    return with_encoder(net, before=at(11, change))


@program("either", slow=False, steps=36)
def store_frozen_and_thawed():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    return with_encoder(net, before=lambda step: net[0].requires_grad_(not 11 <= step < 21))


@program("equal", slow=False)
def store_frozen_parameter_of_a_function():
    def freeze():
        pyro.get_param_store().get_param("weight").requires_grad_(False)

    return Case(decode, encode, before=at(11, freeze))


@program("equal", slow=False)
def store_parameter_used_at_times():
    def model(x, extra):
        if extra:
            decode(x, factor=pyro.param("gain", torch.ones(())))
        else:
            decode(x)

    return Case(model, encode, batch=lambda step: (data(), step % 5 == 4))


@program("staged")
def store_parameter_never_used():
    def model(x):
        pyro.param("idle", torch.ones(3))
        decode(x)

    return Case(model, encode, pyro.optim.Adam({"lr": 0.01, "weight_decay": 0.1}))


@program("staged")
def store_parameter_of_both():
    def model(x):
        decode(x, factor=pyro.param("shared", torch.ones(())))

    def guide(x):
        encode(x * pyro.param("shared", torch.ones(())))

    return Case(model, guide)


@program("staged")
def store_tied_weights():
    net = nn.Linear(3, 2, bias=False)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ net.weight, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    return Case(model, guide, modules=[net])


@program("either")
def store_module_under_two_names():
    net = nn.Linear(3, 3)

    def model(x):
        pyro.module("first", net)
        decode(x, factor=net.weight.mean() + 1)

    def guide(x):
        pyro.module("second", net)
        encode(net(x))

    return Case(model, guide, modules=[net])


@program("either")
def store_module_that_is_not_registered():
    net = nn.Linear(3, 3)
    return Case(decode, lambda x: encode(net(x)), modules=[net])


@program("error")
def store_local_parameters_of_modules():
    """Pyro's SVI does not train them."""
    pyro.settings.set(module_local_params=True)

    class Pair(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.net = pyro.nn.PyroModule[nn.Linear](3, 2)
            self.width = pyro.nn.PyroParam(torch.ones(2), dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), self.width).to_event(1))

    guide = Pair()
    return Case(decode, guide, modules=[guide])


@program("equal", slow=False)
def store_two_svis_in_turn(make):
    def wide(x):
        decode(x, 2.0)

    second = make(wide, encode, pyro.optim.SGD({"lr": 1e-3}), mi.MutualInformationELBO())
    return Case(
        decode, encode, step=lambda svi, step: (second if step % 3 == 2 else svi).step(data())
    )


@program("equal")
def store_two_svis_with_one_optimiser(make):
    optim = pyro.optim.Adam({"lr": 0.01})
    second = make(decode, encode, optim, mi.MutualInformationELBO(kl_weights={"z": 2.0}))
    return Case(
        decode, encode, optim, step=lambda svi, step: (second if step >= 10 else svi).step(data())
    )


@program("either")
def store_adversaries_in_turn(make):
    """Each SVI freezes the other's part before its step."""
    parts = {"mine": nn.Linear(3, 3), "yours": nn.Linear(3, 3)}

    def guide(x):
        for name, part in parts.items():
            pyro.module(name, part)
        encode(parts["mine"](x) + parts["yours"](x))

    second = make(decode, guide, pyro.optim.Adam({"lr": 0.02}), mi.MutualInformationELBO())

    def step_of(svi, step):
        parts["mine"].requires_grad_(step % 2 == 0)
        parts["yours"].requires_grad_(step % 2 == 1)
        return (second if step % 2 else svi).step(data())

    return Case(decode, guide, step=step_of, modules=parts.values())


@program("either")
def store_module_copied():
    held = [nn.Sequential(nn.Linear(3, 3))]

    def guide(x):
        pyro.module("net", held[0], update_module_params=True)
        encode(held[0](x))

    def change():
        held[0] = copy.deepcopy(held[0])

    return Case(decode, guide, before=at(11, change))


@program("either")
def store_named_by_a_prefix_that_changes():
    prefix = ["first"]

    def model(x):
        decode(x, factor=pyro.param(f"{prefix[0]}_gain", torch.ones(())))

    def change(step):
        prefix[0] = late(step, 11, "first", "second")

    return Case(model, encode, before=change)


@program("error")
def store_dtype_of_a_module_changed():
    """Adam's averages are of the dtype before."""
    net = nn.Linear(3, 3)

    def guide(x):
        pyro.module("net", net, update_module_params=True)
        encode(net(x.to(net.weight.dtype)).double())

    return Case(decode, guide, before=at(11, net.float), modules=[net])
