"""Data and labels of every kind, at every door: the same figures, or a clear refusal."""

import math

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.inputs import as_labels, as_tensor, clamp_rounding
from pyro_mivae.metrics import most_probable
from pyro_mivae.metrics.splits import check_known

SHAPE = (1, 3, 4)
FEW = {"iwae_samples": 2, "generative_items": 0}
KINDS = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "uint8": lambda x: x.to(torch.uint8),
    "int64": lambda x: x.long(),
    "bool": lambda x: x.bool(),
    "array": lambda x: x.double().numpy(),
    "byte array": lambda x: x.to(torch.uint8).numpy(),
    "read-only array": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "reversed big-endian array": lambda x: x.numpy()[::-1].astype(">f8")[::-1],
}
DOORS = {
    "encode": lambda vae, x: vae.encode(x),
    "reconstruct": lambda vae, x: {"x": vae.reconstruct(x, keep="c")},
    "information": lambda vae, x: mi.information(vae.model, vae.guide, x, **FEW),
    "evaluate": lambda vae, x: mi.evaluate(vae, x, train=(x, None), **FEW),
    "most_probable": lambda vae, x: {"c": most_probable(vae, x)},
    "annealed": lambda vae, x: {
        "log_px": mi.annealed_log_likelihood(
            vae.model, vae.guide, x[:4], num_temperatures=2, num_chains=1, leapfrog_steps=1
        ).log_px
    },
    "bidirectional": lambda vae, x: {
        "lower": mi.bidirectional_monte_carlo(
            vae.model,
            vae.guide,
            x[:4],
            items=2,
            num_temperatures=2,
            num_chains=1,
            leapfrog_steps=1,
        ).log_px_lower
    },
}


def build():
    torch.manual_seed(0)
    return mi.CatVAE(SHAPE, num_categories=3, warm_start=0).eval()


@pytest.fixture
def x():
    return torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0)).round()


def same(first, second):
    assert dict(first).keys() == dict(second).keys()
    for name, value in dict(first).items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(second[name]), equal_nan=True, msg=name
        )


@pytest.mark.filterwarnings("ignore::pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_every_kind_of_numbers(door, x, short_pilot):
    vae = build()
    expected = DOORS[door](vae, x)
    some = {"encode": KINDS, "information": ("uint8", "float16")}.get(door, ("array",))
    for kind in some:
        same(expected, DOORS[door](vae, KINDS[kind](x)))


def test_fit_takes_every_kind_of_numbers(x):
    losses = [
        mi.fit(build(), kind(x), epochs=1, validation=kind(x), engine="eager")["val_loss"]
        for kind in (lambda x: x, KINDS["array"], KINDS["uint8"])
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("door", [name for name in DOORS if name != "bidirectional"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * 255, r"range over \[0, 255\], .* needs \[0, 1\]"),
        (lambda x: (x * 255).to(torch.uint8), "divide by 255"),
        (lambda x: x.numpy() / 0, "NaN or infinite"),
        (lambda x: x.double() * 1e300, "NaN or infinite"),
        (list, "a list given as x"),
        (lambda x: x.to(torch.complex64), "x is complex"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
def test_every_door_refuses_what_cannot_be_scored(door, spoil, message, x):
    with pytest.raises(DataError, match=message):
        DOORS[door](build(), spoil(x))


def test_rounding_errors_are_put_on_the_ends_of_the_interval(x):
    vae = build()
    nudged = x.double() * (1 + 1e-6) - 1e-7
    assert vae.check_data(nudged).aminmax() == (0, 1)
    same(vae.encode(x), vae.encode(nudged))
    assert vae.check_data(x) is x
    with pytest.raises(DataError, match=r"range over \[0, 1.0001\]"):
        vae.check_data(x * 1.0001)
    half = torch.tensor([0.0, 1.0009765625], dtype=torch.float16)
    assert clamp_rounding(half.float(), (0.0, 1.0), half.dtype).max() == 1
    assert clamp_rounding(half.float(), (0.0, 1.0), torch.float32).max() > 1
    gaussian = mi.VAE(SHAPE, likelihood="gaussian")
    assert gaussian.check_data(x * 1.0001).max() > 1


def test_integers_of_a_users_own_pair_stay_integers(x):
    from pyro_mivae.models import data_for

    layer = torch.nn.Linear(2, 2)
    assert data_for(layer, layer, torch.arange(3)).dtype == torch.int64
    assert data_for(layer, layer, torch.rand(3).double()).dtype == torch.float32
    assert data_for(layer.double(), layer, torch.rand(3)).dtype == torch.float64
    assert data_for(len, len, torch.rand(3).double()).dtype == torch.float64


@pytest.mark.parametrize("wrap", [np.asarray, list, lambda y: torch.tensor(y)])
def test_labels_as_tensors_arrays_and_lists(wrap, x):
    y = [k % 3 for k in range(12)]
    known, taught = check_known(
        build(), x.numpy(), wrap(y), wrap([[k] for k in y]), (x, wrap(y), wrap([[0]] * 12))
    )
    assert known.labels.tolist() == taught.labels.tolist() == y
    assert known.factors[:, 0].tolist() == y


def test_strings_are_numbered_together_with_those_of_train(x):
    words = np.array(["ant", "bee", "cow"])
    factors = words[[1, 2]][:, None], words[:, None]
    train = (x[:3], ["cow", "ant", "bee"], factors[1])
    known, taught = check_known(build(), x[:2], words[[1, 2]], factors[0], train)
    assert known.labels.tolist() == [1, 2]
    assert taught.labels.tolist() == [2, 0, 1]
    assert (known.factors.tolist(), taught.factors.tolist()) == ([[1], [2]], [[0], [1], [2]])
    codes = as_labels([["cow", "ant"], np.array(["bee", "cow"], dtype=object), None], "abc")
    assert [None if c is None else c.tolist() for c in codes] == [[2, 0], [1, 2], None]
    assert as_labels([[True, False], torch.tensor([5, 5])], "ab")[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "train", "message"),
    [
        ([0.0] * 12, None, "labels have dtype torch.float64; allowed are integers"),
        ([0, "a"] * 6, [0] * 12, "give integers in all of them, or strings in all"),
        ([object()] * 12, None, "labels has dtype object"),
        ([[0]] * 12, None, r"labels: expected 12 integers or strings.*got shape \(12, 1\)"),
        ([[0], [0, 1]], None, "labels: give one label per item"),
        ([0, 1] * 6, [7, 8] * 6, r"no label of the data \(0, 1\) is a label of train \(7, 8"),
    ],
)
def test_labels_that_are_none(labels, train, message, x):
    with pytest.raises(DataError, match=message):
        check_known(build(), x, labels, None, None if train is None else (x, train))


def test_arrays_share_memory_and_keep_their_dtype():
    array = np.zeros((2, 3), np.float32)
    array_as = as_tensor(array)
    array[0, 0] = 1
    assert array_as[0, 0] == 1
    assert as_tensor(np.float64(2.0)).shape == ()
    with pytest.raises(DataError, match="values has dtype <U1"):
        as_tensor(np.array(["a"]), "values")


# Codes


def test_a_category_is_decoded_by_its_number(x):
    vae = build()
    expected = vae.decode({"c": torch.eye(3)}, 3)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for numbers in (torch.arange(3), np.arange(3), torch.arange(3).to(torch.uint8)):
        torch.testing.assert_close(vae.decode({"c": numbers}, 3), expected)
    z = vae.encode(x)["z"]
    torch.testing.assert_close(vae.decode({"z": z.double().numpy()}, 12), vae.decode({"z": z}, 12))


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ({"c": torch.tensor([0, 1, 3])}, OptionError, "category=3: allowed are 0 to 2"),
        ({"c": torch.tensor([0.0, 1.0, 2.0])}, ShapeError, r"of shape \(3, 3\), or its numbers"),
        ({"c": torch.eye(2)}, ShapeError, r"codes\['c'\] has dtype"),
        ({"z": torch.zeros(3)}, ShapeError, r"give values of shape \(3, 6\)$"),
        ({"z": torch.zeros(2, 6)}, ShapeError, r"shape \(2, 6\); give values"),
        ({"z": [0.0]}, DataError, "a list given as codes"),
    ],
)
def test_codes_that_do_not_fit(codes, error, message):
    with pytest.raises(error, match=message):
        build().decode(codes, 3)


def test_weights_that_are_not_finite_are_not_evaluated(x):
    vae = build()
    next(vae.guide.parameters()).data.fill_(math.nan)
    with pytest.raises(OptionError, match="hold weights that are NaN or infinite"):
        mi.evaluate(vae, x)
