"""Structures of Pyro's: plates, enumeration, particles and handlers."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import config_enumerate
from pyro.infer.reparam import LocScaleReparam

import pyro_mivae as mi

from .harness import Case, data, decode, encode, late, program


@program("either")
def structure_sequential_plate():
    def model(x):
        w = pyro.param("w", torch.ones(()))
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(w * z, 1.0), obs=x[i, 0])

    def guide(x):
        a = pyro.param("a", torch.zeros(()))
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(a * x[i, 0], 1.0))

    return Case(model, guide, batch=lambda step: (data(3, 1),))


@program("either")
def structure_markov():
    def model(x):
        z = torch.zeros(len(x))
        w = pyro.param("w", torch.ones(()))
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(3)):
                z = pyro.sample(f"z{t}", dist.Normal(w * z, 1.0))
                pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(x):
        a = pyro.param("a", torch.zeros(()))
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(3)):
                pyro.sample(f"z{t}", dist.Normal(a * x[:, t], 1.0))

    return Case(model, guide)


def mixture(x, scale=1.0, sites=1):
    loc = pyro.param("loc", lambda: torch.linspace(-1, 1, 6).reshape(2, 3))
    with pyro.plate("data", len(x)):
        shift = 0.0
        for site in range(sites):
            c = pyro.sample(f"c{site}", dist.Categorical(torch.tensor([0.4, 0.6])))
            shift = shift + loc[c]
        pyro.sample("x", dist.Normal(shift, scale).to_event(1), obs=x)


def classify(x, scale=1.0, sites=1, **infer):
    logits = pyro.param("logits", lambda: torch.linspace(-1, 1, 6).reshape(3, 2))
    with pyro.plate("data", len(x)):
        for site in range(sites):
            pyro.sample(f"c{site}", dist.Categorical(logits=x @ logits), infer=infer)


@program("staged", slow=False)
def structure_enumeration():
    return Case(mixture, lambda x: classify(x, enumerate="parallel"))


@program("staged")
def structure_enumeration_of_two_sites():
    return Case(
        lambda x: mixture(x, sites=2), lambda x: classify(x, sites=2, enumerate="parallel")
    )


@program("either", slow=False)
def structure_enumeration_by_a_handler():
    guide = config_enumerate(classify, default="parallel")
    return Case(mixture, guide, keywords=lambda step: {"scale": late(step)})


@program("error")
def structure_category_that_is_not_enumerated():
    return Case(mixture, classify)


@program("either", slow=False)
def structure_subsampled_plate():
    def model(x):
        weight = pyro.param("weight", torch.ones(3))
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z[..., None] * weight
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[rows])

    def guide(x):
        slope = pyro.param("slope", torch.zeros(3))
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            pyro.sample("z", dist.Normal(x[rows] @ slope, 1.0))

    return Case(model, guide)


@program("either")
def structure_subsample_given():
    def rows_of(body):
        def program_of(x, rows):
            with pyro.plate("all", len(x), subsample=rows):
                body(x[rows])

        return program_of

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z * pyro.param("w", torch.ones(3)), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x * pyro.param("a", torch.zeros(3)), 1.0).to_event(1))

    def batch(step):
        return data(), (torch.arange(3) + step) % 6

    return Case(rows_of(model), rows_of(guide), batch=batch)


@program("staged")
def structure_particles_in_a_loop():
    return Case(decode, encode, loss=mi.MutualInformationELBO(num_particles=3))


@program("staged", slow=False)
def structure_particles_along_a_plate():
    loss = mi.MutualInformationELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    return Case(decode, encode, loss=loss)


@program("staged")
def structure_conditioned_model():
    def model(x):
        weight = pyro.param("weight", lambda: torch.ones(2, 3))
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1))

    return Case(poutine.condition(model, data={"x": data()}), encode)


@program("either")
def structure_lifted_parameter():
    model = poutine.lift(decode, prior={"weight": dist.Normal(torch.zeros(2, 3), 1.0).to_event(2)})

    def guide(x):
        encode(x)
        pyro.sample("weight", dist.Delta(pyro.param("at", torch.ones(2, 3))).to_event(2))

    return Case(model, guide)


@program("either")
def structure_blocked_and_broadcast_handlers():
    model = poutine.block(decode, hide=["nothing"])
    return Case(poutine.trace(model), poutine.broadcast(encode))


@program("staged")
def structure_nested_plates():
    def model(x):
        w = pyro.param("w", torch.ones(()))
        with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(w * z, 1.0), obs=x)

    def guide(x):
        a = pyro.param("a", torch.zeros(()))
        with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", len(x), dim=-2):
            pyro.sample("z", dist.Normal(a * x, 1.0))

    return Case(model, guide)


@program("staged")
def structure_scale_of_annealing():
    beta = torch.ones(())

    def scaled(body):
        def program_of(x):
            with poutine.scale(scale=beta):
                body(x)

        return program_of

    return Case(
        scaled(decode), scaled(encode), before=lambda step: beta.fill_(min(1.0, 0.1 + step / 20))
    )


@program("either")
def structure_mask_of_observations():
    def model(x, mask):
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            w = pyro.param("w", torch.ones(3))
            pyro.sample("x", dist.Normal(w * z, 1.0).to_event(1), obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(x * pyro.param("a", torch.zeros(3)), 1.0).to_event(1))

    return Case(model, guide, batch=lambda step: (data(), data(seed=step % 3)[:, 0] > 0))


@program("either")
def structure_observations_that_are_missing():
    """A missing value is drawn by the guide, as Pyro's ``obs_mask`` asks."""
    seen = torch.tensor([True, True, False, True, False, True])

    def model(x):
        w = pyro.param("w", torch.ones(()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, 0], obs_mask=seen)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x_unobserved", dist.Normal(pyro.param("a", torch.zeros(())), 1.0))

    return Case(model, guide)


@program("either")
def structure_reparametrised_by_a_handler():
    config = {"z": LocScaleReparam(0.0)}
    model = poutine.reparam(decode, config=config)

    def guide(x):
        slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(x @ slope, 1.0).to_event(1))

    return Case(model, guide)


@program("either")
def structure_intervention():
    values = {"x": data(seed=1)}
    return Case(poutine.condition(poutine.uncondition(decode), data=values), encode)


@program("staged")
def structure_chain_of_a_length_that_is_given():
    def model(x, depth):
        w = pyro.param("w", torch.ones(()))
        z = torch.zeros(len(x))
        with pyro.plate("data", len(x)):
            for level in range(depth):
                z = pyro.sample(f"z{level}", dist.Normal(w * z, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x, depth):
        a = pyro.param("a", torch.zeros(()))
        with pyro.plate("data", len(x)):
            for level in range(depth):
                pyro.sample(f"z{level}", dist.Normal(a * x[:, 0], 1.0))

    return Case(model, guide, batch=lambda step: (data(), late(step, 11, 1, 3)))


@program("either")
def structure_plate_object_kept():
    plate = pyro.plate("data", 6)

    def model(x):
        w = pyro.param("w", torch.ones(3))
        with plate:
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(w * z, 1.0).to_event(1), obs=x)

    def guide(x):
        a = pyro.param("a", torch.zeros(3))
        with plate:
            pyro.sample("z", dist.Normal(a * x, 1.0).to_event(1))

    return Case(model, guide)
