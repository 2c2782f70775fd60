"""Steps on static tensors, recorded or not, train as a plain loop does."""

import copy
from unittest.mock import patch

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.capturable import Scheduled, StaticEpoch
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.engine.steps import Engine
from pyro_mivae.errors import CaptureError
from pyro_mivae.schedules import Weight

CPU = torch.device("cpu")
SIZES = [14, 14, 14, 14, 8]
ALIKE = [16] * 4  # one step to stage
STEPS = 2 * len(SIZES)
RATE = 3e-3


def cosine(step):
    return RATE * (1 + torch.cos(torch.tensor(torch.pi * step / STEPS)).item()) / 2


def moving(objective):
    modules = objective.state.modules()
    return [part for part in modules if isinstance(part, Weight) and part.schedule is not None]


class Run:
    """A variant that is trained for two epochs, by either way."""

    def __init__(self, name, options, make, program_of, sizes=SIZES, clip_norm=0.5):
        self.sizes = sizes
        self.vae = make(name, **options)
        self.objective = self.vae.objective()
        self.program = program_of(self.vae, self.objective)
        self.clip_norm = clip_norm
        self.optimiser = torch.optim.Adam(
            self.program.parameters, lr=torch.tensor(RATE), fused=True, capturable=True
        )
        self.engine = Engine(self.program, "staged")
        self.step = 0
        self.log = []

    def plain(self, x, order):
        for index in order.split(self.sizes):
            self.optimiser.param_groups[0]["lr"] = torch.tensor(cosine(self.step))
            self.log.append(self.program(x[index]))
            torch.nn.utils.clip_grad_norm_(self.program.parameters, self.clip_norm)
            self.optimiser.step()
            self.objective.advance()
            self.step += 1

    def static(self, x, recorder=Recording, device=CPU, steps_per_replay=3):
        scheduled = [Scheduled(self.optimiser.param_groups[0]["lr"], cosine)]
        scheduled += [Scheduled(weight.current, weight.at) for weight in moving(self.objective)]
        return StaticEpoch(
            self.engine,
            [x],
            self.sizes,
            recorder(self.optimiser, device, steps_per_replay),
            scheduled=scheduled,
            clip_norm=self.clip_norm,
        )

    def epoch(self, static, order):
        self.log += static.run(order, self.step).clone()
        self.step += len(self.sizes)
        for weight in moving(self.objective):
            weight.advance(len(self.sizes))

    def state(self):
        return [
            *copy.deepcopy(self.program.state),
            *(
                value.clone()
                for state in self.optimiser.state.values()
                for value in state.values()
            ),
            *(value for value in self.objective.state_dict().values()),
        ]


CASES = {
    "batch norm and a schedule": ("beta", {"beta": mi.linear_warmup(6, 0.2)}),
    "an average": ("critic-infomax", {"bound": "mine"}),
    "a game": ("infogan", {}),
}


@pytest.fixture
def orders(images):
    return [torch.randperm(len(images)) for _ in range(2)]


def assert_same(a, b, **tolerance):
    for one, other in zip(a.state(), b.state(), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, **tolerance)
    log = torch.stack(a.log)
    torch.testing.assert_close(log, torch.stack(b.log), equal_nan=True, rtol=1e-5, atol=1e-3)


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize("case", CASES)
def test_two_epochs_equal_those_of_a_plain_loop(case, make, program_of, images, orders):
    plain = Run(*CASES[case], make, program_of)
    torch.manual_seed(8)
    for order in orders:
        plain.plain(images, order)
    for steps_per_replay in (1, 3) if case == "batch norm and a schedule" else (3,):
        run = Run(*CASES[case], make, program_of)
        static = run.static(images, steps_per_replay=steps_per_replay)
        torch.manual_seed(8)
        static.prepare()
        for order in orders:
            run.epoch(static, order)
        assert_same(plain, run, rtol=1e-5, atol=1e-6)


@pytest.fixture
def run(make, program_of):
    return Run("beta", {"beta": mi.linear_warmup(6, 0.2)}, make, program_of, ALIKE)


def test_recording_leaves_no_trace(run, images, orders):
    static = run.static(images)
    torch.manual_seed(8)
    before = run.state()
    static.prepare()
    made = [value for state in run.optimiser.state.values() for value in state.values()]
    assert made
    assert not any(value.any() for value in made)
    fresh = run.state()
    before[len(run.program.state) : len(run.program.state)] = [torch.zeros_like(v) for v in made]
    for one, other in zip(before, fresh, strict=True):
        assert torch.equal(one, other)
    drawn = torch.rand(3)
    torch.manual_seed(8)
    assert torch.equal(torch.rand(3), drawn)
    assert all(parameter.grad is None for parameter in run.program.parameters)
    run.epoch(static, orders[0])
    before = run.state()
    static.prepare()  # in the middle of a training
    for one, other in zip(before, run.state(), strict=True):
        assert torch.equal(one, other)


class FailsAfterTheFirst(Recording):
    """A device that does not take the second size of batch."""

    recorded = 0

    def _record(self, body, count):
        body()
        self.recorded += 1
        if self.recorded > 1:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise RuntimeError("second") from error
        return super()._record(body, count)


def test_what_cannot_be_recorded_is_told_and_leaves_no_trace(run, images, orders):
    run.sizes = [22, 22, 20]
    static = run.static(images, FailsAfterTheFirst)
    torch.manual_seed(8)
    before = run.state()[: len(run.program.state)]
    with pytest.raises(CaptureError, match="KeyError: 'first'"):
        static.prepare()
    assert all(torch.equal(a, b) for a, b in zip(before, run.program.state, strict=True))
    drawn = torch.rand(3)
    torch.manual_seed(8)
    assert torch.equal(torch.rand(3), drawn)
    run.plain(images, orders[0])
    assert torch.stack(run.log).isfinite().all()


def test_data_elsewhere_are_copied_batch_by_batch(make, program_of, images, orders):
    runs = [Run("vae", {}, make, program_of, ALIKE) for _ in range(2)]
    for run, device in zip(runs, (CPU, torch.device("cpu:0")), strict=True):
        static = run.static(images, device=device)
        torch.manual_seed(8)
        static.prepare()
        run.epoch(static, orders[0])
    assert_same(*runs, rtol=0, atol=0)


def test_every_step_is_told(run, images, orders):
    static = run.static(images)
    static.prepare()
    seen = []
    log = static.run(orders[0], 0, lambda: seen.append(1))
    assert len(seen) == len(log) == len(ALIKE)
    assert log.shape == (len(ALIKE), len(static.entries))


def test_another_mode_is_another_step(run, images):
    static = run.static(images)
    static.prepare()
    assert static.is_prepared
    run.vae.eval()
    assert not static.is_prepared


def test_tensors_that_moved_are_another_step(run, images, orders):
    static = run.static(images)
    static.prepare()
    run.epoch(static, orders[0])
    assert static.is_prepared
    parameter = run.program.parameters[0]
    parameter.data = parameter.data.clone()
    assert not static.is_prepared
    static.prepare()
    run.optimiser.load_state_dict(copy.deepcopy(run.optimiser.state_dict()))
    assert not static.is_prepared


@pytest.mark.parametrize("does", [0, 1], ids=["nothing", "one step of three"])
def test_a_recording_that_does_not_do_the_steps_is_an_error(does, run, images):
    class Less(Recording):
        def _record(self, body, count):
            return body if does and count > 1 else super()._record(body, count * does)

    before = run.state()[: len(run.program.state)]
    with pytest.raises(CaptureError, match="its replay differs from 3 step"):
        run.static(images, Less).prepare()
    assert all(torch.equal(a, b) for a, b in zip(before, run.program.state, strict=True))


def test_a_recording_without_the_optimiser_is_an_error(run, images):
    class Less(Recording):
        def _record(self, body, count):
            repeat = super()._record(body, count)

            def without():
                with patch.object(run.optimiser, "step"):
                    repeat()

            return without

    with pytest.raises(CaptureError, match="the update of the parameters differs"):
        run.static(images, Less, steps_per_replay=1).prepare()


def test_a_program_that_cannot_be_staged_cannot_be_recorded(make, program_of, images):
    run = Run("vae", {}, make, program_of)
    run.engine = Engine(run.program, "eager")
    with pytest.raises(CaptureError, match="cannot be staged"):
        run.static(images).prepare()
