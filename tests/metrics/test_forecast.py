"""How much is taken, what is told of it while it runs, and how long it will take."""

import math
import sys
import time
import warnings

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.errors import OptionError, PyroMivaeWarning
from pyro_mivae.metrics import duration, evaluate, forecast, how_measured
from pyro_mivae.metrics.evaluate import Budget
from pyro_mivae.metrics.forecast import _draws, _with_the_square
from pyro_mivae.progress import bars, listening, tell, telling

SMALL = {"iwae_samples": 3, "generative_items": 4, "generative_samples": 4, "num_samples": 1}


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return mi.VAE((1, 8, 8), latent_dim=2).eval()


def test_full_takes_all_and_what_is_given_goes_before_it():
    few = Budget.of(7000, subset=3)
    assert (few.probes, few.forests, few.samples) == (10_000, 5000, 1000)
    assert few.information == InformationOptions(subset=3)
    full = Budget.of(
        7000, full=True, probe_items=10_000, samples_per_category=1000, iwae_samples=9
    )
    assert (full.probes, full.forests, full.samples) == (None, None, 10_000)
    assert full.information.iwae_samples == 9
    assert full.information.iwae_items == full.information.subset == 7000
    assert Budget.of(5, probe_items=1).forests == 1
    with pytest.raises(OptionError, match="options iwae, k are unknown; .*iwae_samples"):
        Budget.of(5, k=1, iwae=3)
    with pytest.raises(OptionError, match="iwae_samples=9999999999999; allowed .* to 10000000"):
        Budget.of(
            5, full=False, probe_items=1, samples_per_category=1000, iwae_samples=9999999999999
        )
    with pytest.raises(OptionError, match="samples_per_category=9 and full=True are given"):
        Budget.of(5, full=True, samples_per_category=9)


@pytest.mark.slow
def test_a_full_evaluation_says_what_it_took(vae):
    x = torch.rand(1050, 1, 8, 8)
    standard = evaluate(vae, x, **SMALL).protocol
    full = evaluate(vae, x, full=True, **SMALL).protocol
    assert (standard["full"], full["full"]) == (False, True)
    assert standard["information"]["iwae_items"] == 1000
    assert full["information"]["iwae_items"] == 1050
    assert full["information"]["iwae_samples"] == 3


def test_parts_are_timed_and_told(vae):
    told = []
    with listening(lambda *step: told.append(step)):
        result = evaluate(vae, torch.rand(40, 1, 8, 8), torch.arange(40) % 2, **SMALL)
    parts = {what for what, _, _ in told}
    assert {"codes", "log p(x)", "information", "reconstruction", "probes"} <= parts
    for what in parts:
        steps = [step[1:] for step in told if step[0] == what]
        assert steps[-1][0] == steps[-1][1]
        assert all(done <= total for done, total in steps)
    assert ("log p(x)", 120, 120) in told
    assert {"information", "information, costs", "probes"} <= set(result.seconds)
    assert min(result.seconds.values()) >= 0
    tell("nobody", 1, 2)
    assert list(telling("nobody", [3, 4])) == [3, 4]


@pytest.mark.slow
def test_annealing_is_told_and_forecast(vae, short_pilot):
    told, x = [], torch.rand(20, 1, 8, 8)
    options = {**SMALL, "ais_items": 6, "ais_temperatures": 5}
    with listening(lambda *step: told.append(step)), warnings.catch_warnings():
        warnings.simplefilter("ignore", PyroMivaeWarning)  # of the acceptance
        result = evaluate(vae, x, **options)
    of_it = [step for step in told if step[0] == "log p(x), annealed"]
    assert of_it[-1][1] == of_it[-1][2] >= 5
    line = how_measured(result.protocol, "log_px_ais_se")
    assert "6 of 20 items" in line
    assert "5 temperatures" in line
    assert math.isfinite(result["log_px_ais"])
    assert forecast(vae, x, **options) > 0


def test_bars_are_shown_on_terminals_alone(monkeypatch, capsys):
    for enabled, terminal in ((True, False), (False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with bars(enabled=enabled):
            tell("log p(x)", 1, 4)
        assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with bars(enabled=True):
        tell("log p(x)", 1, 4)
        time.sleep(0.11)  # as often as tqdm draws
        tell("log p(x)", 3, 4)
        tell("judge", 0, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "log p(x): " in err
    assert "3/4" in err
    assert "judge: " in err


def test_a_square_is_found_in_two_times():
    def took(n):
        return 3e-3 * n + 2e-6 * n**2

    found = _with_the_square((took(400), took(800)), (400, 800), 10_000)
    assert found == pytest.approx(took(10_000))
    assert _with_the_square((2.0, 4.0), (400, 800), 8000) == pytest.approx(40)
    assert _with_the_square((5.0, 4.0), (400, 800), 8000) == pytest.approx(40)  # noise
    assert _with_the_square((5.0, 5.0), (1, 1), 3) == 15


def test_draws_are_counted():
    asked = InformationOptions(
        iwae_samples=5000,
        iwae_items=10_000,
        generative_items=500,
        generative_samples=100,
        ais_items=5000,
        ais_temperatures=260,
    )
    found = _draws(asked, 2000, 800)
    assert found["information, draw_codes"] == 2000 / 800
    assert found["information, costs"] == 5000 * 2000 / (100 * 100)
    assert found["information, generative_information"] == 10
    assert found["information, annealed_evidence"] == 2000 * 310 / (50 * 60)


def test_the_forecast_grows_with_what_is_asked(vae, quick):
    x, labels = torch.rand(900, 1, 8, 8), torch.arange(900) % 2
    state = torch.get_rng_state()
    short = forecast(vae, x, labels, (x, labels), **SMALL)
    long = forecast(vae, x, labels, (x, labels), **SMALL | {"iwae_samples": 100_000})
    assert 0 < short < 20
    assert long > short + 20  # 10⁸ decoded codes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_the_forecast_is_right_by_a_factor():
    torch.manual_seed(0)
    vae = mi.InfoCatVAE((1, 28, 28))
    x, labels = torch.rand(1500, 1, 28, 28), torch.arange(1500) % 10
    options = {"iwae_samples": 100, "iwae_items": 500, "generative_items": 100}
    expected = forecast(vae, x, labels, (x, labels), **options)
    began = time.perf_counter()
    evaluate(vae, x, labels, (x, labels), **options)
    took = time.perf_counter() - began
    assert 0.3 < expected / took < 3


def test_a_duration_in_words():
    assert duration(9) == "a few seconds"
    assert duration(89) == "about 90 seconds"
    assert duration(91) == "about 2 minutes"
    assert duration(5399) == "about 90 minutes"
    assert duration(5401) == "about 1.5 hours"
