"""Figures side by side, by hand-computed differences and errors."""

import math
import statistics

import pytest

from pyro_mivae.report.comparison_table import compare_metrics


def line(runs, key):
    (found,) = [line for line in compare_metrics(runs) if line.key == key]
    return found


@pytest.mark.parametrize(("gap", "differs"), [(0.28, False), (0.29, True), (-0.29, True)])
def test_a_difference_counts_from_two_of_its_standard_errors(gap, differs):
    runs = [{"rate": 3.0, "rate_se": 0.1}], [{"rate": 3.0 + gap, "rate_se": 0.1}]
    first, second = line(runs, "rate").cells  # two errors of the difference: 0.283
    assert not first.differs
    assert second.differs == differs
    assert str(second) == f"{3 + gap:.2f} ± 0.10"


def test_of_seeds_the_mean_and_their_own_error():
    seeds = [{"elbo": value, "elbo_se": 9.0} for value in (-20.0, -21.0, -22.0, -23.0)]
    first, second = line([seeds, [{"elbo": -22.5, "elbo_se": 0.1}]], "elbo").cells
    assert str(first) == "−21.50 ± 1.29"
    assert first.margin == pytest.approx(1.2909944 / 2 * 3.1824463)  # Student's t of four
    assert not second.differs


@pytest.mark.parametrize(("runs", "differs"), [(2, False), (3, True), (5, True)])
def test_of_two_seeds_little_is_known(runs, differs):
    """Means 7 of their standard errors apart: of two runs Student's t wants 18, of three 6.1."""
    apart = 7.0 * statistics.stdev(range(runs)) / math.sqrt(runs)
    seeds = [[{"elbo": shift + k} for k in range(runs)] for shift in (0.0, apart)]
    assert line(seeds, "elbo").cells[1].differs == differs


@pytest.mark.parametrize(("lower", "differs"), [(2.25, False), (2.35, True)])
def test_of_intervals_it_is_the_gap_that_counts(lower, differs):
    errors = {"mi_lower_se": 0.05, "mi_upper_se": 0.1}
    runs = (
        [{"mi_lower": 1.0, "mi_upper": 2.0, **errors}],
        [{"mi_lower": lower, "mi_upper": 3.0, **errors}],
    )
    first, second = line(runs, "mi").cells
    assert (str(first), second.differs) == ("1.00 – 2.00", differs)


def test_what_is_not_defined_or_has_no_error():
    runs = [{"nmi": 0.5, "elbo": math.nan}], [{"nmi": 0.9, "elbo": -3.0, "elbo_se": 0.1}], [{}]
    nmi = line(runs, "nmi").cells
    assert [str(cell) for cell in nmi] == ["0.500", "0.900", "–"]
    elbo = line(runs, "elbo").cells
    assert [str(cell) for cell in elbo] == ["–", "−3.00 ± 0.10", "–"]
    assert not any(cell.differs for cell in (*nmi, *elbo))


def test_order_and_what_is_left_out():
    figures = {"nmi": 0.5, "active_units": 3.0, "mi_z_lower": 1.0, "mi_z_upper": 2.0, "rate": 1.0}
    figures |= {"kl_z": 1.0, "kl_z[0]": 1.0, "mi_z[0]_lower": 1.0, "distortion": 9.0, "hm": 1.0}
    figures |= {"generative_mi_z_lower": 0.5, "log_px": math.nan}
    keys = [line.key for line in compare_metrics([[figures], [figures]])]
    assert keys == [
        "distortion", "kl_z", "rate", "mi_z", "generative_mi_z", "active_units", "nmi",
    ]  # fmt: skip
