"""CUDA graphs: what is asked of torch, shown without a device; and what only a device can show."""

import contextlib
import gc

import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine import CudaGraphs, captured
from pyro_mivae.errors import CaptureError, PyroMivaeWarning
from pyro_mivae.training import fit, recorded
from pyro_mivae.training.loop import Settings, Trainer
from pyro_mivae.training.meter import Meter

CPU = torch.device("cpu")
SIZES = {"epochs": 2, "batch_size": 14}


class FakeCuda:
    """Writes down what is asked of it; what is captured runs, and replays only count."""

    def __init__(self, monkeypatch):
        self.log = []
        self.sync_debug_mode = 0
        fakes = {
            "graph_pool_handle": lambda: "pool",
            "current_stream": lambda device: self.stream("main"),
            "Stream": lambda device: self.stream("aside"),
            "stream": lambda stream: self.told(f"on {stream.name}"),
            "set_stream": lambda stream: self.log.append(f"back on {stream.name}"),
            "device": lambda device: contextlib.nullcontext(),
            "CUDAGraph": lambda: self,
            "graph": self.capture,
            "get_rng_state": lambda device: torch.get_rng_state(),
            "get_sync_debug_mode": lambda: self.sync_debug_mode,
            "set_sync_debug_mode": self.set_sync_debug_mode,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def stream(self, name):
        cuda = self

        class Stream:
            def wait_stream(self, other):
                cuda.log.append(f"{name} waits for {other.name}")

        stream = Stream()
        stream.name = name
        return stream

    @contextlib.contextmanager
    def told(self, what):
        self.log.append(what)
        yield

    @contextlib.contextmanager
    def capture(self, graph, *, pool, capture_error_mode):
        assert graph is self
        assert not gc.isenabled()
        self.log.append(f"captures to {pool}, {capture_error_mode}")
        yield

    def replay(self):
        self.log.append("replays")

    def set_sync_debug_mode(self, mode):
        self.sync_debug_mode = mode


@pytest.fixture
def cuda(monkeypatch):
    return FakeCuda(monkeypatch)


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.ones(2))


def body_of(weight, optimiser, log):
    def body():
        log.append("step")
        weight.grad = torch.rand(2)
        optimiser.step()

    return body


def test_a_step_is_warmed_up_aside_and_captured(cuda, weight):
    optimiser = torch.optim.Adam([weight], fused=True)
    steps = body_of(weight, optimiser, cuda.log)
    modes = []

    def body():
        modes.append(cuda.sync_debug_mode)
        steps()

    state = torch.get_rng_state()
    many, one = CudaGraphs(optimiser, CPU, 2).record(body, [2, 1], [weight])
    assert cuda.log == [
        "aside waits for main",
        "on aside",
        *["step"] * (captured.WARM_UPS + 1),
        "main waits for aside",
        "captures to pool, thread_local",
        *["step"] * 2,
        "captures to pool, thread_local",
        "step",
    ]
    assert modes[captured.WARM_UPS] == "error"
    assert set(modes) == {0, "error"}
    assert cuda.sync_debug_mode == 0
    assert gc.isenabled()
    assert weight.tolist() == [1, 1]
    assert weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    many(), one()
    assert cuda.log[-2:] == ["replays"] * 2


@pytest.mark.parametrize("fails_at", [captured.WARM_UPS, captured.WARM_UPS + 1])
def test_a_capture_that_fails_leaves_no_trace(cuda, weight, fails_at, monkeypatch):
    renewed = []
    monkeypatch.setattr(captured, "_renew_generator", lambda *args: renewed.append(args))
    monkeypatch.setattr(captured, "_end_pool", lambda *args: cuda.log.append("ends the pool"))
    optimiser = torch.optim.Adam([weight], fused=True)
    steps = body_of(weight, optimiser, cuda.log)

    def body():
        if cuda.log.count("step") == fails_at:
            raise RuntimeError("it waits\nfor the device")
        steps()

    with pytest.raises(CaptureError, match="^RuntimeError: it waits$"):
        CudaGraphs(optimiser, CPU).record(body, [1], [weight])
    begun = fails_at > captured.WARM_UPS
    assert len(renewed) == begun
    assert cuda.log[-2:] == ["back on main", "ends the pool"] or not begun
    assert weight.tolist() == [1, 1]
    assert gc.isenabled()
    assert cuda.sync_debug_mode == 0


DEVICE = torch.device("cuda", 0)


@pytest.fixture
def build(make, images):
    """Makes a trainer on the device, prepared."""

    def build(vae=None, x=None, **settings):
        settings = {"lr_schedule": "cosine", "clip_norm": 50.0, "engine": "staged", **settings}
        taken = {**SIZES, "lr": 1e-3, "seed": 4, "patience": None, **settings}
        vae = (make("vae") if vae is None else vae).to(DEVICE)
        x = images.to(DEVICE, vae.dtype) if x is None else x
        trainer = Trainer(vae, x, None, Settings(**taken), DEVICE)
        trainer.prepare()
        return trainer

    return build


def weights(vae):
    return {name: value.cpu() for name, value in vae.state_dict().items()}


def assert_close(a, b, rtol=1e-5, atol=1e-5):
    for name, value in weights(a).items():
        torch.testing.assert_close(
            value, weights(b)[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["staged", "compiled"])
def test_no_python_runs_in_an_epoch_and_nothing_waits(build, engine):
    with pyro.get_param_store().scope():
        trainer = build(engine=engine)
        assert trainer.recorded is not None
        before, steps = weights(trainer.vae), []
        trainer.optimiser.step = lambda: steps.append(1)
        meter, order = Meter(), torch.randperm(len(trainer.x))
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                trainer.recorded.run(order, meter, lambda: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert meter.means()["loss"] > 0
        assert steps == []
        assert trainer.step == 3 * len(trainer.batch_sizes)
        assert any(not torch.equal(value, before[k]) for k, value in weights(trainer.vae).items())


@pytest.mark.gpu
def test_epochs_take_no_more_memory(build):
    with pyro.get_param_store().scope():
        trainer = build()
        trainer.run_epoch()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            trainer.run_epoch()
        assert torch.cuda.memory_allocated() == before


VARIANTS = {name: (name, {}) for name in mi.VARIANTS} | {
    "mine": ("critic-infomax", {"bound": "mine"}),
    "scheduled": ("beta", {"beta": mi.linear_warmup(6, 0.1)}),
    "gumbel": ("cat", {"categorical": "gumbel"}),
    "sample": ("infocat", {"categorical": "sample"}),
    "relaxed": ("vmi", {"push": "relaxed"}),
}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize(("name", "options"), VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains_captured_as_it_does_uncaptured(
    name, options, make, images, monkeypatch
):
    settings = {**SIZES, "lr_schedule": "cosine", "clip_norm": 50.0, "engine": "staged"}
    replayed, plain = make(name, **options).double(), make(name, **options).double()
    history = fit(replayed, images, **settings, device="cuda")  # a warning would be an error
    monkeypatch.setattr(recorded, "recorder_for", lambda optimiser, device: None)
    expected = fit(plain, images, **settings, device="cuda")
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert_close(replayed, plain)


@pytest.mark.gpu
def test_several_steps_per_replay_and_the_compiled_step_train_the_same(make, images, monkeypatch):
    settings = {**SIZES, "device": "cuda"}
    one, three, compiled = (make("vae").double() for _ in range(3))
    fit(one, images, **settings, engine="staged")
    fit(compiled, images, **settings, engine="compiled")
    monkeypatch.setattr(recorded, "recorder_for", lambda o, d: CudaGraphs(o, d, 3))
    fit(three, images, **settings, engine="staged")
    assert_close(one, three)
    assert_close(one, compiled)


@pytest.mark.gpu
def test_data_on_the_cpu_are_copied(make, images, build):
    with pyro.get_param_store().scope():
        trainers = []
        for x in (images.to(DEVICE).double(), images.double()):
            torch.manual_seed(4)
            trainers.append(build(make("vae").double(), x))
            assert trainers[-1].recorded is not None
            torch.manual_seed(4)
            trainers[-1].run_epoch()
        assert_close(trainers[0].vae, trainers[1].vae)


@pytest.mark.gpu
@pytest.mark.parametrize("moves", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_runs_go_on_and_move(make, images, tmp_path, moves):
    settings = {"epochs": 4, "batch_size": 14, "engine": "staged", "lr_schedule": "cosine"}
    whole, parts = make("vae").double(), make("vae").double()
    expected = fit(whole, images, **settings, device="cuda")

    def interrupt(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(parts, images, **settings, device=moves[0], run=tmp_path, on_epoch=interrupt)
    history = fit(parts, images, **settings, device=moves[1], run=tmp_path, resume=True)
    if moves == ("cuda", "cuda"):
        assert_close(whole, parts)
    assert history["loss"] == pytest.approx(expected["loss"], rel=0.05)  # by another noise


@pytest.mark.gpu
@pytest.mark.parametrize("watched", [True, False])
def test_what_cannot_be_captured_is_said_and_random_numbers_go_on(
    make, images, monkeypatch, watched
):
    """A step that waits for the device, told before the capture or only by it."""
    if not watched:
        monkeypatch.setattr(captured, "_no_waiting", contextlib.nullcontext)
    step = torch.optim.Adam.step

    def waits(self, *args, **kwargs):
        float(self.param_groups[0]["params"][0].sum())
        return step(self, *args, **kwargs)

    plain, told = make("vae").double(), make("vae").double()
    settings = {**SIZES, "engine": "staged", "device": "cuda"}
    fit(plain, images, **settings)
    monkeypatch.setattr(torch.optim.Adam, "step", waits)
    with pytest.warns(PyroMivaeWarning, match="cannot be captured"):
        fit(told, images, **settings)
    assert_close(plain, told)
    assert torch.rand(3, device="cuda").isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("engine", ["staged", "compiled"])
def test_reduced_precision_trains_nearly_as_float32_does(make, images, precision, engine):
    settings = {**SIZES, "device": "cuda", "engine": engine}
    exact, rounded = make("vae"), make("vae")
    expected = fit(exact, images, **settings)
    history = fit(rounded, images, **settings, precision=precision)
    assert history["loss"] == pytest.approx(expected["loss"], rel=0.02)
