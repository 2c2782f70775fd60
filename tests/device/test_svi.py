"""`mi.SVI` on a pretended device."""

import pyro.optim
import pytest

import pyro_mivae as mi

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


ENGINES = ("eager",)


def losses(vae, x, engine, steps=8):
    """Takes steps, and then one of Pyro's own."""
    svi = mi.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective(), engine=engine
    )
    pyro.set_rng_seed(2)
    told = [svi.step(x) for _ in range(steps)]
    return [*told, super(mi.SVI, svi).step(x)]


@pytest.mark.parametrize("name", ["vae", "infocat", "critic-infomax"])
def test_steps_of_the_device_are_those_of_the_cpu(pretended, build, x, name):
    on_device = []
    for engine in ENGINES:
        pyro.clear_param_store()
        vae = build(name).to("cuda")
        vae_objective = vae.objective
        vae.objective = lambda: vae_objective().to("cuda")
        on_device.append(losses(vae, x.double().to("cuda"), engine))
    pyro.clear_param_store()
    on_cpu = losses(build(name), x.double(), "eager")
    for told in on_device:
        assert told == pytest.approx(on_cpu, rel=1e-6)
