"""Training of small models on small data: what fit promises, checked by running it."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import (
    DataError,
    OptionError,
    ShapeError,
    SiteError,
    TrainingError,
)
from pyro_mivae.networks import MLPEncoder
from pyro_mivae.training import TrainingOptions, fit, read_checkpoint, suitable_threads

SHAPE = (1, 4, 4)
pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_every_variant_trains(name, x, make):
    vae = make(name)
    before = {n: v.clone() for n, v in vae.state_dict().items()}
    history = fit(vae, x, epochs=6, batch_size=10, lr=1e-2)
    if name == "infogan":  # a game, whose losses need not fall
        assert history["mi_c_mean"][-1] > history["mi_c_mean"][0]
    else:
        assert history["distortion"][-1] < history["distortion"][0]
    assert history["epoch"] == list(range(1, 7))
    assert history["step"] == list(range(5, 31, 5))
    moved = [n for n, p in vae.named_parameters() if not torch.equal(p, before[n])]
    assert moved == [n for n, _ in vae.named_parameters()]
    assert not vae.training


def test_a_game_has_no_best_epoch_to_stop_at(x, make):
    with pytest.raises(OptionError, match="patience=3: the loss of InfoGAN is the sum of its pl"):
        fit(make("infogan"), x, epochs=2, patience=3)


def test_history_is_per_datum_and_adds_up(x, make):
    history = fit(make(), x, epochs=2, batch_size=20)
    for row in history.rows:
        assert row["rate"] == pytest.approx(row["kl_z"] + row["kl_c"], rel=1e-5)
        assert row["elbo"] == pytest.approx(-row["distortion"] - row["rate"], rel=1e-5)
        assert 5 < row["distortion"] < 20  # 16 pixels of about log 2
    assert list(history.columns[:4]) == ["epoch", "step", "seconds", "lr"]


def test_first_step_is_plain_adam_on_the_loss_per_datum(x, make):
    """One step of fit against the same step written by hand, on the same noise.

    The encoder has no batch norm: it makes the bias before it a parameter without a gradient,
    whose rounding errors Adam would blow up to whole steps.
    """
    encoder = MLPEncoder(x.shape[1:], (8,))
    vae, twin = make("vae", encoder=copy.deepcopy(encoder)), make("vae", encoder=encoder)
    fit(vae, x, epochs=1, batch_size=50, lr=1e-2, seed=4)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(4)
    optimiser = torch.optim.Adam(twin.parameters(), lr=1e-2)
    objective = twin.objective()
    with pyro.get_param_store().scope():
        with torch.random.fork_rng():
            objective.differentiable_loss(twin.model, twin.guide, x[:2])  # finds the plates
        loss = objective.differentiable_loss(twin.model, twin.guide, x[order]) / 50
    loss.backward()
    optimiser.step()
    for (name, a), b in zip(vae.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_same_seed_same_weights_whatever_came_before(x, make, assert_same_weights):
    first = make()
    fit(first, x, epochs=2, batch_size=16, seed=1)
    torch.rand(7)
    second = make()
    fit(second, x, epochs=2, batch_size=16, seed=1)
    assert_same_weights(first, second)
    third = make()
    fit(third, x, epochs=2, batch_size=16, seed=2)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True)
    )


def test_callers_random_numbers_and_store_are_left_alone(x, make):
    pyro.param("mine", torch.ones(2))
    vae = make()
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    fit(vae, x, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store()) == ["mine"]


def test_small_steps_take_one_thread_and_others_all(x, make):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        fit(make("vae"), x, epochs=1, on_epoch=lambda row: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
        with suitable_threads(nn.Linear(1000, 1000), 128):
            seen.append(torch.get_num_threads())
        with suitable_threads(nn.Conv2d(1, 1, 3), 1):
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 2, 2]


def test_two_models_in_one_process_keep_apart(x, make, assert_same_weights):
    a, b = make("vae"), make("vae")
    fit(a, x, epochs=1, seed=0)
    before = {n: v.clone() for n, v in a.state_dict().items()}
    codes = a.encode(x)["z"]
    fit(b, 1 - x, epochs=3, seed=0)
    assert_same_weights(a, before)
    assert torch.equal(a.encode(x)["z"], codes)
    assert not torch.equal(b.encode(x)["z"], codes)


@pytest.mark.parametrize("mode", [False, True])
def test_both_modes_of_pyros_parameters(mode, x, make):
    with pyro.settings.context(module_local_params=mode):
        histories = [fit(make(), x, epochs=3, batch_size=16) for _ in range(2)]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert histories[0]["distortion"][-1] < histories[0]["distortion"][0]


class Explodes(mi.VAE):
    """A loss that becomes infinite at a step."""

    at = 8
    calls = 0

    def objective(self, num_steps=None):
        objective, outer = super().objective(num_steps), self
        inner = objective.differentiable_loss

        def loss(model, guide, x):
            value = inner(model, guide, x)
            if model.training:
                outer.calls += 1
                if outer.calls == outer.at:
                    value = value / 0.0
                    objective.ledger |= {"loss": value.detach(), "distortion": value.detach()}
            return value

        objective.differentiable_loss = loss
        return objective


def test_non_finite_loss_stops_with_step_term_and_the_last_good_checkpoint(
    tmp_path, x, assert_same_weights
):
    vae = Explodes(SHAPE, latent_dim=2)
    message = r"not finite at step 8 \(loss = inf, distortion = inf\)"
    with pytest.raises(TrainingError, match=message):
        fit(vae, x, epochs=4, batch_size=10, run=tmp_path, engine="eager")
    state = read_checkpoint(tmp_path)
    assert state["epoch"] == 1
    assert all(value.isfinite().all() for value in state["weights"].values())
    assert_same_weights(vae, state["weights"])
    assert not vae.training


def test_non_finite_loss_in_the_first_epoch_gives_the_first_weights_back(
    tmp_path, x, assert_same_weights
):
    vae = Explodes(SHAPE, latent_dim=2)
    before = copy.deepcopy(vae.state_dict())
    told = "The weights are those before the first epoch again"
    with pytest.raises(TrainingError, match=f"{told}$"):
        fit(vae, x, epochs=1, batch_size=5)
    assert_same_weights(vae, before)
    with pytest.raises(TrainingError, match=f"{told}; {tmp_path} keeps none$"):
        fit(Explodes(SHAPE, latent_dim=2), x, epochs=1, batch_size=5, run=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_undefined_entries_are_no_failure(x, make):
    history = fit(make("infomax", deterministic=True), x, epochs=2, batch_size=16)
    assert all(math.isnan(value) for value in history["kl_c"])
    assert all(math.isfinite(value) for value in history["loss"])


def test_validation_rows_and_held_out_fraction(x, make):
    given = fit(make("vae"), x[:40], epochs=2, validation=x[40:])
    assert all(f"val_{key}" in given.columns for key in ("loss", "elbo", "distortion", "kl_z"))
    held = fit(make("vae"), x, epochs=1, batch_size=9, validation=0.1)
    assert held["step"] == [5]  # 45 of 50 images
    plain = fit(make("vae"), x[:40], epochs=2)
    assert plain["loss"] == given["loss"]  # evaluating does not touch the training's noise


def test_patience_stops_and_keeps_the_best_weights(tmp_path, x, make, assert_same_weights):
    vae = make("vae")
    rows = []
    history = fit(
        vae,
        x,
        epochs=400,
        lr=0.05,
        patience=3,
        run=tmp_path,
        on_epoch=lambda row: rows.append(row),
    )
    losses = history["val_loss"]
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 3 < 400
    state = read_checkpoint(tmp_path)
    assert state["finished"]
    assert state["best"]["epoch"] == best + 1
    assert_same_weights(vae, state["best"]["weights"])


def test_patience_waits_for_warm_up(x):
    class Warming(mi.BetaVAE):
        name = "warming"

        def objective(self, num_steps=None):
            warmup = mi.linear_warmup(40, end=4.0)
            return mi.MutualInformationELBO(kl_weights={"z": warmup})

    history = fit(Warming(SHAPE, latent_dim=2), x, epochs=60, patience=1, lr=1e-2, batch_size=45)
    assert len(history) > 40


def test_cosine_schedule_ends_near_zero(x, make):
    history = fit(make("vae"), x, epochs=4, batch_size=10, lr=1e-2, lr_schedule="cosine")
    assert history["lr"][0] > history["lr"][1] > history["lr"][2] > history["lr"][3] > 0
    assert history["lr"][3] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 19 / 20)))


def test_weight_decay_takes_its_share_of_the_weights_beside_the_step(x, make):
    """Loshchilov & Hutter (2019), Decoupled weight decay, algorithm 2."""
    vae = make("vae").double()
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    decayed = copy.deepcopy(vae)
    for model, decay in ((vae, 0.0), (decayed, 0.3)):
        fit(model, x, epochs=1, batch_size=len(x), lr=1e-2, weight_decay=decay, engine="eager")
    for old, plain, less in zip(before, vae.parameters(), decayed.parameters(), strict=True):
        torch.testing.assert_close(less, plain - 0.3 * 1e-2 * old)


def test_parts_keep_their_own_learning_rates_in_proportion(make):
    from pyro_mivae.training.optimiser import make_optimiser

    vae = make("vae")
    vae.optim_args = lambda name: {"lr": 2e-4, "betas": (0.5, 0.9)} if "model" in name else {}
    groups = make_optimiser(vae, TrainingOptions(epochs=1, lr=5e-4)).param_groups
    assert sorted(group["lr"] for group in groups) == pytest.approx([1e-4, 5e-4])
    assert sorted(group["betas"] for group in groups) == [(0.5, 0.9), (0.9, 0.999)]
    assert sum(len(group["params"]) for group in groups) == len(list(vae.parameters()))


def test_initialize_is_called_once_before_the_first_step(tmp_path, x, make):
    calls = []
    vae = make("vae")
    vae.initialize = lambda data: calls.append(data.shape)
    fit(vae, x, epochs=2, run=tmp_path)
    fit(vae, x, epochs=2, run=tmp_path, resume=True)
    assert calls == [x.shape]


@pytest.mark.parametrize("count", [1, 2, 11])
def test_batches_of_one_and_a_last_batch_of_one(count, x, make):
    history = fit(make(), x[:count], epochs=2, batch_size=10)
    assert len(history) == 2
    assert fit(make(), x[:5], epochs=1, batch_size=1)["step"] == [5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0; allowed are whole numbers from 1 up"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"patience": 0}, "patience=0"),
        ({"seed": -1}, "seed=-1; allowed are whole numbers from 0 to 4294967295"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"lr": [1e-3]}, r"lr=\[0.001\]; allowed are finite numbers above 0"),
        ({"lr": 0.0}, r"lr=0\.0; allowed are finite numbers above 0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"clip_norm": -1.0}, r"clip_norm=-1\.0"),
        ({"lr_schedule": "linear"}, "lr_schedule='linear'; allowed are constant, cosine"),
        ({"precision": "half"}, "precision='half'; allowed are float32, tf32, bf16"),
        ({"validation": 1.0}, r"validation=1\.0; allowed are finite numbers above 0 and below 1"),
        ({"device": "abacus"}, "device='abacus' is not available here; allowed are auto, cpu"),
    ],
)
def test_options_out_of_range(tmp_path, x, options, message, make):
    with pytest.raises(OptionError, match=message):
        fit(make("vae"), x, **{"epochs": 1, **options}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda x: x[:0], DataError, "0 data given"),
        (lambda x: x * math.nan, DataError, "NaN or infinite"),
        (lambda x: x * 2, DataError, r"needs \[0, 1\]"),
        (lambda x: x[:, 0], ShapeError, r"data of shape \(50, 4, 4\)"),
    ],
)
def test_data_that_do_not_fit(tmp_path, x, spoil, error, message, make):
    with pytest.raises(error, match=message):
        fit(make("vae"), spoil(x), epochs=1, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parameters_that_would_not_be_trained_are_refused(tmp_path, x, make):
    class StrayPrior(mi.StandardNormalPrior):
        def forward(self):
            return super().forward() * pyro.param("stray", torch.ones(()))

    with pytest.raises(
        SiteError, match=r"parameters \['stray'\] live in Pyro's param store alone"
    ):
        fit(make("vae", prior=StrayPrior(3)), x, epochs=1, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_bar_shows_epochs_and_nats(x, capfd, make):
    fit(make("vae"), x, epochs=2, progress=True)
    shown = capfd.readouterr().err
    assert "epoch 2/2" in shown
    assert "elbo -" in shown


def test_pair_that_fails_is_an_error_of_ours(tmp_path, x):
    class Guide(PyroModule):
        def forward(self, x):
            if torch.is_grad_enabled():  # not when the variant is built
                raise ValueError("late trouble")
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    vae = mi.VAE(SHAPE, guide=Guide(), prior=mi.StandardNormalPrior(2))
    with pytest.raises(SiteError, match="fail on 2 images: ValueError: late trouble"):
        fit(vae, x, epochs=1, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_history_has_the_standard_rate_and_not_a_parts_own(x, make):
    vae = make("vae")
    vae.optim_args = lambda name: {"lr": 5e-3 if "model" in name else 1e-3}
    assert fit(vae, x, epochs=1, lr=2e-3)["lr"] == [pytest.approx(2e-3)]


def test_nothing_to_train_is_an_error(x):
    vae = mi.VAE(SHAPE, latent_dim=2).requires_grad_(False)
    with pytest.raises(OptionError, match="every parameter of VAE is frozen"):
        fit(vae, x, epochs=1)


def test_images_that_are_neither_tensor_nor_array(x, make):
    for given, told in ((list(x), "a list given as x"), ({"x": x}, "a dict given as x")):
        with pytest.raises(DataError, match=f"{told}; give all of it as one tensor or NumPy"):
            fit(make("vae"), given, epochs=1)
