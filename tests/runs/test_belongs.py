"""A run folder whose parts are not of one run is refused by whatever reads it."""

import shutil
import threading

import numpy as np
import pytest

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning, RunError, WriteError
from pyro_mivae.runs import RunConfig, evaluate_run, open_run, train_run
from pyro_mivae.runs.build import build_variant
from pyro_mivae.runs.run_folder import prepare
from pyro_mivae.training import Writer, fit

FEW = {"iwae_samples": 2, "iwae_items": 2, "generative_items": 2, "generative_samples": 2}
TRAINING = {"epochs": 2, "batch_size": 32, "engine": "eager"}


def images(seed=0):
    generator = np.random.default_rng(seed)
    return (generator.random((80, 4, 4)) * 255).astype("u1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "own.npz"
    np.savez(path, images=images(), labels=np.arange(80) % 4)
    return path


def make_run(folder, data, variant="vae", model=None, **training):
    """Trains into a folder as `train_run` does, but neither evaluates nor reports."""
    asked = RunConfig(variant, str(data), model=model or {}, training=TRAINING | training)
    dataset = asked.load_dataset()
    config = asked.complete(dataset)
    prepare(folder, "a run", {folder / "config.toml": config})
    vae = build_variant(config, dataset.data_shape)
    fit(vae, dataset.x_train, **config.training, run=folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, data):
    return make_run(tmp_path_factory.mktemp("made") / "run", data)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def test_the_run_itself_is_read(run):
    assert open_run(run).finished
    assert open_run(run).dataset().x_train.shape == (64, 1, 4, 4)
    assert mi.load(run).latent_dim == 20


EDITS = {
    "lr": ("lr = 0.001", "lr = 0.01", "lr is 0.01 here and 0.001 there"),
    "batch_size": ("batch_size = 32", "batch_size = 16", "batch_size is 16 here and 32 there"),
    "epochs": ("epochs = 2", "epochs = 9", "epochs is 9 here and 2 there"),
    "seed": ("seed = 0", "seed = 1", "seed is 1 here and 0 there"),
    "schedule": ('"constant"', '"cosine"', "lr_schedule is cosine here and constant there"),
    "variant": ('variant = "vae"', 'variant = "beta"', "class is BetaVAE here and VAE there"),
    "likelihood": (
        'likelihood = "bernoulli"',
        'likelihood = "gaussian"',
        "GaussianLikelihood.* here",
    ),
    "size": ("latent_dim = 20", "latent_dim = 10", "latent_dim is 10 here and 20 there"),
    "data": (
        '"training images" = "',
        '"training images" = "0',
        "other training images|training images is 0",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_configuration_is_named(run, name):
    before, after, message = EDITS[name]
    path = run / "config.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    files = {p.name: p.read_bytes() for p in run.iterdir()}
    asked = RunConfig("beta" if name == "variant" else "vae")
    for read in (open_run, mi.load, lambda run: train_run(asked, run, resume=True)):
        with pytest.raises((RunError, mi.errors.OptionError), match=message):
            read(run)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == files


@pytest.mark.parametrize(
    ("variant", "training", "message"),
    [
        ("vae", {"seed": 7}, "seed is 0 here and 7 there"),
        ("beta", {}, "class is VAE here and BetaVAE there"),
        ("vae", {"batch_size": 16}, "batch_size is 32 here and 16 there"),
    ],
)
def test_another_runs_checkpoint_is_named(run, data, tmp_path, variant, training, message):
    other = make_run(tmp_path / "other", data, variant, **training)
    shutil.copy(other / "checkpoint.pt", run / "checkpoint.pt")
    with pytest.raises(RunError, match=rf"are not of one run: .*{message}.*restore"):
        open_run(run)


def test_other_data_are_named(tmp_path):
    path = tmp_path / "own.npz"
    labels = np.arange(80) % 4
    np.savez(path, images=images(), labels=labels)
    run = make_run(tmp_path / "run", path)
    kinds = {
        "training images, test images": {"images": images(1), "labels": labels},
        "labels": {"images": images(), "labels": np.where(labels < 2, 1 - labels, labels)},
        r"shape \(3, 4, 4\) for \(1, 4, 4\)": {"images": np.stack([images()] * 3, -1)},
    }
    for told, arrays in kinds.items():
        np.savez(path, **arrays)
        for read in (
            lambda: open_run(run).dataset(),
            lambda: train_run(RunConfig("vae"), run, resume=True),
        ):
            with pytest.raises(RunError, match=f"own.npz has changed .*: other .*{told}"):
                read()


def test_another_version_of_the_package_is_said(run):
    path = run / "config.toml"
    path.write_text(path.read_text().replace('pyro-mivae = "', 'pyro-mivae = "9.'))
    with pytest.warns(PyroMivaeWarning, match=r"made by pyro-mivae 9\..*, and this is"):
        open_run(run)


def test_weights_go_into_a_model_that_is_built_alike(run):
    assert mi.load(run, into=mi.VAE((1, 4, 4))).latent_dim == 20
    with pytest.raises(RunError, match=r"weights of another model: .*GaussianLikelihood"):
        mi.load(run, into=mi.VAE((1, 4, 4), likelihood="gaussian"))


def test_a_folder_that_is_being_written_to_is_left_alone(run):
    taken, leave, failures = threading.Event(), threading.Event(), []

    def hold():
        with Writer(run):
            taken.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    files = {p.name: p.read_bytes() for p in run.iterdir()}
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match="another process is writing to") as caught:
            train_run(RunConfig("vae"), run, **how)
        failures.append(caught)
    leave.set()
    thread.join()
    assert {p.name: p.read_bytes() for p in run.iterdir()} == files
    assert len(failures) == 2


@pytest.mark.parametrize(
    ("variant", "given", "how"),
    [
        ("vaee", {}, {}),
        ("vae", {"data": "nowhere.npz"}, {}),
        ("vae", {"data": "damaged.npz"}, {}),
        ("vae", {"image_size": (1, 1), "model": {"network": "conv"}}, {}),
        ("vae", {"model": {"beta": 2.0}}, {}),
        ("cat", {"model": {"num_categories": 3, "latent_dim": 4}}, {}),
        ("vae", {"model": {"prior": "nothing"}}, {}),
        ("vae", {"model": {"guide": "nowhere.py:Guide"}}, {}),
        ("vae", {"training": {"batch_size": 0}}, {}),
        ("critic-infomax", {"training": {"batch_size": 1}}, {}),
        ("infogan", {"training": {"patience": 2}}, {}),
        ("vae", {"training": {"precision": "bf16", "engine": "eager"}}, {}),
        ("vae", {}, {"device": "cuda:99"}),
        ("vae", {}, {"resume": True}),
    ],
)
def test_a_failing_overwrite_leaves_the_old_run_alone(
    run, data, tmp_path, monkeypatch, variant, given, how
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.npz").write_bytes(data.read_bytes()[:300])
    files = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(mi.errors.PyroMivaeError):
        train_run(RunConfig(variant, **{"data": str(data)} | given), run, overwrite=True, **how)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == files


def test_figures_are_told_even_if_they_cannot_be_written(run, monkeypatch, quick, encoder_side):
    def full(path, *args):
        raise WriteError(f"cannot write {path}: No space left on device")

    opened, said = open_run(run), []
    monkeypatch.setattr("pyro_mivae.runs.outputs.write_json", full)
    few = {**FEW, "say": said.append}
    with pytest.raises(WriteError, match="metrics.json: No space left"):
        evaluate_run(opened, opened.dataset(), **few)
    assert "ELBO" in said[-1]


def test_figures_of_other_weights_are_noticed(run, quick, encoder_side):
    first = open_run(run)
    evaluate_run(first, first.dataset(), **FEW)
    assert "ELBO" in open_run(run).summary()
    vae = build_variant(first.config, first.config.data_shape)
    training = {**first.config.training, "epochs": 3}
    fit(vae, first.dataset().x_train, **training, run=run, resume=True)
    with pytest.raises(RunError, match="measured with other weights than the checkpoint's"):
        open_run(run).summary()
    with pytest.raises(RunError, match="trained again meanwhile"):
        evaluate_run(first, first.dataset(), **FEW)


def test_defaults_that_are_given_are_no_contradiction(run):
    asked = RunConfig("vae", model={"network": "auto"}, training={"precision": "float32"})
    stored = open_run(run).config
    assert asked.resumed_from(stored, run) == stored
    with pytest.raises(mi.errors.OptionError, match="--precision bf16 given"):
        RunConfig("vae", training={"precision": "bf16"}).resumed_from(stored, run)
