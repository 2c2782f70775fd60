"""`mi.SVI` on a pretended device."""

import pyro.optim
import pytest

import pyro_mivae as mi

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


def losses(vae, x, engine):
    """Takes nine steps, the last one Pyro's own."""
    pyro.clear_param_store()
    objective = vae.objective().to(x.device)
    svi = mi.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), objective, engine=engine)
    pyro.set_rng_seed(2)
    return [*(svi.step(x) for _ in range(8)), super(mi.SVI, svi).step(x)]


@pytest.mark.parametrize(
    ("name", "engine"), [("vae", "eager"), ("vae", "staged"), ("infocat", "staged")]
)
def test_steps_of_the_device_are_those_of_the_cpu(pretended, recording, build, x, name, engine):
    x = x.double()
    on_cpu = losses(build(name), x, "eager")
    with recording():
        on_device = losses(build(name).to("cuda"), x.to("cuda"), engine)
    assert on_device == pytest.approx(on_cpu, rel=1e-6)
