"""Keys of figures are made and taken apart in one place, and every figure has its words."""

import math
import re

import pytest

from pyro_mivae.figures import (
    FIGURES,
    SIDES,
    error_of,
    interval,
    key,
    label,
    meaning_of,
    parse,
    parsed,
    sites_of,
    with_errors,
    without_errors,
)
from pyro_mivae.tables import align, write_interval, write_number


@pytest.mark.parametrize("name", FIGURES)
def test_a_key_is_found_again_in_its_parts(name):
    per_site = "{of}" in FIGURES[name].meaning
    for site in ("", "z", "my_site", "lower", "se", "critic")[: None if per_site else 1]:
        for side in ("", *SIDES):
            for index in (None, 0, 12) if site else (None,):
                text = key(name, site, side, index=index)
                for is_error in (False, True):
                    found = parse(text + "_se" * is_error)
                    assert str(found) == text + "_se" * is_error
                    known = found.name, found.site, found.side, found.index
                    # A site called as a side is one with a side of its own.
                    assert known == (name, site, side, index) or site in SIDES or site == "se"


def test_longer_names_go_before_shorter_ones_with_a_site():
    assert parse("log_px_ais").name == "log_px_ais"
    assert parse("linear_probe_sampled").site == ""
    assert (parse("linear_probe_z").name, parse("linear_probe_z").site) == ("linear_probe", "z")
    assert parse("total_correlation_lower").side == "lower"
    assert parse("mi_z_c_critic").site == "z_c"
    assert (parse("mi_lower").site, parse("mi_lower_upper").site) == ("", "lower")


@pytest.mark.parametrize("text", ["loss", "mmd_z", "rate_z", "epoch", "elbos", "my_elbo", ""])
def test_what_is_no_figure_keeps_its_name(text):
    assert parse(text) is None
    assert label(text) == text


def test_labels_and_meanings_name_site_dimension_and_side():
    assert label("mi_z[3]_lower") == "I(x; z[3]), at least"
    assert label("active_units_z") == "active units, z"
    assert label("occupancy_3") == "share of category 3"
    assert meaning_of("kl_z[3]") == "KL of dimension 3 of z."
    assert (
        meaning_of("mi_upper") == "Information that the whole code holds about the data, at most."
    )
    assert meaning_of("loss") == ""
    for figure in FIGURES.values():
        assert not re.search(r"[{}]|\.$", f"{label(figure.name)} {meaning_of(figure.name)[:-1]}")


def test_figures_and_their_errors():
    values = with_errors({"rate": (3.0, 0.5), "saturated": 1.0, "kl_z": (2.0, math.nan)})
    values |= {"kl_z[0]": 2.0, "mi_z_lower": 1.0, "loss": 3.0, "lone_se": 1.0}
    assert values["rate_se"] == error_of(values, "rate") == 0.5
    assert error_of(values, "saturated", missing=0.0) == 0
    assert set(without_errors(values)) == set(values) - {"rate_se", "kl_z_se"}
    assert [str(k) for k, _ in parsed(values, "kl")] == ["kl_z", "kl_z[0]"]
    assert sites_of(values) == ["z"]
    low, high = interval(values, "mi", "z")
    assert low == 1
    assert math.isnan(high)


def test_numbers_as_text():
    assert [write_number(v, 1) for v in (-1.005, -0.04)] == ["−1.0", "0.0"]
    assert [write_number(v) for v in (math.nan, math.inf)] == ["not defined"] * 2
    assert write_interval(math.nan, 2.0, 1) == "≤ 2.0"
    assert align([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]
