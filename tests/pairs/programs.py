"""Pairs that are right, in the style of Pyro's tutorials."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide, config_enumerate
from pyro.nn import PyroModule, PyroParam, pyro_method
from torch import nn
from torch.distributions import constraints

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


class TutorialVAE(nn.Module):
    """Pyro's first tutorial: an nn.Module whose methods are the programs."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            probs = torch.sigmoid(self.decoder(z))
            observed = dist.Bernoulli(probs, validate_args=False).to_event(1)
            pyro.sample("obs", observed, obs=torch.sigmoid(x))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, scale.exp()).to_event(1))


def tutorial_vae():
    vae = TutorialVAE()
    return vae.model, vae.guide, (X,), {}


def mixture():
    """A Gaussian mixture whose assignments the guide enumerates."""

    def model(x):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("components", 3):
            locs = pyro.sample("locs", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[c], 1.0), obs=x)

    @config_enumerate
    def guide(x):
        positive = constraints.positive
        pyro.sample("weights", dist.Dirichlet(pyro.param("a", torch.ones(3), positive)))
        with pyro.plate("components", 3):
            scale = pyro.param("s", torch.ones(3), constraint=positive)
            pyro.sample("locs", dist.Normal(pyro.param("m", torch.randn(3)), scale))
        with pyro.plate("data", len(x)):
            logits = pyro.param("logits", torch.zeros(6, 3))
            pyro.sample("c", dist.Categorical(logits=logits))

    return model, guide, (X[:, 0],), {}


class SemiSupervised(PyroModule):
    """A label that is observed or enumerated, and a code given the label."""

    def __init__(self):
        super().__init__()
        self.label, self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(7, 4), nn.Linear(5, 4)

    @pyro_method
    def model(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(len(x), 3) / 3), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            y = y.expand(*torch.broadcast_shapes(y.shape[:-1], z.shape[:-1]), 3)
            code = torch.cat([z.expand(*y.shape[:-1], 2), y], -1)
            pyro.sample("x", dist.Normal(self.decoder(code), 1.0).to_event(1), obs=x)

    @pyro_method
    def guide(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                category = dist.OneHotCategorical(logits=self.label(x))
                y = pyro.sample("y", category, infer={"enumerate": "parallel"})
            shape = torch.broadcast_shapes(y.shape[:-1], x.shape[:-1])
            both = torch.cat([x.expand(*shape, 4), y.expand(*shape, 3)], -1)
            loc, scale = self.encoder(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def semi_supervised():
    pair = SemiSupervised()
    return pair.model, pair.guide, (X,), {}


def regression(x):
    """Global weights and a positive scale."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, scale), obs=x.sum(1))


def auto(make):
    def build():
        return regression, make(regression), (X,), {}

    build.__name__ = f"{make.__name__}"
    return build


def hierarchy():
    """Two nested plates, a group's mean, and a sub-sample of the outer plate."""
    x = X.t()  # (4 in a group, 6 groups)

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 6, subsample_size=3) as chosen:
            group = pyro.sample("group", dist.Normal(mean, 1.0))
            with pyro.plate("members", 4):
                z = pyro.sample("z", dist.Normal(group, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, chosen])

    def guide(x):
        loc, slope = pyro.param("loc", torch.tensor(0.1)), pyro.param("slope", torch.tensor(0.5))
        pyro.sample("mean", dist.Normal(loc, 0.3))
        with pyro.plate("groups", 6, subsample_size=3) as chosen:
            pyro.sample("group", dist.Normal(slope * x[:, chosen].mean(0), 0.4))
            with pyro.plate("members", 4):
                pyro.sample("z", dist.Normal(slope * x[:, chosen], 0.5))

    return model, guide, (x,), {}


class Amortised(PyroModule):
    """A flow of the guide's own, and annealing by a scale in both programs."""

    def __init__(self):
        super().__init__()
        self.weight = PyroParam(torch.eye(2, 4))
        self.flow = dist.transforms.affine_autoregressive(2, hidden_dims=[4])

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=0.3):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight, 1.0).to_event(1), obs=x)

    @pyro_method
    def guide(self, x):
        base = dist.Normal(x @ self.weight.t(), 1.0).to_event(1)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.3):
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))


def flow():
    pair = Amortised()
    return pair.model, pair.guide, (X,), {}


RIGHT = [
    tutorial_vae,
    mixture,
    semi_supervised,
    hierarchy,
    flow,
    *map(
        auto,
        [
            autoguide.AutoNormal,
            autoguide.AutoMultivariateNormal,
            autoguide.AutoDelta,
            autoguide.AutoDiagonalNormal,
        ],
    ),
]
