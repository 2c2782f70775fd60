"""Structures that hang on values: reads, masks, loops, shapes, dtypes, arguments."""

from collections import namedtuple

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .harness import Case, data, decode, encode, program


@program("warned", slow=False)
def structure_item():
    return Case(lambda x: decode(x, 1.0 + abs(x.mean().item())), encode)


@program("warned")
def structure_item_for_a_log_alone():
    seen = []

    def guide(x):
        seen.append(encode(x).mean().item())

    return Case(decode, guide, state=lambda: seen)


@program("warned")
def structure_float_of_a_parameter():
    def model(x):
        width = pyro.param("width_of_x", torch.ones(()), constraint=dist.constraints.positive)
        decode(x, width if float(width) < 1.05 else width * 2)

    return Case(model, encode)


@program("warned", slow=False)
def structure_tolist():
    """A loop over time, whose length is that of the longest series."""

    def pair(x, lengths, observed):
        w = pyro.param("w" if observed else "a", torch.tensor(0.5))
        z = torch.zeros(len(x))
        with pyro.plate("data", len(x)):
            for t in range(max(lengths.tolist())):
                mask = t < lengths
                loc = w * z if observed else w * x[:, t]
                z = pyro.sample(f"z{t}", dist.Normal(loc, 1.0).mask(mask))
                if observed:
                    pyro.sample(f"x{t}", dist.Normal(z, 1.0).mask(mask), obs=x[:, t])

    def batch(step):
        longest = 2 if step < 11 else 4
        return data(6, 5, step % 3), (torch.arange(6) + step) % longest + 1

    return Case(
        lambda x, lengths: pair(x, lengths, True),
        lambda x, lengths: pair(x, lengths, False),
        batch=batch,
    )


@program("warned")
def structure_numpy_read():
    def guide(x):
        scale = x.detach().numpy().std()
        encode(x / float(scale))

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("warned")
def structure_sizes_by_numpy():
    def guide(x):
        kept = int((x.numpy() > 0).any(-1).sum())
        encode(x * kept / len(x))

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("warned")
def structure_branch_on_a_tensor():
    def guide(x):
        encode(x if x.sum() > 0 else -x)

    return Case(decode, guide, batch=lambda step: (data(seed=step),))


@program("warned")
def structure_loop_until_a_tensor_is_small():
    def guide(x):
        while x.norm() > 3:
            x = x / 2
        encode(x)

    return Case(decode, guide, batch=lambda step: (data(seed=step) * (1 + step % 4),))


@program("either")
def structure_boolean_mask():
    def guide(x):
        mean = x[x > 0].mean()
        encode(x - mean)

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("either", slow=False)
def structure_masked_assignment():
    filler = nn.Linear(3, 3)

    def guide(x):
        pyro.module("filler", filler)
        far, filled = x.abs() > 1, x.clone()
        filled[far] = filler(x)[far]
        encode(filled)

    return Case(decode, guide, batch=lambda step: (data(seed=step % 5),), modules=[filler])


@program("either")
def structure_masked_assignment_that_is_rare():
    def guide(x):
        x = x.clone()
        x[x > 2] = 0.0
        encode(x)

    return Case(decode, guide, batch=lambda step: (data(seed=step),))


@program("staged")
def structure_where_in_place_of_a_mask():
    def guide(x):
        encode(torch.where(x > 0.5, torch.zeros_like(x), x).masked_fill(x < -1, -1.0))

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("either")
def structure_nonzero():
    def guide(x):
        rows = (x[:, 0] > 0).nonzero()[:, 0]
        encode(x.index_add(0, rows, x[rows]))

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("either")
def structure_unique():
    def guide(x):
        values = x.round().unique()
        encode(x / (1 + len(values)))

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("either")
def structure_repeat_interleave_and_bincount():
    def guide(x):
        labels = (x[:, 0] > 0).long()
        counts = labels.bincount(minlength=2)
        encode(x / counts[labels][:, None])

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),))


@program("staged", kinds=2, slow=False)
def structure_smaller_last_batch():
    return Case(decode, encode, batch=lambda step: (data(4 if step % 4 == 3 else 6),))


@program("either")
def structure_batch_of_another_size_each_step():
    return Case(decode, encode, batch=lambda step: (data(2 + step % 20),))


@program("either", kinds=2)
def structure_dtypes_in_turn():
    def batch(step):
        return (data().to(torch.float64 if step % 2 else torch.float32),)

    return Case(lambda x: decode(x.double()), lambda x: encode(x.double()), batch=batch)


@program("staged")
def structure_whole_numbers_as_data():
    def batch(step):
        return ((data(seed=step % 3) > 0).to(torch.uint8),)

    return Case(lambda x: decode(x.double()), lambda x: encode(x.double()), batch=batch)


@program("staged", kinds=2, slow=False)
def structure_semi_supervised():
    """Kingma's M2: labelled and unlabelled batches in turn."""
    classify, decoder, encoder = nn.Linear(3, 2), nn.Linear(4, 3), nn.Linear(5, 4)
    networks = nn.ModuleDict({"classify": classify, "decoder": decoder, "encoder": encoder})

    def model(x, y=None):
        pyro.module("networks", networks)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(2)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            both = torch.cat(torch.broadcast_tensors(y.to(z), z), -1)
            pyro.sample("x", dist.Normal(decoder(both), 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("networks", networks)
        with pyro.plate("data", len(x)):
            if y is None:
                drawn = dist.OneHotCategorical(logits=classify(x))
                y = pyro.sample("y", drawn, infer={"enumerate": "parallel"})
            shape = torch.broadcast_shapes(y.shape[:-1], x.shape[:-1])
            parts = torch.cat([x.expand(*shape, 3), y.to(x).expand(*shape, 2)], -1)
            loc, width = encoder(parts).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, width.exp()).to_event(1))

    y = torch.eye(2)[torch.arange(6) % 2]
    return Case(
        model, guide, batch=lambda step: (data(), y) if step % 2 else (data(),), modules=[networks]
    )


Batch = namedtuple("Batch", "x weight")


@program("staged")
def structure_named_tuple_argument():
    def batch(step):
        return (Batch(data(seed=step % 2), torch.tensor(1.0 + step % 2)),)

    return Case(lambda b: decode(b.x, b.weight), lambda b: encode(b.x), batch=batch)


@program("staged")
def structure_dictionary_argument():
    def batch(step):
        return ({"x": data(seed=step % 2), "scales": [torch.tensor(1.5), 2.0]},)

    return Case(lambda b: decode(b["x"], b["scales"][0]), lambda b: encode(b["x"]), batch=batch)


@program("either")
def structure_object_argument_with_tensors():
    class Holder:
        def __init__(self, x):
            self.x = x

    holder = Holder(data())

    def change(step):
        holder.x = data(seed=step % 2)

    return Case(
        lambda b, x: decode(b.x),
        lambda b, x: encode(b.x),
        before=change,
        batch=lambda step: (holder, torch.zeros(1)),
    )


@program("equal", slow=False)
def structure_same_tensor_twice():
    x, y = data(), data(seed=1)

    def model(x, target):
        decode(target)

    return Case(model, encode, batch=lambda step: (x, x if step < 11 else y))


@program("staged")
def structure_views_of_one_tensor():
    def model(x, target):
        decode(target)

    whole = data(12)
    halves = whole[:6], whole[6:]
    return Case(model, encode, batch=lambda step: (whole[:6], halves[step % 2]))


@program("either", slow=False)
def structure_argument_changed_by_the_program():
    x = data()

    def guide(x):
        x.mul_(1.01)
        encode(x)

    return Case(decode, guide, batch=lambda step: (x,), state=lambda: x)


@program("staged")
def structure_argument_changed_by_the_script():
    x = data()
    return Case(decode, encode, batch=lambda step: (x.add_(0.01),), state=lambda: x)


@program("equal")
def structure_no_arguments():
    x = data()
    return Case(lambda: decode(x), lambda: encode(x), batch=lambda step: ())


@program("either")
def structure_no_tensor_arguments():
    sets = [data(seed=seed) for seed in range(3)]
    return Case(
        lambda number: decode(sets[number]),
        lambda number: encode(sets[number]),
        batch=lambda step: (step % 3,),
    )


@program("staged")
def structure_strided_arguments():
    def batch(step):
        return (data(3, 6, step % 2).T if step % 3 else data(6, 3),)

    return Case(decode, encode, batch=batch)


@program("staged")
def structure_expanded_argument():
    return Case(decode, encode, batch=lambda step: (data(1, 3, step % 2).expand(6, 3),))


@program("either", slow=False)
def structure_argument_that_wants_a_gradient():
    x = data().requires_grad_()
    return Case(lambda x: decode(x), encode, batch=lambda step: (x,), leaves=[x])


@program("either")
def structure_leaf_outside_the_store():
    leaf = torch.ones((), requires_grad=True)
    return Case(lambda x: decode(x, leaf.exp()), encode, leaves=[leaf])


@program("error")
def structure_error_in_the_middle():
    def model(x):
        if len(x) == 5:
            raise KeyError("five")
        decode(x)

    return Case(model, encode, batch=lambda step: (data(5 if step == 19 else 6),))


@program("error", slow=False)
def structure_error_of_a_shape():
    return Case(decode, encode, batch=lambda step: (data(6, 3 if step < 5 else 4),))


@program("error")
def structure_error_raised_by_a_flag():
    broken = False

    def change(step):
        nonlocal broken
        broken = step == 11

    def model(x):
        if broken:
            raise StopIteration("no more")
        decode(x)

    return Case(model, encode, before=change)
