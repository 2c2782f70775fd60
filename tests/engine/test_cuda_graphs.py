"""CUDA graphs: what is asked of torch, shown without a device; and what only a device can show."""

import contextlib
import gc
import warnings

import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine import cuda_graphs
from pyro_mivae.engine.cuda_graphs import CudaGraphs
from pyro_mivae.errors import CaptureError, PyroMivaeWarning
from pyro_mivae.training import TrainingOptions, fit
from pyro_mivae.training import trainer as loop
from pyro_mivae.training.history import Meter
from pyro_mivae.training.trainer import Trainer

SIZES = {"epochs": 2, "batch_size": 14}
DEVICES = [torch.device("cuda", index) for index in range(2)]


class FakeCuda:
    """Keeps the rules of captures and writes down what is asked of it; replays run the body.

    What runs on another stream than the captured one, or on one of another device, is not in the
    graph: its replay does nothing, as it would on a device.
    """

    def __init__(self, monkeypatch):
        self.log, self.body = [], None
        self.mode = 0
        self.current = {device: f"main {device.index}" for device in DEVICES}
        fakes = {
            "graph_pool_handle": lambda: "pool",
            "current_stream": lambda device: Stream(self, device, self.current[device]),
            "Stream": lambda device: Stream(self, device, f"aside {device.index}"),
            "stream": self.on,
            "CUDAGraph": lambda: Graph(self),
            "graph": self.capture,
            "get_rng_state": lambda device: torch.get_rng_state(),
            "set_rng_state": lambda state, device: None,
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": self.set_sync_debug_mode,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        cuda_graphs._stream.cache_clear()

    @contextlib.contextmanager
    def on(self, stream):
        before = self.current[stream.device]
        self.current[stream.device] = stream.name
        try:
            yield
        finally:
            self.current[stream.device] = before

    @contextlib.contextmanager
    def capture(self, graph, *, pool, stream, capture_error_mode):
        assert not gc.isenabled()
        self.log.append(f"captures on {stream.name} to {pool}, {capture_error_mode}")
        self.body = graph.body = []
        with self.on(stream):
            yield
        self.body = None

    def run(self, device, step):
        """Runs a step, or keeps it if it is cuda_graphs."""
        self.log.append(f"step on {self.current[device]}")
        if self.body is None:
            step()
        elif self.current[device] == f"aside {device.index}":
            self.body.append(step)

    def set_sync_debug_mode(self, mode):
        warnings.warn(
            "Synchronization debug mode is a prototype feature", UserWarning, stacklevel=2
        )
        self.mode = mode


class Graph:
    def __init__(self, cuda):
        self.cuda, self.body = cuda, []

    def replay(self):
        self.cuda.log.append("replays")
        for step in self.body:
            step()


class Stream:
    def __init__(self, cuda, device, name):
        self.cuda, self.device, self.name = cuda, device, name

    def wait_stream(self, other):
        assert self.device == other.device
        self.cuda.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def cuda(monkeypatch):
    yield FakeCuda(monkeypatch)
    cuda_graphs._stream.cache_clear()


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.ones(2))


def body_of(weight, optimiser, cuda, device=DEVICES[0]):
    def step():
        weight.grad = torch.full((2,), 0.5)
        optimiser.step()

    return lambda: cuda.run(device, step)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_step_is_warmed_up_captured_and_replayed_on_one_stream(cuda, weight, device):
    optimiser = torch.optim.Adam([weight], fused=True)
    steps = body_of(weight, optimiser, cuda, device)
    modes = []

    def body():
        modes.append(cuda.mode)
        steps()

    state = torch.get_rng_state()
    recorder = CudaGraphs(optimiser, device, 2)
    many, one = recorder.record(body, [2, 1], [weight])
    main, aside = (f"{name} {device.index}" for name in ("main", "aside"))
    step, captures = f"step on {aside}", f"captures on {aside} to pool, thread_local"
    assert cuda.log == [
        f"{aside} waits for {main}",
        *[step] * (cuda_graphs.WARM_UPS + 1),
        *[captures, step, step, captures, step],
        *[step, step, "replays", step, "replays"],
        f"{main} waits for {aside}",
    ]
    assert modes[cuda_graphs.WARM_UPS] == "error"
    assert set(modes) == {0, "error"}
    assert cuda.mode == 0
    assert gc.isenabled()
    assert weight.tolist() == [1, 1]
    assert weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    with recorder.running():
        many(), one()
    assert cuda.log[-4:] == [
        f"{aside} waits for {main}",
        *["replays"] * 2,
        f"{main} waits for {aside}",
    ]
    assert weight.tolist() != [1, 1]
    again = CudaGraphs(optimiser, device)
    before = len(cuda.log)
    again.record(body, [1], [weight])
    assert all(aside in line or line == "replays" for line in cuda.log[before:])  # no second one


@pytest.mark.parametrize("fails_at", [cuda_graphs.WARM_UPS, cuda_graphs.WARM_UPS + 1])
def test_a_capture_that_fails_leaves_no_trace(cuda, weight, fails_at, monkeypatch):
    renewed = []
    monkeypatch.setattr(cuda_graphs, "_mend_generator", lambda *args: renewed.append(args))
    monkeypatch.setattr(cuda_graphs, "end_capture_pool", lambda *args: renewed.append("pool"))
    optimiser = torch.optim.Adam([weight], fused=True)
    steps = body_of(weight, optimiser, cuda)

    def body():
        if cuda.log.count("step on aside 0") == fails_at:
            raise RuntimeError("it waits\nfor the device")
        steps()

    with pytest.raises(CaptureError, match="^RuntimeError: it waits$"):
        CudaGraphs(optimiser, DEVICES[0]).record(body, [1], [weight])
    assert len(renewed) == 2 * (fails_at > cuda_graphs.WARM_UPS)
    assert cuda.current[DEVICES[0]] == "main 0"
    assert cuda.log[-1] == "main 0 waits for aside 0"
    assert weight.tolist() == [1, 1]
    assert gc.isenabled()
    assert cuda.mode == 0


def test_a_graph_in_which_nothing_was_captured_is_found_out(cuda, weight):
    optimiser = torch.optim.Adam([weight], fused=True)
    elsewhere = body_of(weight, optimiser, cuda, DEVICES[1])
    with pytest.raises(CaptureError, match="its replay differs from 1 step"):
        CudaGraphs(optimiser, DEVICES[0]).record(elsewhere, [1], [weight])
    assert weight.tolist() == [1, 1]


DEVICE = DEVICES[0]


@pytest.fixture
def build(make, images):
    """Makes a trainer on the device, prepared."""

    def build(vae=None, x=None, **settings):
        settings = {"lr_schedule": "cosine", "clip_norm": 50.0, "engine": "staged", **settings}
        taken = {**SIZES, "lr": 1e-3, "seed": 4, "patience": None, **settings}
        vae = (make("vae") if vae is None else vae).to(DEVICE)
        x = images.to(DEVICE, vae.dtype) if x is None else x
        trainer = Trainer(vae, {"x": x}, [], TrainingOptions(**taken), DEVICE)
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
        trainer.recorded.compares = lambda step: False
        before, steps = weights(trainer.vae), []
        trainer.optimiser.step = lambda: steps.append(1)
        meter, order = Meter(), torch.randperm(len(trainer.x))
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                values = trainer.recorded.run(order, trainer.step)
                meter.add(trainer.recorded.entries, values, len(order))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert meter.means()["loss"] > 0
        assert steps == []
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
    "relaxed": ("vmi", {"generated": "relaxed"}),
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
    monkeypatch.setattr(loop, "recorder_for", lambda optimiser, device: None)
    expected = fit(plain, images, **settings, device="cuda")
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert_close(replayed, plain)


@pytest.mark.gpu
def test_several_steps_per_replay_and_the_compiled_step_train_the_same(make, images, monkeypatch):
    settings = {**SIZES, "device": "cuda"}
    one, three, compiled = (make("vae").double() for _ in range(3))
    fit(one, images, **settings, engine="staged")
    fit(compiled, images, **settings, engine="compiled")
    monkeypatch.setattr(loop, "recorder_for", lambda o, d: CudaGraphs(o, d, 3))
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
        monkeypatch.setattr(cuda_graphs, "_no_waiting", contextlib.nullcontext)
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
