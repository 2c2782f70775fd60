"""The table that a run ends with."""

import math

from pyro_mivae.data import load_dataset
from pyro_mivae.runs import summarise

METRICS = {
    "distortion": 21.0,
    "kl_c": math.nan,
    "kl_z": 1.5,
    "kl_z_se": 0.1,
    "mi_c_lower": 1.9,
    "mi_c_upper": math.nan,
    "mi_z_lower": 1.0,
    "mi_z_upper": 1.25,
    "cluster_accuracy": 0.91,
    "nmi": math.nan,
    "categories_used": 9.0,
}


def test_parts_of_the_code_where_no_category_is():
    metrics = {"elbo": -1.0, "reconstruction_r2": 0.61, "reconstruction_r2_c": -0.01}
    lines = [" ".join(line.split()) for line in summarise(metrics).splitlines()]
    expected = ["share of the variance reconstructed", "the whole code 0.61", "c alone −0.01"]
    assert lines[2:] == expected
    assert "variance" not in summarise(metrics, 10)
    assert "variance" not in summarise({"elbo": -1.0, "reconstruction_r2": 0.61})


def test_rows_say_what_is_not_defined_and_leave_the_rest_out():
    lines = [" ".join(line.split()) for line in summarise(METRICS, 10, ["a note"]).splitlines()]
    assert lines == [
        "nats per test datum",
        "distortion, -E log p(x|code) 21.00",
        "KL of c not defined",
        "KL of z 1.50 ± 0.10",
        "I(x; c) ≥ 1.90",
        "I(x; z) 1.00 – 1.25",
        "(a note)",
        "against labels, which training did not see",
        "clustering accuracy 0.910",
        "categories in use: 9 of 10",
    ]


def test_what_stands_out_comes_last():
    metrics = {"mi_z_critic": 0.01, "kl_z": 3.0, "mi_z_lower": 2.5, "mi_z_upper": 2.6}
    metrics |= {"mi_lower": 2.5, "mi_upper": 2.6}
    lines = summarise(metrics).splitlines()
    assert lines[-2] == "what stands out"
    assert lines[-1].startswith("  The critic estimates 0.010 nats of I(x; z), which is")
    assert "stands out" not in summarise(metrics | {"mi_z_critic": 2.5})


def test_information_in_samples_and_by_a_fitted_marginal():
    metrics = {"kl_c": 2.0, "kl_z": 3.0, "mi_lower": 5.0, "mi_upper": 6.0, "saturated": 1.0}
    metrics |= {"fitted_mi_lower": 5.4, "fitted_mi_upper": 5.6}
    metrics |= {"mi_lower_se": 0.1, "mi_upper_se": 0.2, "fitted_mi_lower_se": math.nan}
    ends = {"": (4.0, 4.5), "_c": (1.5, 1.6), "_z": (4.001, 4.5)}
    for site, (low, high) in ends.items():
        metrics |= {f"generative_mi{site}_lower": low, f"generative_mi{site}_upper": high}
    lines = [" ".join(line.split()) for line in summarise(metrics).splitlines()]
    assert lines[3:7] == [
        "I(x; code) 5.00 – 6.00 ± 0.20",
        "I(x; code), by a fitted marginal 5.40 – 5.60",
        "I(x; code) in samples 4.00 – 4.50",
        "I(x; c) in samples 1.50 – 1.60",
    ]
    assert lines[-1].endswith("their number; a fitted marginal gives 5.40 to 5.60.")
    assert "fitted" not in summarise(metrics | {"saturated": 0.0})
    lines = summarise(metrics | {"mi_lower": math.nan, "saturated": math.nan}).splitlines()
    assert any("≤ 6.00" in line for line in lines)


def test_metrics_of_factors():
    lines = summarise({"elbo": -1.0, "mig": 0.25, "modularity": 0.5}).splitlines()
    assert lines[2] == "against factors, which training did not see"
    assert [line.split()[-1] for line in lines[3:]] == ["0.250", "0.500"]


def test_results_are_short_in_a_prompt_and_whole_when_printed():
    from pyro_mivae.metrics.evaluate import EvaluationResult

    protocol = {"data": "9 items", "likelihood": "grey & black"}
    result = EvaluationResult(METRICS, protocol, {})
    assert repr(result) == f"EvaluationResult({len(METRICS)} figures of 9 items)"
    assert str(result) == summarise(METRICS, notes=["grey & black"])
    assert result._repr_html_().startswith("<pre>nats per test datum")
    assert "grey &amp; black" in result._repr_html_()
    assert repr(load_dataset("digits")) == (
        "Dataset(digits: 1,438 training and 359 test data of shape (1, 8, 8), 10 classes)"
    )
