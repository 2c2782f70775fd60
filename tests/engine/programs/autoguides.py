"""Guides that Pyro makes of a model, Pyro's modules, and its random parameters."""

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.easyguide import easy_guide
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

import pyro_mivae as mi

from .harness import Case, data, program


def regression(x):
    """A Bayesian regression: weights and a scale, and a code for each datum."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * weight, 1.0).to_event(1), obs=x)


def with_scale(x):
    """Holds a positive site, which guides transform."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


def add(name, make, slow=True, expected="either", model=with_scale):
    def build():
        return Case(model, make(model), batch=lambda step: (data(4),))

    build.__name__ = f"autoguide_{name}"
    program(expected, slow=slow)(build)


for name, make, quick in [
    ("normal", autoguide.AutoNormal, True),
    ("delta", autoguide.AutoDelta, False),
    ("diagonal", autoguide.AutoDiagonalNormal, True),
    ("full_covariance", autoguide.AutoMultivariateNormal, False),
    ("low_rank", lambda model: autoguide.AutoLowRankMultivariateNormal(model, rank=2), False),
    ("autoregressive", lambda m: autoguide.AutoIAFNormal(m, hidden_dim=[4]), False),
    ("laplace", autoguide.AutoLaplaceApproximation, False),
    ("structured", autoguide.AutoStructured, False),
    (
        "structured_full",
        lambda m: autoguide.AutoStructured(
            m,
            conditionals={"scale": "normal", "loc": "mvn"},
            dependencies={"loc": {"scale": "linear"}},
        ),
        False,
    ),
    ("gaussian", autoguide.AutoGaussian, False),
    (
        "flow",
        lambda model: autoguide.AutoNormalizingFlow(
            model, lambda dim: dist.transforms.affine_coupling(dim, hidden_dims=[4])
        ),
        False,
    ),
    (
        "started_at_the_median",
        lambda m: autoguide.AutoNormal(m, init_loc_fn=autoguide.init_to_median, init_scale=0.3),
        False,
    ),
]:
    plain = name in ("normal", "diagonal")
    add(name, make, slow=not quick, expected="staged" if plain else "either")
add("normal_with_codes", autoguide.AutoNormal, model=regression)
add("structured_with_codes", autoguide.AutoStructured, model=regression)


@program("either")
def autoguide_list():
    guide = autoguide.AutoGuideList(with_scale)
    guide.append(autoguide.AutoDelta(pyro.poutine.block(with_scale, expose=["scale"])))
    guide.append(autoguide.AutoNormal(pyro.poutine.block(with_scale, expose=["loc"])))
    return Case(with_scale, guide)


@program("either")
def autoguide_of_a_subsampled_plate():
    def plates(x):
        return pyro.plate("data", len(x), subsample_size=3)

    def model(x):
        weight = pyro.param("weight", torch.ones(3))
        with plates(x) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * weight, 1.0).to_event(1), obs=x[rows])

    return Case(model, autoguide.AutoNormal(model, create_plates=plates))


@program("either")
def autoguide_easy():
    @easy_guide(with_scale)
    def guide(self, x):
        group = self.group(match=".*")
        loc = pyro.param("auto_loc", lambda: torch.zeros(group.event_shape))
        width = pyro.param(
            "auto_width",
            lambda: torch.full(group.event_shape, 0.3),
            constraint=constraints.positive,
        )
        group.sample("group", dist.Normal(loc, width).to_event(1))

    return Case(with_scale, guide)


@program("either")
def autoguide_of_a_bayesian_network():
    class Network(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = PyroModule[nn.Linear](2, 1)
            self.net.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
            self.net.bias = PyroParam(torch.zeros(1))

        def forward(self, x):
            mean = self.net(x[:, :2])[..., 0]
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x[:, 2])

    model = Network()
    return Case(model, autoguide.AutoNormal(model), modules=[model])


@program("either")
def autoguide_with_a_discrete_site_summed_out():
    @pyro.infer.config_enumerate
    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("x", dist.Normal(loc[c], 1.0), obs=x[:, 0])

    guide = autoguide.AutoDelta(pyro.poutine.block(model, hide=["c"]))
    loss = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    return Case(model, guide, loss=loss)


class Modules(PyroModule):
    """A pair of Pyro modules, with a parameter that is constrained by another."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.base = PyroParam(torch.tensor(0.5), constraints.positive)

    @PyroParam(constraint=constraints.positive)
    def width(self):
        return torch.tensor(1.0)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), self.width * self.base).to_event(1))


class Decoder(PyroModule):
    """Decodes the code of `Modules`."""

    def __init__(self):
        super().__init__()
        self.net = PyroModule[nn.Linear](2, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


@program("staged", slow=False)
def modules_of_pyro():
    model, guide = Decoder(), Modules()
    return Case(model, guide, modules=[model, guide])


@program("either")
def modules_of_pyro_in_training_and_evaluation():
    model, guide = Decoder(), Modules()
    guide.net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    return Case(model, guide, before=lambda step: guide.train(step < 11), modules=[model, guide])


@program("error")
def modules_of_pyro_with_a_random_weight():
    class Random(Decoder):
        def __init__(self):
            super().__init__()
            self.net.bias = PyroSample(lambda self: dist.Normal(torch.zeros(3), 1.0).to_event(1))

    class Guide(Modules):
        def forward(self, x):
            super().forward(x)
            pyro.sample("net.bias", dist.Normal(self.at, 0.1).to_event(1))

    model, guide = Random(), Guide()
    guide.at = PyroParam(torch.zeros(3))
    return Case(model, guide, modules=[model, guide])


@program("either")
def modules_copied_for_each_svi(make):
    model, guide = Decoder(), Modules()
    other = make(Decoder(), Modules(), pyro.optim.Adam({"lr": 0.1}), mi.MutualInformationELBO())
    return Case(
        model,
        guide,
        step=lambda svi, step: (other if step % 2 else svi).step(data()),
        modules=[model, guide],
    )
