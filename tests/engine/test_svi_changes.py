"""`mi.SVI` goes on as Pyro's SVI does where a script changes something between two steps."""

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X.flip(0)


class Coder(nn.Module):
    """An autoencoder as Pyro's tutorials write it: model and guide are methods."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        self.decoder = nn.Linear(2, 4)
        self.register_buffer("factor", torch.ones(()))
        self.double()

    def model(self, x, target=None):
        pyro.module("decoder", self.decoder)
        target = x if target is None else target
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            mean = self.decoder(z) * self.factor
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=target.reshape(len(x), -1))

    def guide(self, x, target=None):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x.reshape(len(x), -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def methods(coder):
    return coder.model, coder.guide


def functions(coder):
    return (lambda *args: coder.model(*args)), (lambda *args: coder.guide(*args))


def nothing(coder):
    pass


def evaluates(coder):
    coder.eval()


def freezes(coder):
    coder.encoder[0].requires_grad_(False)


def replaces_a_buffer(coder):
    coder.factor = coder.factor * 5


@pytest.mark.parametrize(
    ("pair", "change", "before", "after"),
    [
        (methods, evaluates, (X,), (X,)),
        (functions, evaluates, (X,), (X,)),
        (methods, freezes, (X,), (X,)),
        (functions, freezes, (X,), (X,)),
        (methods, replaces_a_buffer, (X,), (X,)),
        (methods, nothing, (X.view(20, 2, 2),), (X.view(20, 2, 2).transpose(1, 2),)),
        (methods, nothing, (X, X), (X, Y)),
    ],
    ids="mode mode-functions frozen frozen-functions buffer strides same-tensor".split(),
)
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store because:UserWarning")
def test_steps_follow_what_a_script_changes(pair, change, before, after):
    found = []
    for make in (pyro.infer.SVI, staged):
        pyro.clear_param_store()
        torch.manual_seed(0)
        coder = Coder()
        svi = make(*pair(coder), pyro.optim.Adam({"lr": 0.01}), mi.MutualInformationELBO())
        losses = [svi.step(*before) for _ in range(3)]
        change(coder)
        losses += [svi.step(*after) for _ in range(3)]
        found.append((losses, [value.detach().clone() for value in coder.state_dict().values()]))
    assert svi.engine == "staged"
    torch.testing.assert_close(*found)


def staged(*args):
    return mi.SVI(*args, engine="staged")


def mean_model(scale, x, both=True):
    first = pyro.param("first", lambda: torch.zeros(4).double())
    mean = first + pyro.param("second", lambda: torch.zeros(4).double()) if both else first
    with pyro.plate("data", len(x)):
        tril = torch.linalg.cholesky(scale) if scale.dim() else scale * torch.eye(4).double()
        pyro.sample("x", dist.MultivariateNormal(mean, scale_tril=tril), obs=x)


def no_guide(*args):
    pass


def run(make, optim, steps):
    pyro.clear_param_store()
    svi = make(mean_model, no_guide, optim, mi.MutualInformationELBO())
    losses = []
    for args, scale in steps:
        if scale is None:
            losses.append(svi.step(*args))
        else:
            with poutine.scale(scale=scale):
                losses.append(svi.step(*args))
        if isinstance(optim, pyro.optim.PyroLRScheduler):
            optim.step()
    return losses, [p.detach().clone() for p in pyro.get_param_store().values()], svi


@pytest.mark.parametrize(
    "steps",
    [
        [((torch.eye(4).double(), X), None)] * 4,
        [((torch.tensor(0.5).double(), X), None)] * 4,
        [((torch.eye(4).double(), X), 1.0 + step) for step in range(4)],
        [((torch.eye(4).double(), X, kind), None) for kind in (1, True, 1, True)],
    ],
    ids=["covariance", "number first", "handler", "True and 1"],
)
def test_steps_of_arguments_that_are_no_batches(steps):
    wanted, found = (
        run(make, pyro.optim.SGD({"lr": 0.001}), steps) for make in (pyro.infer.SVI, staged)
    )
    assert found[2].engine == "staged"
    torch.testing.assert_close(found[:2], wanted[:2])


def test_parameters_whose_schedules_part_ways_keep_their_own_rates():
    """The second parameter comes a step later, so its rate falls a step later."""
    steps = [((torch.eye(4).double(), X, step > 0), None) for step in range(7)]
    wanted, found = (
        run(
            make,
            pyro.optim.StepLR(
                {
                    "optimizer": torch.optim.SGD,
                    "optim_args": {"lr": 0.01},
                    "step_size": 4,
                    "gamma": 0.01,
                }
            ),
            steps,
        )
        for make in (pyro.infer.SVI, staged)
    )
    torch.testing.assert_close(found[:2], wanted[:2], rtol=1e-6, atol=0)


def test_a_number_that_is_another_in_every_step_is_given_up_with_a_remedy():
    svi = mi.SVI(*scaled_pair(), pyro.optim.Adam({"lr": 1e-3}), mi.MutualInformationELBO())
    x = torch.randn(5, 2)
    for step in range(32):
        svi.step(x, 1.0 + step)
    with pytest.warns(PyroMivaeWarning, match="32 kinds already.*pass a number that changes as"):
        svi.step(x, 0.5)
    assert svi.engine == "eager"
    assert not svi._stages


def scaled_pair():
    def model(x, factor):
        weight = pyro.param("weight", torch.ones(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(factor * z * weight, 1.0).to_event(1), obs=x)

    def guide(x, factor):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * pyro.param("slope", torch.ones(2)), 1.0).to_event(1))

    return model, guide
