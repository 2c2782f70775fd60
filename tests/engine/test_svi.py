"""`mi.SVI` takes the steps that Pyro's SVI takes."""

from functools import partial

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import constraints

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, PyroMivaeWarning

SHAPE = (1, 4, 4)


def train(svi_class, make_pair, make_optim, batches, **options):
    """Trains a fresh pair from one seed; gives the losses, the parameters, and the SVI."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, loss, optim_args = make_pair()
    optim = make_optim(optim_args)
    svi = svi_class(model, guide, optim, loss, **options)
    torch.manual_seed(1)
    losses = []
    for batch in batches:
        losses.append(svi.step(batch))
        if isinstance(optim, pyro.optim.lr_scheduler.PyroLRScheduler):
            optim.step()
    store = pyro.get_param_store()
    return (
        torch.tensor(losses, dtype=torch.float64),
        [v.detach().clone() for v in store.values()],
        svi,
    )


def pair_of(name, **options):
    def make():
        small = {"num_categories": 3} if name in ("cat", "infocat") else {}
        vae = mi.VARIANTS[name](SHAPE, **small, **options).double()
        return vae.model, vae.guide, vae.objective(12).to(torch.float64), vae.optim_args

    return make


def functions():
    """A pair of plain functions, whose parameters live in the param store alone."""

    def model(x):
        weight = pyro.param("weight", lambda: torch.ones(2, 16, dtype=torch.float64))
        noise = pyro.param("noise", torch.ones((), dtype=torch.float64), constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, noise).to_event(1), obs=x.flatten(1))

    def guide(x):
        weight = pyro.param("coded", lambda: torch.full((16, 2), 0.1, dtype=torch.float64))
        scale = pyro.param("scale", torch.ones(2, dtype=torch.float64), constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.flatten(1) @ weight, scale).to_event(1))

    return model, guide, mi.MutualInformationELBO(), {"lr": 1e-2}


def assert_same(a, b, engine):
    (losses, params, _), (ours, found, ours_svi) = a, b
    torch.testing.assert_close(ours, losses, rtol=1e-7, atol=0)
    for value, wanted in zip(found, params, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-7)
    assert ours_svi.engine == engine


@pytest.fixture
def batches():
    """Three whole batches and a smaller one, twice and a half."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(70, *SHAPE, generator=generator, dtype=torch.float64)
    return [x, x.flip(0), x.square(), x[:66], x, x[4:], x.sqrt(), x[:66], x, x.flip(0)]


FAST = ("beta", "infocat", "critic-infomax", "infogan")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in mi.VARIANTS],
)
def test_variants_have_the_losses_of_pyros_svi(name, batches):
    losses, _, _ = train(pyro.infer.SVI, pair_of(name), pyro.optim.Adam, batches)
    ours, _, svi = train(mi.SVI, pair_of(name), pyro.optim.Adam, batches, engine="staged")
    torch.testing.assert_close(ours, losses, rtol=1e-6, atol=0)
    assert svi.engine == "staged"
    torch.testing.assert_close(svi.ledger["loss"], ours[-1])
    assert svi.ledger.keys() == svi.objective.ledger.keys()


@pytest.mark.parametrize(
    "make_optim",
    [
        lambda args: pyro.optim.Adam(args),
        lambda args: pyro.optim.Adam({"lr": 1e-2}, {"clip_norm": 0.5}),
        lambda args: pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.7}),
        lambda args: pyro.optim.SGD({"lr": 1e-5, "momentum": 0.9}),
        lambda args: pyro.optim.AdagradRMSProp({}),
        lambda args: pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.7}
        ),
    ],
    ids=["adam", "clipped", "decaying", "momentum", "without lr", "scheduler"],
)
def test_every_optimiser_takes_pyros_steps(make_optim, batches):
    stock = train(pyro.infer.SVI, functions, make_optim, batches)
    ours = train(mi.SVI, functions, make_optim, batches, engine="staged")
    assert_same(stock, ours, "staged")


def test_networks_take_pyros_steps_by_a_clipped_optimiser(batches):
    """Without batch norm: a bias before it has a gradient of rounding errors alone."""
    make_optim = partial(pyro.optim.Adam, clip_args={"clip_norm": 0.5})
    stock = train(pyro.infer.SVI, pair_of("vmi"), make_optim, batches)
    ours = train(mi.SVI, pair_of("vmi"), make_optim, batches, engine="staged")
    assert_same(stock, ours, "staged")


def test_the_optimisers_state_is_pyros(batches, tmp_path):
    stock = train(pyro.infer.SVI, functions, pyro.optim.Adam, batches)
    wanted = stock[2].optim.get_state()
    ours = train(mi.SVI, functions, pyro.optim.Adam, batches, engine="staged")
    found = ours[2].optim.get_state()
    assert found.keys() == wanted.keys() == {"weight", "noise", "coded", "scale"}
    for name, state in wanted.items():
        for key, value in state["state"][0].items():
            torch.testing.assert_close(found[name]["state"][0][key], value, check_dtype=False)
    ours[2].optim.save(str(tmp_path / "optim"))

    def loaded(args):
        optim = pyro.optim.Adam(args)
        optim.load(str(tmp_path / "optim"))
        return optim

    stock = train(pyro.infer.SVI, functions, loaded, batches[:5])
    ours = train(mi.SVI, functions, loaded, batches[:5], engine="staged")
    assert_same(stock, ours, "staged")


def test_a_cleared_param_store_begins_anew(batches):
    again = []
    for svi_class in (pyro.infer.SVI, mi.SVI):
        _, _, svi = train(svi_class, functions, pyro.optim.Adam, batches)
        pyro.clear_param_store()
        torch.manual_seed(1)
        again.append([svi.step(batch) for batch in batches])
    assert again[1] == pytest.approx(again[0], rel=1e-9)


def test_arguments_that_are_no_tensors_have_a_graph_each(batches):
    def make():
        model, guide, loss, args = functions()

        def scaled(program):
            return lambda x, factor=1.0: pyro.poutine.scale(program, factor)(x)

        return scaled(model), scaled(guide), loss, args

    x = batches[0]
    results = []
    for svi_class in (pyro.infer.SVI, mi.SVI):
        pyro.clear_param_store()
        model, guide, loss, args = make()
        svi = svi_class(model, guide, pyro.optim.Adam(args), loss)
        torch.manual_seed(0)
        results.append([svi.step(x, factor=factor) for factor in (1.0, 3.0, 1.0, 3.0, 3.0)])
    assert results[1] == pytest.approx(results[0], rel=1e-9)
    with pytest.warns(PyroMivaeWarning, match="unhashable"):
        svi.step(x, factor=bytearray(b"1") and torch.ones(()) and _Unhashable(2.0))
    assert svi.engine == "eager"


class _Unhashable(float):
    __hash__ = None


def test_losses_that_cannot_be_staged_are_pyros(batches):
    make = lambda: (*functions()[:2], Trace_ELBO(), {"lr": 1e-2})  # noqa: E731
    losses, _, _ = train(pyro.infer.SVI, make, pyro.optim.Adam, batches)
    with pytest.warns(
        PyroMivaeWarning, match=r"cannot be staged.*MutualInformationELBO.*as Pyro runs it"
    ) as caught:
        ours, _, svi = train(mi.SVI, make, pyro.optim.Adam, batches)
    torch.testing.assert_close(ours, losses)
    assert svi.engine == "eager"
    assert len(caught) == 1


def test_a_loss_that_is_no_elbo_and_unknown_engines(batches):
    def loss(model, guide, x):
        return mi.MutualInformationELBO().differentiable_loss(model, guide, x)

    make = lambda: (*functions()[:2], loss, {"lr": 1e-2})  # noqa: E731
    with pytest.warns(PyroMivaeWarning, match="is not from this library"):
        _, _, svi = train(mi.SVI, make, pyro.optim.Adam, batches[:2])
    assert svi.engine == "eager"
    with pytest.raises(OptionError, match="engine='fast'; allowed are auto, eager"):
        train(mi.SVI, functions, pyro.optim.Adam, [], engine="fast")


@pytest.mark.slow
@pytest.mark.compiler
def test_it_compiles_once_that_pays(batches, monkeypatch):
    monkeypatch.setattr("pyro_mivae.engine.steps.COMPILING", 1.2e9)  # four steps' overhead
    stock = train(pyro.infer.SVI, functions, pyro.optim.Adam, batches)
    ours = train(mi.SVI, functions, pyro.optim.Adam, batches)
    assert_same(stock, ours, "auto")
    stages = ours[2]._stages.values()
    assert any(stage.traced and stage.run is not stage.traced.graph for stage in stages)
