"""What a run is asked to do, its defaults, and what it is resumed with."""

import copy
import dataclasses
import datetime
import random
import tomllib

import pytest
import tomli_w

import pyro_mivae as mi
from pyro_mivae.cli.options import in_flags
from pyro_mivae.data import load_dataset
from pyro_mivae.errors import OptionError, PyroMivaeError, RunError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import build_variant
from pyro_mivae.runs.config import (
    ModelOptions,
    check_model_options,
    default_options,
    find_variant,
)
from pyro_mivae.runs.run import read_config
from pyro_mivae.variants import VARIANTS


def complete(variant="infocat", **options):
    config = RunConfig(variant, **options)
    return config.complete(load_dataset("digits"))


def test_toml_round_trip(tmp_path):
    config = complete(image_size=(8, 10), model={"mi_weight": 2.5, "prior": "mixture"})
    config.write(tmp_path / "config.toml")
    assert RunConfig.read(tmp_path / "config.toml") == config


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_of_every_variant_can_be_read(variant, tmp_path):
    config = complete(variant, training={"patience": 2, "clip_norm": 1, "engine": "staged"})
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
    assert config.data_shape == (1, 8, 8)
    assert config.fingerprints == load_dataset("digits").fingerprints


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_defaults_that_it_takes(variant):
    config = complete(variant)
    assert set(config.model) <= {field.name for field in dataclasses.fields(ModelOptions)}
    assert find_variant(variant).build(config.data_shape, **config.model).name == variant


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig("vae", data="a/set.npz", model={"prior": "p.py:Mine"})
    full = config.complete(load_dataset("digits"))
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


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("beta", {"beta": "target:20"}),
        ("vmi", {"mi_weight": "target:8.50"}),
        ("infogan", {"continuous_weight": "target:1e0"}),
    ],
)
def test_a_target_goes_through_file_command_and_model(variant, options, tmp_path):
    config = complete(variant, model=options)
    config.write(tmp_path / "config.toml")
    assert RunConfig.read(tmp_path / "config.toml") == config
    (name, text), *_ = options.items()
    value = float(text.removeprefix("target:"))
    flag = name.replace("_", "-")
    assert f"--{flag} target:{value:g}" in config.command
    vae = build_variant(config, config.data_shape)
    assert getattr(vae, name, vae.given[name]) == mi.Target(value)
    assert f"{value:g} nats" in mi.explain(vae.objective())
    again = RunConfig(variant, model=options)
    assert again.resumed_from(config, tmp_path) == config
    with pytest.raises(OptionError, match=f"--{flag} 2.0 given, .* with target:{value:g};"):
        RunConfig(variant, model={name: 2.0}).resumed_from(config, tmp_path)


@pytest.mark.parametrize("text", ["target:", "target:0", "target:nan", "target:x", "20 nats"])
def test_targets_that_are_none(text):
    with pytest.raises(OptionError, match="allowed are finite numbers, and target:N for a tar"):
        RunConfig("beta", model={"beta": text})


def test_what_takes_no_target():
    with pytest.raises(OptionError, match="latent_dim='target:3'; allowed are whole numbers"):
        RunConfig("beta", model={"latent_dim": "target:3"})
    config = complete("mmd", model={"mi_weight": "target:3"})
    with pytest.raises(
        OptionError, match=r"mi_weight=Target\(value=3.0.*; allowed are numbers, as two"
    ):
        build_variant(config, config.data_shape)
    config = complete("beta", model={"beta": "target:-3"})
    with pytest.raises(OptionError, match="allowed are targets above 0 nats here"):
        build_variant(config, config.data_shape)


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


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A run's configuration as it should be, as text."""
    path = tmp_path_factory.mktemp("right") / "config.toml"
    complete(image_size=(8, 8), training={"clip_norm": 5.0}).write(path)
    return path.read_text()


@pytest.mark.parametrize(
    "content",
    ["", "variant = ", b"\xff\xfe".decode("latin1"), "a = " + "[" * 10**4, "a = " + "1" * 10**4],
)
def test_unreadable_configuration(tmp_path, content):
    (tmp_path / "config.toml").write_text(content, encoding="latin1")
    with pytest.raises(RunError, match="cannot read the run's configuration .*/config.toml: "):
        RunConfig.read(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('variant = "infocat"', "", "variant is missing; needed are variant, data"),
        ('variant = "infocat"', 'variant = "no"', "no variant 'no'; allowed are vae"),
        ("[training]", "[trainings]", "training is missing; needed are variant, data"),
        ("epochs = ", "epoch = ", "training.epochs is missing; needed are epochs, batch_size"),
        ("[training]", "[training]\nmore = 1", "training.more=1; allowed are epochs, batch_size"),
        ("seed = 0", 'seed = "x"', "training.seed='x'; allowed are whole numbers from 0 to"),
        (
            "num_categories = 10",
            'num_categories = "ten"',
            "model.num_categories='ten'; allowed are whole numbers",
        ),
        ("[versions]", "[fingerprints]", "Cannot declare"),
        ("pyro-mivae = ", "other = ", "versions.pyro-mivae is missing; needed are python"),
        ("clip_norm = 5.0", "clip_norm = nan", "training.clip_norm=nan; allowed are finite"),
        ("[model]", 'model = "x"\n[models]', "model='x'; allowed are tables, [model]"),
        ('data = "', 'colour = "red"\ndata = "', "colour='red'; allowed are variant"),
    ],
)
def test_a_damaged_configuration_says_where(right, tmp_path, before, after, message):
    assert before in right
    (tmp_path / "config.toml").write_text(right.replace(before, after))
    with pytest.raises(RunError) as caught:
        read_config(tmp_path)
    told = f"cannot read the run's configuration {tmp_path / 'config.toml'}: {message}"
    assert str(caught.value).startswith(told)
    assert in_flags(str(caught.value)).startswith(told)


VALUES = (
    *(
        0,
        1,
        -1,
        3,
        2**31,
        10**30,
        0.5,
        -1.5,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        " ",
        "x",
    ),
    *("a\0b", "ten", "x.py:P", "é" * 99, [], [1], [1, 8, 8], [0, 8, 8], ["a"], [[1]], {}),
    *({"a": 1}, datetime.date(2000, 1, 1), datetime.datetime(2000, 1, 1), datetime.time(1)),
)


def mutated(right, chance):
    """The configuration with a value, a key or a few characters changed."""
    if chance.random() < 0.2:
        at = chance.randrange(len(right))
        return right[:at] + chance.choice(["", "=", '"', "[", "\n", "#", "\x00", right[:at]])
    content = copy.deepcopy(tomllib.loads(right))
    table = chance.choice([content, content["model"], content["training"]])
    key = chance.choice([*table])
    change = chance.random()
    if change < 0.25:
        table["more" if change < 0.15 else "prior"] = chance.choice(VALUES)
    elif change < 0.4:
        del table[key]
    else:
        table[key] = copy.deepcopy(chance.choice(VALUES))
    return tomli_w.dumps(content)


def test_no_damage_ends_in_a_traceback(right, tmp_path):
    chance, refused, built = random.Random(0), 0, 0
    for _ in range(400):
        (tmp_path / "config.toml").write_text(mutated(right, chance))
        try:
            config = read_config(tmp_path)
        except RunError:
            refused += 1
            continue
        if max((v for v in config.model.values() if type(v) is int), default=0) > 1000:
            continue
        try:
            build_variant(config, config.data_shape)
            built += 1
        except PyroMivaeError:
            pass
    assert refused > 250
    assert built


def test_variant_refuses_what_it_has_no_use_for():
    message = "'vae' does not have --categories; it takes .*--latent-dim, .*--prior, --guide"
    with pytest.raises(OptionError, match=message):
        check_model_options("vae", {"latent_dim": 3, "num_categories": 4})
    check_model_options("vae", RunConfig("vae", model={"beta": None, "latent_dim": 3}).model)


@pytest.mark.parametrize(("images", "epochs"), [(100, 300), (128 * 100, 100), (10**7, 10)])
def test_epochs_elsewhere_aim_at_a_number_of_steps(images, epochs):
    assert default_options("faces", "vae", images)["epochs"] == epochs


@pytest.mark.parametrize(
    "options",
    [{"data": ""}, {"data_root": " "}, {"model": {"prior": ""}}, {"training": {"engine": "a\0"}}],
)
def test_texts_that_are_empty(options):
    with pytest.raises(OptionError, match="; allowed are"):
        RunConfig("vae", **options)
