"""Ways of reading a number that changes: arguments, schedules, losses and optimisers."""

import enum

import pyro
import pyro.distributions as dist
import torch

import pyro_mivae as mi

from .harness import Case, data, decode, encode, late, program, rising


@program("staged", slow=False)
def number_keyword_argument():
    return Case(decode, encode, keywords=lambda step: {"scale": late(step)})


@program("either")
def number_keyword_argument_each_step():
    return Case(decode, encode, keywords=lambda step: {"scale": rising(step)})


@program("staged", slow=False)
def number_tensor_argument_each_step():
    return Case(decode, encode, batch=lambda step: (data(), torch.tensor(rising(step))))


@program("either", slow=False)
def number_argument_object_changed():
    class Options:
        scale = 1.0

    options = Options()
    return Case(
        lambda x, given: decode(x, given.scale),
        encode,
        before=lambda step: setattr(options, "scale", late(step)),
        batch=lambda step: (data(), options),
    )


@program("either")
def number_argument_list_changed():
    scales = [1.0]

    def change(step):
        scales[0] = late(step)

    return Case(
        lambda x, given: decode(x, given[0]),
        encode,
        before=change,
        batch=lambda step: (data(), scales),
    )


@program("equal")
def number_arguments_of_varying_length():
    def model(x, *scales):
        decode(x, sum(scales, 1.0))

    return Case(model, encode, batch=lambda step: (data(), *[0.5] * (step // 7)))


class Kind(enum.Enum):
    NARROW = 1.0
    WIDE = 2.0


@program("staged")
def number_enum_argument():
    return Case(
        lambda x, kind: decode(x, kind.value),
        encode,
        batch=lambda step: (data(), Kind.WIDE if step > 8 else Kind.NARROW),
    )


@program("staged")
def number_text_argument():
    def model(x, kind="narrow"):
        decode(x, {"narrow": 1.0, "wide": 2.0}[kind])

    return Case(model, encode, keywords=lambda step: {"kind": late(step, 9, "narrow", "wide")})


@program("staged", kinds=2)
def number_none_or_not():
    def model(x, scale=None):
        decode(x, 1.0 if scale is None else 2.0)

    return Case(model, encode, keywords=lambda step: {} if step % 2 else {"scale": True})


@program("either")
def number_schedule_object():
    class Warmup:
        step = 0

        def __float__(self):
            return min(1.0, 0.1 + self.step / 20)

    warmup = Warmup()

    def change(step):
        warmup.step = step

    return Case(lambda x: decode(x, float(warmup)), encode, before=change)


@program("either")
def number_learning_rate_callable_changed():
    rate = [0.01]

    def options(name):
        return {"lr": rate[0]}

    def change(step):
        rate[0] = late(step, 11, 0.01, 0.1)

    return Case(decode, encode, pyro.optim.Adam(options), before=change)


@program("either")
def number_learning_rate_set_by_hand():
    optim = pyro.optim.Adam({"lr": 0.01})

    def change(step):
        if step == 11:
            for made in optim.optim_objs.values():
                made.param_groups[0]["lr"] = 0.2

    return Case(decode, encode, optim, before=change)


@program("either", slow=False)
def number_of_particles_changed():
    loss = mi.MutualInformationELBO(max_plate_nesting=1)

    def change(step):
        loss.num_particles = late(step, 11, 1, 3)

    return Case(decode, encode, loss=loss, before=change)


@program("either")
def number_kl_weight_set_by_hand():
    loss = mi.MutualInformationELBO(kl_weights={"z": 0.5})

    def change(step):
        if step == 11:
            loss.kl_weights["z"] = mi.schedules.Weight(2.0)

    return Case(decode, encode, loss=loss, before=change)


@program("staged", slow=False)
def number_kl_weight_scheduled():
    loss = mi.MutualInformationELBO(kl_weights={"z": mi.linear_warmup(20)})
    return Case(decode, encode, loss=loss, state=lambda: loss.state.state_dict())


@program("staged")
def number_kl_weight_cyclic():
    loss = mi.MutualInformationELBO(kl_weights={"z": mi.cyclic_warmup(9)})
    return Case(decode, encode, loss=loss)


@program("either")
def number_weight_of_a_term_set_by_hand():
    term = mi.MaximumMeanDiscrepancy("z", weight=1.0)
    loss = mi.MutualInformationELBO([term])

    def change(step):
        if step == 11:
            term.weight = mi.schedules.Weight(30.0)

    return Case(decode, encode, loss=loss, before=change)


@program("either")
def number_bandwidth_of_a_term():
    term = mi.MaximumMeanDiscrepancy("z", weight=30.0, bandwidth=1.0)

    def change(step):
        term.bandwidth = late(step, 11, 1.0, 5.0)

    return Case(decode, encode, loss=mi.MutualInformationELBO([term]), before=change)


@program("either")
def number_in_a_penalty():
    target = [0.0]

    def function(particle):
        return (particle.traces.guide.nodes["z"]["value"] - target[0]).square().sum()

    def change(step):
        target[0] = late(step)

    loss = mi.MutualInformationELBO([mi.Penalty("z", function=function)])
    return Case(decode, encode, loss=loss, before=change)


@program("either")
def number_model_of_the_svi_replaced():
    """A script may set another model; Pyro's SVI takes it from then on."""

    def wide(x):
        decode(x, 2.0)

    def step_of(svi, step):
        if step == 11:
            svi.model = wide
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def number_default_dtype_changed():
    def change(step):
        torch.set_default_dtype(late(step, 11, torch.float64, torch.float32))

    x = data()
    return Case(
        lambda x: decode(x, (torch.tensor(1.0) / 3).double()),
        encode_in_double,
        before=change,
        batch=lambda step: (x,),
    )


def encode_in_double(x):
    slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1).to(x))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ slope, 1.0).to_event(1))
