"""What the figures of a report are said to mean."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.diagnostics.diagnoses import falls_short

HEALTHY = {
    "rate": 5.2,
    "elbo": -25.0,
    "log_px": -24.0,
    "log_px_se": 0.1,
    "mi_lower": 4.5,
    "mi_upper": 4.7,
    "saturated": 0.0,
    "marginal_kl_lower": 0.4,
    "kl_z": 3.0,
    "mi_z_lower": 2.6,
    "mi_z_upper": 2.8,
    "mi_z[0]_upper": 1.5,
    "mi_z[1]_upper": 1.4,
    "kl_z[0]": 1.7,
    "kl_z[1]": 1.6,
    "kl_c": 2.2,
    "mi_c_lower": 2.1,
    "mi_c_upper": 2.1,
    "generative_mi_z_upper": 2.5,
    "generative_mi_c_upper": 2.0,
    "mi_z_critic": 2.7,
    **{f"occupancy_{k}": 0.1 for k in range(10)},
}


def kinds(**figures):
    return [(found.kind, found.about) for found in mi.diagnose(HEALTHY | figures)]


def test_all_is_well():
    assert kinds() == []
    assert mi.diagnose({}) == []
    assert mi.diagnose(dict.fromkeys(HEALTHY, math.nan)) == []


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"mi_z_upper": 0.019, "mi_z_critic": math.nan}, [("collapsed", "z")]),
        ({"mi_z_upper": 0.019, "mi_z_upper_se": 0.001, "mi_z_critic": math.nan}, []),
        ({"mi_z_upper": 0.021, "mi_z_critic": math.nan}, []),
        ({"mi_z[1]_upper": 0.01}, [("unused dimensions", "z")]),
        ({"occupancy_3": 0.004, "occupancy_4": 0.196}, [("unused categories", "c")]),
        ({"occupancy_3": 0.91}, [("one category", "c")]),
        ({"generative_mi_z_upper": 1.2}, [("ignored by the decoder", "z")]),
        ({"generative_mi_z_upper": 1.2, "generative_mi_z_upper_se": 0.1}, []),
        ({"mi_z_critic": 1.2}, [("critic too low", "critic")]),
        ({"mi_z_critic": 3.4}, [("critic too high", "critic")]),
        ({"mi_z_critic": 3.4, "mi_z_critic_se": 0.1}, []),
        ({"marginal_kl_lower": 1.4}, [("prior unlike the codes", "code")]),
        ({"marginal_kl_lower": 1.4, "rate": 6.0}, []),
        ({"log_px": -21.0}, [("loose bound", "code")]),
        ({"log_px": -21.0, "log_px_se": 0.6}, []),
        ({"log_px_ais": -21.0, "log_px": -20.0}, [("loose bound", "code")]),
        ({"log_px_ais_gap": 0.6}, [("annealed too briefly", "code")]),
        ({"log_px_ais_gap": 0.6, "log_px_ais_gap_se": 0.1}, []),
        ({"saturated": 1.0}, [("saturated", "code")]),
    ],
)
def test_each_rule_at_its_threshold(figures, expected):
    assert kinds(**figures) == expected


def test_noise_is_not_meant_to_say_anything():
    figures = {"kl_z": 0.0, "mi_z_lower": 0.0, "mi_z_upper": 0.0}
    assert [found.about for found in mi.diagnose(figures)] == ["z"]
    assert mi.diagnose(figures, noise={"z"}) == []


def test_sentences_hold_the_figures():
    figures = HEALTHY | {
        "mi_z[0]_upper": 0.001,
        "mi_c_critic": 0.02,
        "occupancy_2": 0.0,
        "occupancy_7": 0.001,
        "generative_mi_c_upper": 0.3,
        "saturated": 1.0,
    }
    assert [str(found) for found in mi.diagnose(figures)] == [
        "1 of 2 dimensions of z (0) holds under 0.02 nats.",
        "Categories 2, 7 take under 0.5% of the data each: 8 of 10 are in use.",
        "c is richer than the decoder uses: the guide writes at least 2.10 nats about the data "
        "into it, and the model's samples show at most 0.30 of it.",
        "The critic estimates 0.020 nats of I(x; c), which is 2.10 at least: its term "
        "raised only a part of the information.",
        "The code holds 4.50 nats about the data at least and 4.70 at most: the data are too few "
        "for closer bounds, because the lower one cannot exceed the log of their number.",
    ]


def test_categories_without_occupancy_go_by_their_share():
    figures = {k: v for k, v in HEALTHY.items() if not k.startswith("occupancy")}
    figures |= {"mi_c[0]_upper": 2.1, "mi_c[1]_upper": 0.001}
    (found,) = mi.diagnose(figures)
    assert found.kind == "unused categories"
    assert "1 of 2 categories of c (1)" in found.sentence


@pytest.mark.parametrize("sites", ["c_z", "z_c"])
def test_a_critic_of_the_whole_code_is_held_against_it(sites):
    assert kinds(**{f"mi_{sites}_critic": 2.0}) == [("critic too low", "critic")]


def test_a_critic_of_a_part_without_bounds_of_its_own_is_held_against_nothing():
    third = {"kl_u": 1.0, "mi_u_lower": 0.9, "mi_u_upper": 0.9}
    assert kinds(**third, mi_z_u_critic=0.1) == []


@pytest.mark.parametrize(
    ("heard", "least", "short"),
    [
        (0.01, 4.6, True),
        (2.2, 4.6, True),
        (2.4, 4.6, False),  # more than half
        (0.1, 0.55, False),  # within half a nat
        (-math.inf, 4.6, True),
        (math.nan, 4.6, False),
        (0.1, math.nan, False),
        (9.0, 4.6, False),
    ],
)
def test_what_falls_short(heard, least, short):
    assert falls_short(heard, least) == short


def test_a_collapsed_site_of_any_name_is_found_in_a_report():
    def model(x):
        with pyro.plate("data", len(x)):
            signal = pyro.sample("my_code", dist.Normal(0.0, 1.0))
            pyro.sample("noise", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(signal, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("my_code", dist.Normal(0.8 * x, 0.2**0.5))
            pyro.sample("noise", dist.Normal(0.0, 1.0))

    x = 1.25**0.5 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    report = mi.information(model, guide, x, generative_items=100, generative_samples=50)
    assert [(found.kind, found.about) for found in report.diagnoses] == [("collapsed", "noise")]
