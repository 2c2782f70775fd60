"""Guides with normalising flows of Pyro's, which cache what they computed."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import torch
from torch import nn

from .harness import Case, data, program


def flow_case(*flows, dim=2, condition=None):
    """A guide whose code goes through flows; a model that decodes it linearly."""
    encoder = nn.Linear(3, dim)
    parts = [flow for flow in flows if isinstance(flow, nn.Module)]

    def model(x):
        weight = pyro.param("weight", lambda: torch.linspace(-1, 1, 3 * dim).reshape(dim, 3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        for number, part in enumerate(parts):
            pyro.module(f"flow_{number}", part)
        used = [flow.condition(x) for flow in flows] if condition else list(flows)
        base = dist.Normal(encoder(x), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, used))

    return Case(model, guide, modules=[encoder, *parts])


def add(name, make_flow, **options):
    def build():
        return flow_case(make_flow())

    build.__name__ = f"flow_{name}"
    program("either", **options)(build)


for name, make, quick in [
    ("planar", lambda: transforms.planar(2), False),
    ("radial", lambda: transforms.radial(2), False),
    ("sylvester", lambda: transforms.sylvester(2, count_transforms=2), False),
    ("householder", lambda: transforms.householder(2), False),
    ("affine_autoregressive", lambda: transforms.affine_autoregressive(2, [4]), True),
    (
        "stable_autoregressive",
        lambda: transforms.affine_autoregressive(2, [4], stable=True),
        False,
    ),
    ("affine_coupling", lambda: transforms.affine_coupling(2, hidden_dims=[4]), False),
    ("neural_autoregressive", lambda: transforms.neural_autoregressive(2, [4], width=3), False),
    (
        "block_autoregressive",
        lambda: transforms.block_autoregressive(2, hidden_factors=[2]),
        False,
    ),
    ("polynomial", lambda: transforms.polynomial(2, hidden_dims=[4]), False),
    ("spline", lambda: transforms.spline(2, count_bins=4), False),
    ("spline_coupling", lambda: transforms.spline_coupling(2, hidden_dims=[4]), False),
    ("spline_autoregressive", lambda: transforms.spline_autoregressive(2, [4]), False),
    ("matrix_exponential", lambda: transforms.matrix_exponential(2, iterations=4), False),
    ("batchnorm", lambda: transforms.batchnorm(2), False),
    ("permute", lambda: transforms.permute(2, torch.tensor([1, 0])), False),
    ("softplus", transforms.SoftplusTransform, False),
    ("leaky_relu", transforms.leaky_relu, False),
    ("tanh", lambda: transforms.TanhTransform(cache_size=1), False),
]:
    add(name, make, slow=not quick)


@program("either")
def flow_stack_with_cache():
    flows = [transforms.AffineTransform(torch.zeros(2), torch.ones(2), cache_size=1)]
    flows += [transforms.planar(2), transforms.permute(2, torch.tensor([1, 0]))]
    return flow_case(*flows, transforms.affine_autoregressive(2, [4]))


@program("either")
def flow_conditional_planar():
    return flow_case(transforms.conditional_planar(2, 3, [4]), condition=True)


@program("either")
def flow_conditional_autoregressive():
    flow = transforms.conditional_affine_autoregressive(2, 3, hidden_dims=[4])
    return flow_case(flow, condition=True)


def linear_model(x):
    """Decodes a code of two dimensions."""
    weight = pyro.param("weight", lambda: torch.linspace(-1, 1, 6).reshape(2, 3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)


@program("either", slow=False)
def flow_of_a_closure():
    encoder, flow = nn.Linear(3, 2), transforms.affine_autoregressive(2, hidden_dims=[4])

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            base = dist.Normal(encoder(x), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    return Case(linear_model, guide, modules=[encoder, flow])


@program("either", slow=False)
def flow_of_a_module():
    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(3, 2)
            self.flow = transforms.planar(2)

        def guide(self, x):
            pyro.module("guide", self)
            with pyro.plate("data", len(x)):
                base = dist.Normal(self.encoder(x), 1.0).to_event(1)
                pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))

    module = Guide()
    return Case(linear_model, module.guide, modules=[module])


@program("either")
def flow_as_learnt_prior():
    flow = transforms.affine_coupling(2, hidden_dims=[4])

    def model(x):
        pyro.module("flow", flow)
        weight = pyro.param("weight", lambda: torch.ones(2, 3))
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            z = pyro.sample("z", dist.TransformedDistribution(base, [flow]))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = x[:, :2] * pyro.param("slope", torch.ones(2))
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    return Case(model, guide, modules=[flow])


@program("either")
def flow_cache_cleared_between_steps():
    flow = transforms.affine_autoregressive(2, [4])
    case = flow_case(flow)
    case.before = lambda step: pyro.distributions.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0).to_event(1), [flow]
    ).clear_cache()
    return case


@program("either")
def flow_with_scale_read_from_an_attribute():
    class Stretch(transforms.AffineTransform):
        pass

    stretch = Stretch(torch.zeros(2), torch.ones(2))
    case = flow_case(stretch)

    def change(step):
        stretch.scale = torch.full((2,), 1.0 + step / 40)

    case.before = change
    case.batch = lambda step: (data(seed=step % 2),)
    return case
