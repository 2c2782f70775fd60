"""The results command: what is there is kept, what is of another making is refused, and told."""

import functools
import json
import math
import sys

import numpy as np
import pytest

from benchmarks import categories, clusters, finished, one_run, results, trainings
from benchmarks.finished import MixError, Times, key, put, read
from benchmarks.results_table import bounds, interval, spread, table, tables
from pyro_mivae.errors import TrainingError


@pytest.fixture(autouse=True)
def short(request):
    """Shortens evaluations; slow tests start processes, which would know nothing of that."""
    if request.node.get_closest_marker("slow") is None:
        for name in ("quick", "encoder_side"):
            request.getfixturevalue(name)


@pytest.fixture
def images(tmp_path):
    """A data set of 60 images with a label each."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = 0.2 * rng.random((60, 8, 8), dtype=np.float32)
    pixels[np.arange(60), labels] = 0.9
    path = tmp_path / "images.npz"
    np.savez(path, images=pixels, labels=labels)
    return str(path)


@pytest.fixture
def command(images, tmp_path):
    """A command that takes a second."""
    place = ["--out", str(tmp_path / "out"), "--jobs", "1", "--epochs", "1"]
    return ["--data", images, *place, "--variants", "vae", "beta"]


@pytest.fixture
def made(monkeypatch):
    """The names of the runs that are made, in order."""
    names = []

    def noted(task, progress=False):
        names.append(f"{'-'.join(task.cell.values())} {task.seed}")
        return one_run.run_one(task, progress)

    monkeypatch.setattr(trainings, "run_one", noted)
    return names


def the_file(tmp_path):
    return next((tmp_path / "out").glob("results-images-*.json"))


def test_a_stopped_command_goes_on_and_makes_nothing_twice(command, made, tmp_path, monkeypatch):
    stop = iter([False, False, True])
    make = trainings.run_one

    def stopped(task, progress=False):
        if next(stop):
            raise KeyboardInterrupt
        return make(task, progress)

    monkeypatch.setattr(trainings, "run_one", stopped)
    with pytest.raises(SystemExit) as info:
        results.main([*command, "--seeds", "2"])
    assert info.value.code == 130
    first = read(the_file(tmp_path))["runs"]
    assert list(map(key, first)) == [("vae", 0), ("beta", 0)]  # all variants of a seed first
    monkeypatch.setattr(trainings, "run_one", make)
    (content,) = results.main([*command, "--seeds", "2"])
    assert made == ["vae 0", "beta 0", "vae 1", "beta 1"]
    assert list(map(key, content["runs"])) == [
        ("vae", 0), ("vae", 1), ("beta", 0), ("beta", 1),
    ]  # fmt: skip
    assert content["runs"][0] == first[0]
    assert content["runs"][2] == first[1]
    assert content == read(the_file(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("wide")  # as in the other process
def test_runs_made_at_once_are_those_made_one_after_the_other(command, tmp_path):
    (alone,) = results.main([*command, "--seeds", "2"])
    (at_once,) = results.main(
        [*command, "--seeds", "2", "--jobs", "2", "--out", str(tmp_path / "two")]
    )
    assert list(map(key, at_once["runs"])) == list(map(key, alone["runs"]))
    for one, other in zip(at_once["runs"], alone["runs"], strict=True):
        assert one["metrics"] == other["metrics"]


def test_parts_are_chosen_by_variant_and_seed(command, made, capsys):
    results.main([*command[:-2], "beta", "--first-seed", "3", "--seeds", "1"])
    results.main([*command[:-2], "vae", "--first-seed", "2", "--seeds", "2"])
    (content,) = results.main([*command, "--table"])
    assert made == ["beta 3", "vae 2", "vae 3"]
    assert list(map(key, content["runs"])) == [("vae", 2), ("vae", 3), ("beta", 3)]
    told = capsys.readouterr().out
    assert "seeds 2, 3;" in told
    assert "| vae | 2 |" in told
    assert "python -m benchmarks results --data images.npz --data-root DIR --epochs 1" in told


def test_what_a_run_holds(command, tmp_path):
    (content,) = results.main([*command[:-1], "infogan", "--seeds", "1"])
    vae, infogan = content["runs"]
    assert vae["settings"]["model"]["latent_dim"] == 20
    assert vae["settings"]["fit"]["epochs"] == 1
    assert vae["settings"]["evaluate"]["probe_items"] == 10_000
    assert vae["made_with"]["source"] == finished.made_with()["source"]
    assert infogan["metrics"]["elbo"] is None  # NaN is no JSON
    assert vae["metrics"]["elbo"] < 0 < vae["seconds"]
    assert set(content["protocol"]) == {"vae", "infogan"}
    assert content["protocol"]["vae"]["information"]["items"] == content["test"] == 12
    assert 0 <= content["pixels"]["linear_probe"] <= 1
    rows = tables([content]).splitlines()
    assert next(r for r in rows if r.startswith("| infogan")).split(" | ")[2:4] == ["–", "–"]
    assert any(row.startswith("| *pixels, k-means* | – | ") for row in rows)
    assert "48 training and 12 test images of 8 × 8 (log 12 = 2.48). Epochs 1, batches" in "".join(
        rows
    )
    assert sum("a Bernoulli likelihood gives a cross-entropy" in row for row in rows) == 1
    assert sum("64 samples of up to 1,000 images" in row for row in rows) == 1


def test_other_settings_are_not_mixed(command, tmp_path):
    results.main([*command, "--seeds", "1"])
    before = the_file(tmp_path).read_text()
    with pytest.raises(MixError, match="holds vae 0, made otherwise: epochs 1 there, 2 now"):
        results.main([*command, "--seeds", "2", "--epochs", "2", "--mix"])
    assert the_file(tmp_path).read_text() == before


def test_other_versions_are_mixed_only_if_asked_and_told(command, tmp_path, monkeypatch, capsys):
    results.main([*command[:-1], "--seeds", "1"])
    other = {**finished.made_with(), "torch": "1.0"}
    monkeypatch.setattr(trainings, "made_with", lambda: other)
    monkeypatch.setattr(one_run, "made_with", lambda: other)
    with pytest.raises(MixError, match=r"torch '.*' there, '1\.0' now.*--mix"):
        results.main([*command[:-1], "--seeds", "2"])
    assert "more than one version" not in capsys.readouterr().out
    results.main([*command[:-1], "--seeds", "2", "--mix"])
    assert "The runs were made with more than one version of: torch." in capsys.readouterr().out


def test_another_source_is_another_making(monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(finished.pyro_mivae, "__file__", str(package / "__init__.py"))
    first = finished.made_with()["source"]
    assert finished.made_with()["source"] == first
    (package / "__init__.py").write_text("one = 2\n")
    assert finished.made_with()["source"] != first


def test_trainings_that_are_kept_are_measured_again_without_training(
    command, tmp_path, monkeypatch
):
    kept = [*command[:-1], "--seeds", "1", "--runs", str(tmp_path / "runs")]
    (first,) = results.main(kept)
    the_file(tmp_path).unlink()
    checkpoint = tmp_path / "runs" / "images-vae-0" / "checkpoint.pt"
    written = checkpoint.stat().st_mtime_ns
    other = {**finished.made_with(), "torch": "1.0"}
    monkeypatch.setattr(one_run, "made_with", lambda: other)
    (again,) = results.main(kept)
    assert checkpoint.stat().st_mtime_ns == written
    assert again["runs"][0]["metrics"] == first["runs"][0]["metrics"]
    assert again["runs"][0]["seconds"] == first["runs"][0]["seconds"] > 0
    assert again["runs"][0]["trained_with"] == first["runs"][0]["made_with"]
    the_file(tmp_path).unlink()
    with pytest.raises(MixError, match="holds a training, made otherwise: epochs 1 there, 3 now"):
        results.main([*kept, "--epochs", "3"])


def test_the_parts_of_a_stopped_training_are_timed_together(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0, 200.0, 201.0])
    monkeypatch.setattr(one_run.time, "process_time", lambda: next(clock))
    run = {"settings": {"model": {}, "fit": {}}, "made_with": {}}
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), one_run.timed(folder, run):
        raise KeyboardInterrupt
    for _ in range(2):  # goes on to its end; then it is only read
        with one_run.timed(folder, run) as seconds:
            pass
        assert seconds == [5.0, 7.0]


def test_a_training_that_breaks_down_is_told_and_the_others_go_on(command, monkeypatch, capsys):
    import pyro_mivae as mi

    fit = mi.fit

    @functools.wraps(fit)
    def breaks(vae, x, **options):
        if isinstance(vae, mi.VAE) and options["seed"] == 1:
            raise TrainingError("the loss is nan")
        return fit(vae, x, **options)

    monkeypatch.setattr(mi, "fit", breaks)
    (content,) = results.main([*command[:-1], "--seeds", "3"])
    assert [run.get("failed") for run in content["runs"]] == [None, "the loss is nan", None]
    told = capsys.readouterr().out
    assert "images-vae-1: the loss is nan" in told
    assert "Without a finite loss to the end: vae from seed 1." in told
    assert "| vae | 2 |" in told


@pytest.mark.slow
@pytest.mark.usefixtures("quick", "encoder_side")
def test_categories_are_measured_by_the_same_means(images, tmp_path, capsys, monkeypatch):
    start = sys.modules["pyro_mivae.variants.warm_start"]
    few = functools.partial(start.warm_start_categories, steps=20)
    monkeypatch.setattr(start, "warm_start_categories", lambda *args, **plan: few(*args))
    ways = ["--start", "informed", "random"]
    place = ["--out", str(tmp_path / "out"), "--jobs", "1", "--epochs", "1", "--seeds", "1"]
    (content,) = categories.main(["--data", images, *place, *ways])
    baseline, cat, _, informed, random = content["runs"]
    clusters._last.clear()
    place[1] += "-alone"
    (content,) = categories.main(["--data", images, *place, "--variants", "infocat", *ways])
    _, alone, _ = content["runs"]
    assert alone["metrics"] == informed["metrics"]  # which took cat's start
    assert (
        alone["start_alone"]["nmi"] == informed["start_alone"]["nmi"] == cat["start_alone"]["nmi"]
    )
    assert random["settings"]["model"]["warm_start"] == 0
    assert "start_alone" not in random
    assert informed["settings"]["model"].get("warm_start") is None
    lines = capsys.readouterr().out.splitlines()
    rows = {
        cells[0]: cells[1:] for line in lines if len(cells := line.strip("| ").split(" | ")) > 2
    }
    start, both = (rows[f"infocat, auto: {name}"] for name in categories.NAMES["informed"])
    assert start[-1] == start[-2] == "–"
    assert "–" not in both
    assert float(start[1]) == round(informed["start_alone"]["cluster_accuracy"], 3)
    assert float(both[1]) == round(informed["metrics"]["cluster_accuracy"], 3)
    assert float(rows["mixture of a VAE's means"][1]) == round(
        baseline["clusters_of_means"]["mixture"]["cluster_accuracy"], 3
    )


def test_mean_and_standard_deviation():
    assert spread([1.0, 2.0, 4.0], 2) == "2.33 ± 1.53"  # sqrt((1.33² + 0.33² + 1.67²) / 2)
    assert spread([2.5], 1) == "2.5"
    assert spread([-0.001, 0.0], 2) == "0.00 ± 0.00"
    assert spread([1.0, None], 2) == spread([1.0, math.nan], 2) == spread([], 2) == "–"


def test_intervals():
    assert interval([1.0, 3.0], [4.0, 4.5]) == "2.00 to 4.25 ± 1.41"
    assert interval([1.0], [2.0]) == "1.00 to 2.00"
    assert interval([1.0, 1.002], [1.001, 1.002]) == "1.00 ± 0.00"
    assert interval([1.0, 3.0], [None, None]) == "≥ 2.00 ± 1.41"
    assert interval([None], [1.0]) == "–"


def test_a_fitted_marginal_serves_where_log_n_is_the_limit():
    run = {"mi_lower": 9.0, "mi_upper": 22.0, "fitted_mi_lower": 12.0, "fitted_mi_upper": 20.0}
    assert bounds(run | {"saturated": 1.0}, "mi") == (12.0, 20.0)
    assert bounds(run | {"saturated": 0.0}, "mi") == bounds(run, "mi") == (9.0, 22.0)
    worse = {"saturated": 1.0, "fitted_mi_lower": 3.0, "fitted_mi_upper": None}
    assert bounds(run | worse, "mi") == (9.0, 22.0)
    of_c = {"mi_c_lower": 1.0, "mi_c_upper": 2.0, "saturated": 1.0}
    assert bounds(run | of_c, "mi_c") == (1.0, 2.0)
    assert bounds(run | of_c | {"mi_c_upper": 25.0}, "mi_c") == (
        1.0,
        20.0,
    )  # no more than the code
    assert bounds(run | of_c | {"mi_c_upper": None}, "mi_c") == (1.0, None)


def test_a_table_by_hand():
    runs = [
        {"variant": "vae", "metrics": {"elbo": -24.0, "kl_z": 3.0}},
        {"variant": "vae", "metrics": {"elbo": -25.0, "kl_z": 5.0}},
        {"variant": "cat", "metrics": {"elbo": None, "kl_z": 1.0, "kl_c": 2.0}},
    ]
    assert table(runs, ["−ELBO", "KL of each site"]).splitlines() == [
        "| variant | seeds | −ELBO | KL of each site |",
        "| --- | --- | --- | --- |",
        "| vae | 2 | 24.50 ± 0.71 | z 4.00 ± 1.41 |",
        "| cat | 1 | – | z 1.00, c 2.00 |",
    ]


def test_two_commands_may_fill_a_file(tmp_path):
    path, order = tmp_path / "file.json", [{"variant": "vae"}, {"variant": "cat"}]
    put(path, {"protocol": {"cat": 1}}, {"variant": "cat", "seed": 0}, order)
    put(path, {"protocol": {"vae": 2}}, {"variant": "vae", "seed": 0}, order)
    put(path, {}, {"variant": "vae", "seed": 0, "again": True}, order)
    content = json.loads(path.read_text())
    assert content["protocol"] == {"cat": 1, "vae": 2}
    assert list(map(key, content["runs"])) == [("vae", 0), ("cat", 0)]
    assert content["runs"][0]["again"]


def test_the_time_that_is_left():
    def run(variant, took=None):
        return {"variant": variant, "settings": {"fit": {"epochs": 10}}, "took": took, "seed": 0}

    times = Times()
    assert times.told([("digits", run("vae"))], 1) == "; 1 left"
    times.add("digits", run("vae", 590.0))
    times.add("digits", run("vae", 610.0))
    assert times.told([("digits", run("vae"))] * 2, 1) == "; 2 left, about 20 min"
    assert times.told([("digits", run("vae"))] * 2, 2) == "; 2 left, about 10 min"
    assert times.told([("digits", run("cat"))] * 2, 1) == "; 2 left, about 1 h 50 min"  # 5.5 each
    assert times.told([], 1) == ""


def test_the_picture_has_every_seed(command, tmp_path):
    from benchmarks.results_picture import draw

    picture = tmp_path / "docs" / "results.png"
    (content,) = results.main([*command, "--seeds", "2", "--picture", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert draw([content]) == picture.read_bytes()
