"""Random numbers: of Python, NumPy and torch, and distributions of every kind."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints
from torch.utils.checkpoint import checkpoint

from .harness import Case, data, decode, encode, program


@program("warned", slow=False)
def random_of_python():
    return Case(lambda x: decode(x, 1.0 + random.random()), encode)


@program("warned")
def random_rare_branch():
    def guide(x):
        encode(x.flip(-1) if random.random() < 0.3 else x)

    return Case(decode, guide)


@program("either")
def random_instance_of_python():
    draws = random.Random(3)
    return Case(lambda x: decode(x, 1.0 + draws.random()), encode, state=lambda: draws.getstate())


@program("warned")
def random_shuffle_of_python():
    order = list(range(6))

    def guide(x):
        random.shuffle(order)
        encode(x[order])

    return Case(decode, guide, state=lambda: order)


@program("warned", slow=False)
def random_of_numpy():
    def model(x):
        decode(x + torch.from_numpy(np.random.randn(6, 3)) / 10)

    return Case(model, encode)


@program("either")
def random_generator_of_numpy():
    draws = np.random.default_rng(2)

    def model(x):
        decode(x, 1.0 + draws.random())

    return Case(model, encode, state=lambda: draws.bit_generator.state)


@program("either")
def random_generator_of_numpy_as_tensor():
    draws = np.random.default_rng(2)

    def guide(x):
        encode(x + torch.as_tensor(draws.normal(size=x.shape)) / 10)

    return Case(decode, guide)


@program("either", slow=False)
def random_generator_of_torch():
    draws = torch.Generator().manual_seed(2)

    def model(x):
        decode(x + torch.randn(x.shape, generator=draws) / 10)

    return Case(model, encode, state=draws.get_state)


@program("either")
def random_seed_set_in_the_model():
    def model(x):
        torch.manual_seed(3)
        decode(x + torch.randn(6, 3) / 10)

    return Case(model, encode)


@program("either")
def random_state_of_torch_saved_and_restored():
    def guide(x):
        state = torch.get_rng_state()
        noise = torch.randn(6, 3)
        torch.set_rng_state(state)
        encode(x + noise / 10)

    return Case(decode, guide)


@program("either")
def random_forked_generator():
    def model(x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            noise = torch.randn(6, 3)
        decode(x + noise)

    return Case(model, encode)


@program("staged", slow=False)
def random_dropout():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3))

    def guide(x):
        pyro.module("net", net)
        encode(net(x))

    return Case(decode, guide, modules=[net])


@program("staged")
def random_dropout_of_other_kinds():
    def guide(x):
        x = nn.functional.alpha_dropout(x, 0.2, training=True)
        x = nn.functional.dropout1d(x.reshape(6, 3, 1), 0.2).squeeze(-1)
        encode(nn.functional.feature_alpha_dropout(x, 0.1, training=True))

    return Case(decode, guide)


@program("staged", slow=False)
def random_noise_of_many_functions():
    def guide(x):
        noise = torch.rand_like(x) + torch.randn(3) + torch.empty(6, 1).uniform_(0, 1)
        noise = noise + torch.empty(6, 3).exponential_() + torch.normal(0.0, 1.0, (6, 3))
        encode(x + noise / 10 + torch.randint(0, 2, (6, 3)) / 10)

    return Case(decode, guide)


@program("staged")
def random_bernoulli_and_multinomial():
    def guide(x):
        kept = torch.bernoulli(torch.full((6, 3), 0.8))
        rows = torch.multinomial(torch.softmax(x[:, 0], 0), 6, replacement=True)
        encode(x[rows] * kept)

    return Case(decode, guide)


@program("staged")
def random_permutation():
    def guide(x):
        encode(x[torch.randperm(len(x))])

    return Case(decode, guide)


@program("staged")
def random_gumbel_softmax():
    def guide(x):
        slope = pyro.param("mixing", lambda: torch.eye(3))
        encode(nn.functional.gumbel_softmax(x @ slope, tau=0.7))

    return Case(decode, guide)


@program("either")
def random_checkpointed_network():
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 3))

    def guide(x):
        pyro.module("net", net)
        encode(checkpoint(net, x, use_reentrant=False))

    return Case(decode, guide, modules=[net])


def positive_case(make):
    """A positive code, drawn from a family with two positive parameters."""

    def model(x):
        rate = pyro.param("rate", torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", make(torch.ones(2), torch.ones(2)).to_event(1))
            loc = torch.stack([z.sum(-1), z[..., 0], z[..., 1]], -1)
            pyro.sample("x", dist.Normal(rate * loc, 1.0).to_event(1), obs=x)

    def guide(x):
        a = pyro.param("a", torch.full((2,), 1.5), constraint=constraints.positive)
        b = pyro.param("b", torch.full((2,), 1.2), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", make(a * (1 + x[:, :2].square()), b.expand(6, 2)).to_event(1))

    return Case(model, guide)


@program("staged")
def random_gamma():
    return positive_case(dist.Gamma)


@program("staged")
def random_beta():
    return positive_case(dist.Beta)


@program("staged")
def random_log_normal():
    return positive_case(dist.LogNormal)


@program("either")
def random_inverse_gamma():
    return positive_case(lambda a, b: dist.InverseGamma(a + 2, b))


@program("either")
def random_kumaraswamy():
    return positive_case(dist.Kumaraswamy)


@program("staged")
def random_laplace_and_student():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.StudentT(5.0, z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.zeros(3))
            pyro.sample("z", dist.Cauchy(loc + x / 2, 0.5).to_event(1))

    return Case(model, guide)


@program("staged")
def random_dirichlet():
    def model(x):
        weight = pyro.param("weight", lambda: torch.eye(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            bias = pyro.param("bias", torch.zeros(3))
            pyro.sample("z", dist.Dirichlet(nn.functional.softplus(x + bias) + 0.1))

    return Case(model, guide)


@program("staged")
def random_full_covariance():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(3), torch.eye(3)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        tril = pyro.param("tril", torch.eye(3), constraint=constraints.lower_cholesky)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x / 2, scale_tril=tril))

    return Case(model, guide)


@program("either")
def random_sampler_that_rejects():
    """How often it draws hangs on the draws."""

    def guide(x):
        encode(x + dist.VonMises(torch.zeros(6, 3), 2.0).sample() / 10)

    return Case(decode, guide)


@program("either")
def random_counts_of_poisson():
    counts = torch.arange(6.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson((z + pyro.param("w", torch.zeros(()))).exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.zeros(())) * x, 0.3))

    return Case(model, guide, batch=lambda step: (counts,))


@program("staged")
def random_augmentation_by_numpy_between_steps():
    """Random numbers drawn outside of the program are no concern of the step."""
    return Case(
        decode,
        encode,
        batch=lambda step: (data()[np.random.permutation(6)] + random.random() / 10,),
    )


@program("staged", slow=False)
def random_order_of_a_data_loader():
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data(12)), batch_size=6, shuffle=True
    )
    epoch = iter(())

    def batch(step):
        nonlocal epoch
        if step % 2 == 0:
            epoch = iter(loader)
        return tuple(next(epoch))

    return Case(decode, encode, batch=batch)
