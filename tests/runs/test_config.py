"""What a run is asked to do, its defaults, and what it is resumed with."""

import pytest

from pyro_mivae.data import load_dataset
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import find_variant, plain_defaults
from pyro_mivae.runs.options import MODEL_OPTIONS, check_model_options, default_options
from pyro_mivae.variants import VARIANTS


def complete(variant="infocat", **options):
    config = RunConfig(variant, **options)
    return config.complete(load_dataset("digits"), plain_defaults(find_variant(variant)))


def test_toml_round_trip(tmp_path):
    config = complete(image_size=(8, 10), model={"mi_weight": 2.5, "prior": "mixture"})
    config.write(tmp_path / "config.toml")
    assert RunConfig.read(tmp_path / "config.toml") == config


def test_given_options_overrule_defaults():
    config = complete(
        model={"num_categories": 4, "beta": None}, training={"lr": 0.5, "seed": None}
    )
    assert config.model["num_categories"] == 4
    assert config.training["lr"] == 0.5
    assert config.training["seed"] == 0
    assert config.training["epochs"] >= 1
    assert (config.num_train, config.num_test, config.data_shape) == (1438, 359, (1, 8, 8))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_defaults_that_it_takes(variant):
    config = complete(variant)
    assert set(config.model) <= {option.keyword for option in MODEL_OPTIONS}
    assert find_variant(variant)(config.data_shape, **config.model).name == variant


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig("vae", data="a/set.npz", model={"prior": "p.py:Mine"})
    full = config.complete(load_dataset("digits"), {})
    assert full.data == str(tmp_path / "a" / "set.npz")
    assert full.model["prior"] == f"{tmp_path / 'p.py'}:Mine"


def test_command_names_every_option():
    config = RunConfig(
        "infomax",
        data="my set.npz",
        image_size=(8, 10),
        model={"code_dim": 2, "deterministic": True},
        training={"epochs": 3},
    )
    assert config.command == (
        "pyro-mivae train infomax --data 'my set.npz' --image-size 8x10 "
        "--code-dim 2 --deterministic --epochs 3"
    )


def test_resuming_takes_the_stored_options(tmp_path):
    stored = complete(training={"epochs": 7}, model={"mi_weight": 2.0})
    asked = RunConfig("infocat", data="digits", model={"mi_weight": 2.0})
    assert asked.resumed_from(stored, tmp_path) == stored


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            RunConfig("vae"),
            "VARIANT vae given, .* started with infocat; give infocat to resume",
        ),
        (RunConfig("infocat", data="mnist"), "--data mnist given, .* started with digits"),
        (RunConfig("infocat", model={"num_categories": 3}), "--categories 3 given, .* with 10"),
        (
            RunConfig("infocat", training={"epochs": 8}),
            "--epochs 8 given, .* with 7; leave it out",
        ),
        (RunConfig("infocat", image_size=(9, 9)), "--image-size"),
        (RunConfig("infocat", model={"prior": "mixture"}), "--prior mixture given, .* with None"),
    ],
)
def test_resuming_with_something_else(tmp_path, asked, message):
    stored = complete(training={"epochs": 7})
    with pytest.raises(OptionError, match=message):
        asked.resumed_from(stored, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "variant = ", 'variant = "vae"\nunknown = 1', b"\xff\xfe".decode("latin1")]
)
def test_unreadable_configuration(tmp_path, content):
    (tmp_path / "config.toml").write_text(content, encoding="latin1")
    with pytest.raises(RunError, match="cannot read the run's configuration"):
        RunConfig.read(tmp_path / "config.toml")


def test_variant_refuses_what_it_has_no_use_for():
    message = "'vae' has no use for --categories; it takes --latent-dim, .*--prior, --guide"
    with pytest.raises(OptionError, match=message):
        check_model_options("vae", VARIANTS["vae"], {"latent_dim": 3, "num_categories": 4})
    given = check_model_options("vae", VARIANTS["vae"], {"latent_dim": 3, "num_categories": None})
    assert given == {"latent_dim": 3}


@pytest.mark.parametrize(("images", "epochs"), [(100, 300), (128 * 100, 100), (10**7, 10)])
def test_epochs_elsewhere_aim_at_a_number_of_steps(images, epochs):
    assert default_options("faces", "vae", images)["epochs"] == epochs


@pytest.mark.parametrize(
    "options",
    [{"data": ""}, {"data_root": " "}, {"model": {"prior": ""}}, {"training": {"engine": "a\0"}}],
)
def test_texts_that_are_empty(options):
    with pytest.raises(OptionError, match="allowed are texts that are not empty"):
        RunConfig("vae", **options)
