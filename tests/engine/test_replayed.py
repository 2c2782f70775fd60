"""`mi.SVI` with the whole step recorded, by a loop in place of a device, is Pyro's SVI."""

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.optim import lr_scheduler

import pyro_mivae as mi
from pyro_mivae.engine import cuda_graphs, stages
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.errors import CaptureError, PyroMivaeWarning
from pyro_mivae.networks import MLPDecoder, MLPEncoder

SHAPE = (1, 4, 4)


@pytest.fixture
def records(monkeypatch):
    """Lets the CPU record steps, and counts recordings and replays."""
    done = {"recorded": 0, "replayed": 0}

    class Counting(Recording):
        def _record(self, body, count):
            done["recorded"] += 1
            repeat = super()._record(body, count)

            def counted():
                done["replayed"] += 1
                repeat()

            return counted

    monkeypatch.setattr(stages, "recorder_for", Counting)
    return done


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(40, *SHAPE, generator=generator, dtype=torch.float64)
    few = [x[:36], x[4:], x[:36].sqrt(), x[:36], x[4:]]
    return [x, x.flip(0), x.square(), *few, x.sqrt(), few[1], x, x.flip(0), x, x, x.square(), x]


def adam(optim_args):
    return pyro.optim.Adam({"lr": 1e-2})


def train(svi_class, batches, name="vae", make_optim=adam, before=lambda number, svi, vae: None):
    pyro.clear_param_store()
    torch.manual_seed(0)
    small = {"num_categories": 3} if name in ("cat", "infocat") else {}
    if name == "vae":
        encoder, decoder = MLPEncoder(SHAPE, [8]), MLPDecoder(3, SHAPE, [8])
        small = {"encoder": encoder, "decoder": decoder}
    vae = mi.VARIANTS[name](SHAPE, latent_dim=3, **small).double()
    optim = make_optim(vae.optim_args)
    options = {"engine": "staged"} if svi_class is mi.SVI else {}
    objective = vae.objective(12).to(torch.float64)
    svi = svi_class(vae.model, vae.guide, optim, objective, **options)
    torch.manual_seed(1)
    losses = []
    for number, batch in enumerate(batches):
        before(number, svi, vae)
        losses.append(svi.step(batch))
        if isinstance(optim, lr_scheduler.PyroLRScheduler):
            optim.step()
    return losses, vae.state_dict(), svi


@pytest.fixture(scope="module")
def pyros(batches):
    """The plain training by Pyro."""
    return train(pyro.infer.SVI, batches)


def assert_same(ours, pyros):
    assert ours[0] == pytest.approx(pyros[0], rel=1e-6)  # a game amplifies rounding
    for name, value in pyros[1].items():
        torch.testing.assert_close(ours[1][name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize(
    "name",
    [
        "critic-infomax",
        "infogan",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vae", "infocat")),
    ],
)
def test_variants_train_as_by_pyro(name, batches, records):
    assert_same(train(mi.SVI, batches, name), train(pyro.infer.SVI, batches, name))
    assert records["recorded"] == 2  # one for each size of batch
    assert records["replayed"] >= 6


OPTIMISERS = {
    "per parameter": pyro.optim.Adam,
    "clipped": lambda args: pyro.optim.AdamW({"lr": 1e-2}, {"clip_norm": 0.5}),
    "a schedule": lambda args: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5}
    ),
}


@pytest.mark.parametrize("make_optim", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimisers_and_schedules_are_pyros(make_optim, batches, records):
    ours = train(mi.SVI, batches, make_optim=make_optim)
    assert_same(ours, train(pyro.infer.SVI, batches, make_optim=make_optim))
    assert records["recorded"] == 2


def test_the_state_of_the_optimiser_is_pyros(batches, records, pyros):
    found = train(mi.SVI, batches)
    assert_same(found, pyros)
    ours = found[2]
    states = [svi.optim.optim_objs.values() for svi in (ours, pyros[2])]
    steps = [{float(s["step"]) for o in of for s in o.state.values()} for of in states]
    assert steps == [{float(len(batches))}] * 2
    for own in ours.optim.optim_objs.values():
        (group,) = own.param_groups
        assert isinstance(group["lr"], float)
        assert not group["capturable"]


@pytest.mark.parametrize("what", ["parameters", "options", "state", "one rate"])
def test_what_moves_is_recorded_anew(what, batches, records):
    def change(number, svi, vae):
        if number != 12:
            return
        for parameter in vae.parameters():
            own = svi.optim.optim_objs[parameter]
            if what == "parameters":
                parameter.data = parameter.data.clone()
            elif what == "one rate":
                own.param_groups[0]["lr"] *= parameter.dim() == 1
            elif what == "options":
                own.param_groups[0]["betas"] = (0.5, 0.99)
            else:
                own.load_state_dict(own.state_dict())

    ours = train(mi.SVI, batches, before=change)
    assert_same(ours, train(pyro.infer.SVI, batches, before=change))
    assert records["recorded"] == 3


def test_a_gradient_of_the_users_own_is_added(batches, records):
    def add(number, svi, vae):
        if number in (12, 13):
            for parameter in vae.parameters():
                parameter.grad += 0.1

    assert_same(
        train(mi.SVI, batches, before=add),
        train(pyro.infer.SVI, batches, before=add),
    )


def test_options_that_change_in_every_step_are_not_recorded_for_ever(batches, records):
    def change(number, svi, vae):
        for own in svi.optim.optim_objs.values():
            own.param_groups[0]["betas"] = (0.9 - 0.01 * number, 0.99)

    batches = [batches[0], batches[1]] * 12
    with pytest.warns(PyroMivaeWarning, match="cannot be captured: its tensors or the optimiser"):
        ours = train(mi.SVI, batches, before=change)
    assert_same(ours, train(pyro.infer.SVI, batches, before=change))
    assert records["recorded"] == stages.MOST_CAPTURES - 1


def test_parameters_of_another_kind_of_step_get_no_gradient(records):
    """Old moments move a head of ``pyro.module`` that the step does not read."""

    def run(svi_class, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        heads = torch.nn.ModuleList([torch.nn.Linear(3, 1).double() for _ in range(2)])

        def model(x, which):
            pyro.module("heads", heads)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(heads[which](z), 1.0).to_event(1), obs=x)

        def guide(x, which):
            loc = pyro.param("loc", torch.zeros(3).double())
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        svi = svi_class(
            model, guide, pyro.optim.Adam({"lr": 1e-2}), mi.MutualInformationELBO(), **options
        )
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(2)).double()
        torch.manual_seed(1)
        losses = [svi.step(x, which=number // 9 % 2) for number in range(36)]
        return losses, heads.state_dict(), svi

    assert_same(run(mi.SVI, engine="staged"), run(pyro.infer.SVI))
    assert records["replayed"] > 9


def test_a_recorder_that_does_nothing_is_found_out(batches, monkeypatch, pyros):
    class Nothing(Recording):
        def _record(self, body, count):
            return lambda: None

    monkeypatch.setattr(stages, "recorder_for", Nothing)
    with pytest.warns(PyroMivaeWarning, match="cannot be captured: its replay differs"):
        ours = train(mi.SVI, batches)
    assert_same(ours, pyros)


def test_the_ledger_of_a_step_stays_what_it_was(batches, records):
    seen = []

    def note(number, svi, vae):
        if svi.ledger:
            seen.append((svi.ledger["loss"], float(svi.ledger["loss"])))

    train(mi.SVI, batches, before=note)
    assert len({value for _, value in seen}) > 3
    assert [float(tensor) for tensor, _ in seen] == [value for _, value in seen]


def test_several_steps_are_compared_roughly_and_one_closely():
    before = torch.zeros(3)
    change, other = torch.ones(3), torch.tensor([1.0, 1.0, 1.01])
    undefined = torch.tensor([1.0, float("nan"), 1.0])
    assert cuda_graphs._agree([(before, change, other)], cuda_graphs.ROUGHLY_EQUAL)
    assert not cuda_graphs._agree([(before, change, other)], cuda_graphs.EQUAL)
    assert cuda_graphs._agree([(before, undefined, undefined)], cuda_graphs.EQUAL)
    assert not cuda_graphs._agree([(before, undefined, change)], 1.0)
    assert not cuda_graphs._agree([(before, change, before)], cuda_graphs.ROUGHLY_EQUAL)


def test_counts_of_steps_do_not_hide_other_moments():
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight], lr=1e-3, fused=True)

    def step(size):
        weight.grad = torch.full((3,), size)
        optimiser.step()

    class Larger(Recording):
        def _record(self, body, count):
            return lambda: step(0.0015)

    step(0.001)  # then the moments are there
    with pytest.raises(CaptureError, match="the update of the parameters differs"):
        Larger(optimiser, torch.device("cpu")).record(lambda: step(0.001), [1], [weight])


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize("name", mi.VARIANTS)
@pytest.mark.parametrize("optimiser", [pyro.optim.Adam, pyro.optim.Adamax])
def test_a_device_captures_the_step(name, optimiser, batches):
    def run(svi_class, **options):
        pyro.clear_param_store()
        torch.manual_seed(0)
        small = {"num_categories": 3} if name in ("cat", "infocat") else {}
        vae = mi.VARIANTS[name](SHAPE, latent_dim=3, **small).double().to("cuda")
        objective = vae.objective(12).to(torch.float64).to("cuda")
        svi = svi_class(vae.model, vae.guide, optimiser({"lr": 1e-3}), objective, **options)
        torch.manual_seed(1)
        losses = [svi.step(batch.to("cuda")) for batch in batches]
        return losses, vae.state_dict(), svi

    ours = run(mi.SVI, engine="staged")  # a warning would be an error
    assert_same(ours, run(pyro.infer.SVI))
    stages = ours[2]._stages.values()
    assert any(stage.replay is not None for stage in stages)
