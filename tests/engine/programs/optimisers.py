"""Optimisers: all of Pyro's, their options, their states, and others beside them."""

import tempfile

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .harness import Case, data, decode, encode, late, program
from .structures import structure_semi_supervised


def add(name, make, expected="staged", slow=True):
    def build():
        return Case(decode, encode, make())

    build.__name__ = f"optimiser_{name}"
    program(expected, slow=slow)(build)


def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr)


def clip_by_length(module, name):
    return {"clip_value": len(name) / 10}


def per_parameter(name):
    return {"lr": 0.05 if "weight" in name else 0.001}


for name, make, quick in [
    ("adam_amsgrad", lambda: pyro.optim.Adam({"lr": 0.01, "amsgrad": True}), False),
    ("adam_weight_decay", lambda: pyro.optim.Adam({"lr": 0.01, "weight_decay": 0.1}), False),
    ("adam_per_parameter", lambda: pyro.optim.Adam(per_parameter), True),
    ("adam_clip_norm", lambda: pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 0.5}), False),
    (
        "adam_clip_value_per_parameter",
        lambda: pyro.optim.Adam({"lr": 0.01}, clip_by_length),
        False,
    ),
    ("adamw", lambda: pyro.optim.AdamW({"lr": 0.01}), False),
    ("adamax", lambda: pyro.optim.Adamax({"lr": 0.01}), False),
    ("nadam", lambda: pyro.optim.NAdam({"lr": 0.01}), False),
    ("radam", lambda: pyro.optim.RAdam({"lr": 0.01}), False),
    ("adadelta", lambda: pyro.optim.Adadelta({"lr": 1.0}), False),
    ("adagrad", lambda: pyro.optim.Adagrad({"lr": 0.01}), False),
    ("rprop", lambda: pyro.optim.Rprop({"lr": 0.001}), False),
    ("asgd", lambda: pyro.optim.ASGD({"lr": 0.001}), False),
    ("clipped_adam", lambda: pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.95}), True),
    ("clipped_adam_norm", lambda: pyro.optim.ClippedAdam({"lr": 0.01, "clip_norm": 0.1}), False),
    ("sgd", lambda: pyro.optim.SGD({"lr": 0.001}), False),
    ("sgd_momentum", lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9}), False),
    (
        "sgd_nesterov",
        lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
        False,
    ),
    ("rmsprop", lambda: pyro.optim.RMSprop({"lr": 0.01, "centered": True}), False),
    ("adagrad_rmsprop", lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}), False),
    ("dct_adam", lambda: pyro.optim.DCTAdam({"lr": 0.01}), False),
    ("maximising", lambda: pyro.optim.SGD({"lr": 1e-5, "maximize": True}), False),
]:
    add(name, make, slow=not quick)
add("lbfgs", lambda: pyro.optim.PyroOptim(torch.optim.LBFGS, {"lr": 0.1}), "error")
add("plain_function", lambda: pyro.optim.PyroOptim(sgd, {"lr": 1e-3}), "either")


def scheduled(name, make_scheduler, expected="staged", slow=True, **options):
    def build():
        optim = make_scheduler(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, **options}
        )
        if name == "plateau":
            return Case(decode, encode, optim, after=lambda loss: optim.step(loss))
        return Case(decode, encode, optim, after=lambda loss: optim.step())

    build.__name__ = f"scheduler_{name}"
    program(expected, slow=slow)(build)


scheduled("exponential", pyro.optim.ExponentialLR, gamma=0.9, slow=False)
scheduled("steps", pyro.optim.StepLR, step_size=9, gamma=0.3)
scheduled("milestones", pyro.optim.MultiStepLR, milestones=[7, 15], gamma=0.2)
scheduled("plateau", pyro.optim.ReduceLROnPlateau, patience=2, factor=0.5)
scheduled("lambda", pyro.optim.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch))
scheduled("cosine", pyro.optim.CosineAnnealingLR, T_max=20)
scheduled("one_cycle", pyro.optim.OneCycleLR, max_lr=0.05, total_steps=60)


@program("staged", kinds=2, slow=False)
def optimiser_of_two_kinds_with_decay():
    """Each kind of step has a parameter of its own, whose rate decays on those steps alone."""

    def model(x, kind):
        scale = pyro.param(kind, torch.tensor(1.5), constraint=dist.constraints.positive)
        decode(x, scale)

    optim = pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.9})
    return Case(model, encode, optim, batch=lambda step: (data(), "a" if step % 4 == 0 else "b"))


@program("staged", kinds=2)
def optimiser_of_two_kinds_with_momentum():
    case = structure_semi_supervised()
    case.optim = pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9})
    return case


@program("staged", kinds=2, slow=False)
def optimiser_of_a_part_that_is_idle():
    """A registered module of which a kind of step uses one head: Pyro's gradient of it is 0."""
    heads = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})

    def guide(x, head):
        pyro.module("heads", heads)
        encode(heads[head](x))

    return Case(
        lambda x, head: decode(x),
        guide,
        batch=lambda step: (data(), "ab"[step % 2]),
        modules=[heads],
    )


def through_its_state(change):
    def build():
        optim = pyro.optim.Adam({"lr": 0.05})
        kept = {}
        return Case(decode, encode, optim, before=lambda step: change(optim, kept, step))

    return build


@program("equal")
def optimiser_state_set_back():
    def change(optim, kept, step):
        if step == 7:
            kept["state"] = {name: copied(state) for name, state in optim.get_state().items()}
        if step == 15:
            optim.set_state(kept["state"])

    return through_its_state(change)()


def copied(tree):
    return torch.utils._pytree.tree_map(lambda leaf: getattr(leaf, "clone", lambda: leaf)(), tree)


@program("equal")
def optimiser_state_set_for_objects_that_are_made():
    """Also the objects that hold the parameters are given the state, in the middle."""

    def change(optim, kept, step):
        if step == 11:
            for made in optim.optim_objs.values():
                state = copied(made.state_dict())
                state["param_groups"][0]["lr"] = 0.5
                made.load_state_dict(state)

    return through_its_state(change)()


@program("equal", slow=False, steps=36)
def optimiser_saved_and_loaded():
    def change(optim, kept, step):
        if step == 7:
            kept["folder"] = tempfile.TemporaryDirectory()
            optim.save(f"{kept['folder'].name}/optim.pt")
            pyro.get_param_store().save(f"{kept['folder'].name}/store.pt")
        if step == 21:
            optim.load(f"{kept['folder'].name}/optim.pt")
            pyro.get_param_store().load(f"{kept['folder'].name}/store.pt")
            kept["folder"].cleanup()

    return through_its_state(change)()


@program("equal")
def optimiser_objects_dropped():
    def change(optim, kept, step):
        if step == 11:
            optim.optim_objs.clear()

    return through_its_state(change)()


@program("equal")
def optimiser_state_emptied():
    def change(optim, kept, step):
        if step == 11:
            for made in optim.optim_objs.values():
                made.state.clear()

    return through_its_state(change)()


@program("either", slow=False)
def optimiser_replaced():
    def step_of(svi, step):
        if step == 11:
            svi.optim = pyro.optim.SGD({"lr": 1e-4})
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either", slow=False)
def optimiser_of_the_users_beside():
    """A parameter that is in no store is trained by a torch optimiser of the script."""
    scale = nn.Parameter(torch.ones(()))
    own = torch.optim.SGD([scale], lr=0.01)

    def learn(loss):
        own.step()
        own.zero_grad()

    return Case(lambda x: decode(x, scale.exp()), encode, after=learn, leaves=[scale])


@program("either")
def optimiser_hooks():
    optim = pyro.optim.Adam({"lr": 0.01})

    def change(step):
        if step == 11:
            for made in optim.optim_objs.values():
                made.register_step_post_hook(lambda made, args, kwargs: halve(made))

    def halve(made):
        with torch.no_grad():
            for group in made.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.99)

    return Case(decode, encode, optim, before=change)


@program("either")
def optimiser_of_a_users_class():
    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr=0.01):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.state[parameter].setdefault("n", 0)
                        self.state[parameter]["n"] += 1
                        rate = group["lr"] / self.state[parameter]["n"] ** 0.5
                        parameter.sub_(rate * torch.tanh(parameter.grad))

    return Case(decode, encode, pyro.optim.PyroOptim(Signs, {"lr": 0.02}))


@program("either")
def optimiser_betas_changed_between_steps():
    optim = pyro.optim.Adam({"lr": 0.01})

    def change(step):
        for made in optim.optim_objs.values():
            made.param_groups[0]["betas"] = late(step, 11, (0.9, 0.999), (0.5, 0.9))

    return Case(decode, encode, optim, before=change)
