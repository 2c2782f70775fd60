"""A model, and guides of it made from distributions."""

import pyro
import pyro.distributions as dist
import torch

FEW = {"iwae_samples": 1, "iwae_items": 1, "generative_items": 0, "subset": 300}


def plain_model(x):
    """z in two dimensions, x in four."""
    weight = torch.linspace(-1, 1, 8).reshape(2, 4)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)


def guide_of(fn):
    """A guide whose site z follows a distribution made from the data."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn(x))

    return guide


def normal(x, scale=0.5):
    return dist.Normal(0.5 * x[:, :2], scale).to_event(1)
