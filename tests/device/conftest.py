"""Every variant, small, and images for it."""

from contextlib import contextmanager

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine import stages
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.priors import PRIORS
from pyro_mivae.training import trainer

SHAPE = (1, 4, 4)
SMALL = {"latent_dim": 4}
CATEGORIES = {"num_categories": 2, "latent_dim": 4, "warm_start": 3}
CONFIGURATIONS = {name: (name, {}) for name in mi.VARIANTS} | {
    **{bound: ("critic-infomax", {"bound": bound}) for bound in ("mine", "infonce", "tuba")},
    **{bound: ("critic-infomax", {"bound": bound}) for bound in ("smile", "interpolated")},
    **{push: ("vmi", {"generated": push}) for push in ("relaxed", "straight-through")},
    "score-function": ("vmi", {"generated": "score-function"}),
    "scheduled": ("beta", {"beta": mi.linear_warmup(6, 0.1)}),
    "soft": ("cat", {"categorical": "soft"}),
    "gumbel": ("cat", {"categorical": "gumbel"}),
    "sample": ("infocat", {"categorical": "sample"}),
    "uniform": ("vmi", {"prior": lambda: mi.UniformPrior(4, 2)}),
    "vamp": ("vae", {"prior": lambda: mi.VampPrior(SHAPE, 3, 5, learn_weights=True)}),
    "spherical": ("vae", {"prior": lambda: mi.SphericalPrior(3)}),
    "coupling": ("vae", {"prior": lambda: mi.FlowPrior(3, hidden_dims=(4,))}),
    "spline": ("vae", {"prior": lambda: mi.FlowPrior(2, "spline", hidden_dims=(4,))}),
    "sticks": ("cat", {"prior": lambda: mi.StickBreakingPrior(2, 4), "warm_start": 0}),
    "marginal": ("vae", {"prior": PRIORS["marginal-mixture"]}),
    "gaussian": ("vae", {"likelihood": "gaussian"}),
    "continuous-bernoulli": ("vae", {"likelihood": "continuous-bernoulli"}),
}


@pytest.fixture
def x(images_about):
    return images_about(2, 30, *SHAPE)


@pytest.fixture(scope="session")
def build():
    """Builds the variant of a configuration in double precision, the same weights each time."""

    def build(configuration):
        torch.manual_seed(3)
        name, options = CONFIGURATIONS[configuration]
        sizes = CATEGORIES if name in ("cat", "infocat") else SMALL
        if "prior" in options:
            sizes, options = {}, {**options, "prior": options["prior"]()}
        return mi.VARIANTS[name](SHAPE, **sizes, **options).double()

    return build


@pytest.fixture(scope="session")
def recording():
    """Lets the plain recorder take the place of CUDA graphs."""

    @contextmanager
    def recording(on=True):
        def recorder_for(optimiser, device):
            return Recording(optimiser, device) if on else None

        with pytest.MonkeyPatch.context() as patch:
            for module in (trainer, stages):
                patch.setattr(module, "recorder_for", recorder_for)
            yield

    return recording


def pytest_generate_tests(metafunc):
    for name, values in (("configuration", CONFIGURATIONS), ("variant", mi.VARIANTS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values)
