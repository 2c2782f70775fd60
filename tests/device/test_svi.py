"""`mi.SVI` on a pretended device."""

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


def losses(vae, x, engine):
    """Takes nine steps, the last one Pyro's own."""
    pyro.clear_param_store()
    objective = vae.objective(9)
    svi = mi.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), objective, engine=engine)
    pyro.set_rng_seed(2)
    return [*(svi.step(x) for _ in range(8)), super(mi.SVI, svi).step(x)]


@pytest.mark.parametrize(
    ("name", "engine"), [("vae", "eager"), ("scheduled", "staged"), ("infocat", "staged")]
)
def test_steps_of_the_device_are_those_of_the_cpu(pretended, recording, build, x, name, engine):
    x = x.double()
    on_cpu = losses(build(name), x, "eager")
    with recording():
        on_device = losses(build(name).to("cuda"), x.to("cuda"), engine)
    assert on_device == pytest.approx(on_cpu, rel=1e-6)


def test_a_number_on_the_cpu_is_not_captured(pretended, recording):
    """A graph would hold the value of the first step."""

    def model(x, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, device=x.device), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * scale, 1.0).to_event(1), obs=x)

    def guide(x, scale):
        loc = pyro.param("loc", torch.zeros(2, device=x.device))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = torch.ones(5, 2, device="cuda")
    loss = mi.MutualInformationELBO()
    svi = mi.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss, engine="staged")
    with recording():
        for number in range(3):
            svi.step(x, torch.tensor(0.1 * number))
        with pytest.warns(PyroMivaeWarning, match=r"shape \(\) .* is on cpu; move"):
            seen = [svi.step(x, torch.tensor(0.1 * number)) for number in (3, 4, 5)]
    assert seen[0] != seen[-1]
